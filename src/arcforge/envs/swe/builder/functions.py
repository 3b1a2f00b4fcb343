"""Functions of a source in any language as they were in an older one, and whether two sources differ in code at all."""

from __future__ import annotations

from arcforge.envs.swe.builder import source_text, syntax


def same_code(language: str, one: str, other: str) -> bool:
    """Whether two sources differ in documentation and layout at most. False for what cannot be parsed."""
    return (source_text if language == "python" else syntax.Grammar(language)).same_code(one, other)


def older_functions(language: str, old: str, new: str) -> dict[str, str]:
    """Qualified name of a function or method that both sources have and that differs in code -> the new source with the function as
    it was in the old one. Empty for what cannot be parsed."""
    return (source_text if language == "python" else syntax.Grammar(language)).older_functions(old, new)
