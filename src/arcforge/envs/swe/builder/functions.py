"""Functions of a source in any language without what a newer one did to them, and whether two sources differ in code at all."""

from __future__ import annotations

from arcforge.envs.swe.builder import source_text, syntax


def same_code(language: str, one: str, other: str) -> bool:
    """Whether two sources differ in documentation and layout at most. False for what cannot be parsed."""
    return (source_text if language == "python" else syntax.Grammar(language)).same_code(one, other)


def functions_taken_back(language: str, old: str, new: str) -> dict[str, str]:
    """Qualified name of a function or method -> the new source with that function taken back: as it was in the old one where it
    differs in code, and then, of those that the old one lacks, without its body (calls fail as not implemented; bodies shorter than
    source_text.LEAST_LINES are left alone). Empty for what cannot be parsed."""
    return (source_text if language == "python" else syntax.Grammar(language)).functions_taken_back(old, new)
