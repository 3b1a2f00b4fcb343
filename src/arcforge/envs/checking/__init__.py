"""Answers compared by symbolic algebra and by units, in processes that cannot hang or bring down their caller."""
