"""Entities and typed relations of one page, by rules."""
