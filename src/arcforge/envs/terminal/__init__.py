"""Tasks in a terminal, in Harbor's format. Imports nothing by itself."""
