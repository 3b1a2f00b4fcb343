"""Generated programming problems with hidden tests, and the one place that runs a model's code."""
