"""Multi-hop questions over a folder of pages, answered with search, open and find; see README.md."""
