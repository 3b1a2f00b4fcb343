"""Families of generated terminal tasks: (random numbers, difficulty) -> Draft. Imports nothing by itself."""
