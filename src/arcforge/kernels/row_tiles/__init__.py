"""See README.md for the maths."""
