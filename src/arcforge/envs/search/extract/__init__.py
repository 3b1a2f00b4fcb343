"""Entities and typed relations of one page, by rules or by a completer."""
