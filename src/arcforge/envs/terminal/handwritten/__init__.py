"""Terminal tasks written by hand, each with its oracle. Imports nothing by itself."""
