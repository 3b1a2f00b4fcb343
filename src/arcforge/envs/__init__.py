"""Task families, one folder each. `registry.family` builds one by name."""
