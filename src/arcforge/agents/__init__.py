"""The agent: its loop, its tools and its context policies. Sees Protocols only."""
