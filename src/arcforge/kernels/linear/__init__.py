"""See README.md for when it is used."""
