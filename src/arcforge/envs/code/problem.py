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
    change of one place of the source; wrong of the exercise are a constant and the broken source, each where it fails a
    test. ValueError unless `old` is in the source once; what either source raises is raised: they are ours."""
    source = textwrap.dedent(source).strip()
    if source.count(broken[0]) != 1:
        raise ValueError(
            f"{kind}, level {level}: {broken[0]!r} is {source.count(broken[0])} times in the source, not once"
        )
    results = _results(source, calls)
    second = next((place for place, result in enumerate(results) if result != results[0]), 0)
    if second:  # two examples that differ tell more
        order = [0, second, *(place for place in range(1, len(calls)) if place != second)]
        calls, results = [calls[place] for place in order], [results[place] for place in order]
    mutant = source.replace(*broken)
    written = [(f"solve({', '.join(map(repr, arguments))})", result) for arguments, result in zip(calls, results)]
    shown = "\n".join(f"{call} == {result!r}" for call, result in written[:SHOWN])
    wrong = [f"def solve(*_):\n    return {results[0]!r}"] if second else []
    wrong += [mutant] if _results(mutant, calls) != results else []
    return Exercise(
        kind=kind,
        level=level,
        facts=facts,
        question=f"{textwrap.dedent(text).strip()}\n\nName the function `solve`. Examples:\n{shown}",
        solution="",
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
    return [names["solve"](*copy.deepcopy(arguments)) for arguments in calls]
