"""Pieces of Markdown that the comparisons and the record are written in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from arcforge.evals.stats import Interval
from arcforge.evals.table import difference

Result = dict[str, Any]
"""What a comparison found, ready for JSON. rows: its numbers; target: the claim in words; held: whether it held, None
where nothing is claimed; says: plain sentences computed from the numbers."""


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The first column to the left, the others to the right."""
    rule = ["---", *("---:" for _ in headers[1:])]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in (headers, rule, *rows))


def points(row: Mapping[str, Any]) -> str:
    """`+15.2 [+8.1, +22.0]`: value, low and high of a difference of shares, in percentage points."""
    return difference(Interval(value=row["value"], low=row["low"], high=row["high"]))


def plain(row: Mapping[str, Any], signed: bool = False) -> str:
    """`2.25 [2.11, 2.39]`: value, low and high as they are; signed: with their signs."""
    sign = "+" if signed else ""
    return f"{row['value']:{sign}.2f} [{row['low']:{sign}.2f}, {row['high']:{sign}.2f}]"


def verdict(held: bool | None) -> str:
    return {True: "held", False: "**not held**", None: "–"}[held]


def sentences(results: Mapping[str, Result]) -> str:
    """What each seed's result says, as a list."""
    return "\n".join(f"- Seed {seed}: {said}" for seed, result in results.items() for said in result["says"])
