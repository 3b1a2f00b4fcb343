"""Questions about a list that was given before; see README.md."""
