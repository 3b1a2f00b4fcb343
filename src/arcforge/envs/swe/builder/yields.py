"""How many candidates became environments, and why the others did not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from arcforge.core.messages import Value

VALID = "valid"


class Yield(Value):
    """One repository's account. outcomes: source -> outcome -> count over all that was ever measured in its folder.

    sifted: commits that fell to a rule before anything ran. measured, valid and seconds (wall) are of this call alone,
    install_seconds apart from them.
    """

    repository: str
    outcomes: dict[str, dict[str, int]]
    sifted: dict[str, int]
    measured: int
    valid: int
    install_seconds: float
    seconds: float

    @property
    def per_hour(self) -> float:
        """Valid environments per hour of this call, the one-time installation left out."""
        return 3600 * self.valid / self.seconds if self.seconds else 0.0

    def total(self, source: str) -> tuple[int, int]:
        """(valid, measured) of a source, "commit" or "bug"."""
        counts = self.outcomes.get(source, {})
        return counts.get(VALID, 0), sum(counts.values())


def count_outcomes(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """From rows with `source` and `outcome`."""
    found: dict[str, Counter[str]] = {}
    for row in rows:
        found.setdefault(row["source"], Counter())[row["outcome"]] += 1
    return {source: dict(counts.most_common()) for source, counts in sorted(found.items())}


def table(yields: Sequence[Yield]) -> str:
    """Text for people: a line per repository and source, reasons behind it, most frequent first."""
    lines = [f"{'repository':28} {'source':8} {'valid':>6} {'of':>6} {'share':>6}  rejected"]
    for account in yields:
        for source, counts in account.outcomes.items():
            valid, measured = account.total(source)
            reasons = ", ".join(f"{reason} {n}" for reason, n in counts.items() if reason != VALID)
            share = valid / measured if measured else 0.0
            lines.append(f"{account.repository:28} {source:8} {valid:6} {measured:6} {share:6.0%}  {reasons}".rstrip())
        if account.sifted:
            sifted = ", ".join(f"{reason} {n}" for reason, n in account.sifted.items())
            lines.append(
                f"{account.repository:28} {'sifted':8} {'':6} {sum(account.sifted.values()):6} {'':6}  {sifted}"
            )
    return "\n".join(lines)
