"""The inference engine: ids in, ids out. Never text, never tools."""
