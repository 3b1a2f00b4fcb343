"""Environments of the builder in the formats of others: SWE-bench's dataset rows and RepoLaunch's results."""
