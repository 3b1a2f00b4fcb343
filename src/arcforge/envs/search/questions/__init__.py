"""Multi-hop questions from subgraphs, and the filters they must survive."""
