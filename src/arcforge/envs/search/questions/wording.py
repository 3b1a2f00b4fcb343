"""From a pattern to the question's text. No node of the chain is named; clues name what is around it."""

from __future__ import annotations

from arcforge.envs.search.extract.relations import KINDS, article, noun, sentence
from arcforge.envs.search.questions.question import Pattern

ORDINALS = ("first", "second", "third", "fourth", "fifth")


def word(pattern: Pattern) -> str:
    """The chain is told from its first node on; the last sentence asks for the last one and says how to write it."""
    parts = [f"There is {article(pattern.kinds[0])}: {_clues(pattern, 0)}."]
    for at, hop in enumerate(pattern.hops, 1):
        known, new = _label(pattern, at - 1), _introduction(pattern, at)
        told = sentence(hop.relation, *((known, new) if hop.forward else (new, known)))
        clues = _clues(pattern, at)
        parts.append(_capital(told) + (f"; about the latter, {clues}." if clues else "."))
    last = len(pattern.kinds) - 1
    hint = KINDS.get(pattern.kinds[last], ("", ""))[1]
    parts.append(f"What is {_label(pattern, last)} called?" + (f" Write the answer {hint}." if hint else ""))
    return " ".join(parts)


def _clues(pattern: Pattern, at: int) -> str:
    pronoun = "this person" if pattern.kinds[at] == "person" else "it"
    told = []
    for clue in pattern.clues:
        if clue.at == at:
            told.append(sentence(clue.relation, *((pronoun, clue.text) if clue.forward else (clue.text, pronoun))))
    return ", and ".join(told)


def _introduction(pattern: Pattern, at: int) -> str:
    kind = pattern.kinds[at]
    return f"another {noun(kind)}" if kind in pattern.kinds[:at] else article(kind)


def _label(pattern: Pattern, at: int) -> str:
    kind = pattern.kinds[at]
    if pattern.kinds.count(kind) == 1:
        return f"this {noun(kind)}"
    return f"the {ORDINALS[pattern.kinds[: at + 1].count(kind) - 1]} {noun(kind)}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
