"""One generated programming problem: a text, a reference solution, and calls whose results are the hidden tests."""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from arcforge.envs.levelled import Exercise

SHOWN = 2
Arguments = tuple[Any, ...]


def problem(
    kind: str,
    level: int,
    facts: tuple[object, ...],
    text: str,
    source: str,
    calls: Sequence[Arguments],
    broken: tuple[str, str],
) -> Exercise:
    """source: defines `solve`. The first SHOWN calls are examples in the text, all of them are tests. broken: (old, new), a
    change of the source that makes it wrong on at least one call; a change that does not is left out."""
    source = textwrap.dedent(source).strip()
    results = _results(source, calls)
    second = next((place for place, result in enumerate(results) if result != results[0]), 0)
    if second:  # two examples that differ tell more
        calls = [calls[0], calls[second], *calls[1:second], *calls[second + 1 :]]
        results = _results(source, calls)
    mutant = source.replace(broken[0], broken[1])
    written = [(f"solve({', '.join(map(repr, arguments))})", result) for arguments, result in zip(calls, results)]
    shown = "\n".join(f"{call} == {result!r}" for call, result in written[:SHOWN])
    wrong = [f"def solve(*_):\n    return {results[0]!r}"] if any(result != results[0] for result in results) else []
    wrong += [mutant] if mutant != source and _results(mutant, calls) != results else []
    return Exercise(
        kind=kind,
        level=level,
        facts=facts,
        question=f"{textwrap.dedent(text).strip()}\n\nName the function `solve`. Examples:\n{shown}",
        solution="The text gives the steps; they are written down one after another.",
        answer=source,
        wrong=tuple(wrong),
        reference={
            "program": {"tests": [f"assert {call} == {result!r}" for call, result in written], "names": ["solve"]}
        },
    )


def _results(source: str, calls: Sequence[Arguments]) -> list[Any]:
    """Of our own sources alone: what the model writes never runs here."""
    names: dict[str, Callable[..., Any]] = {}
    exec(source, names)
    results = []
    for arguments in calls:
        try:
            results.append(names["solve"](*copy.deepcopy(arguments)))
        except (ArithmeticError, LookupError, ValueError):
            results.append(None)
    return results
