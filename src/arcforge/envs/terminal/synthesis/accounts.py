"""What became of the drafts: a table of outcomes, and what was wrong on the way to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from arcforge.core.messages import Value

KEPT, FAILED, NEAR_DUPLICATE = "kept", "failed", "near-duplicate"


class Account(Value):
    """outcomes: "kept", "near-duplicate", a reason of the last round, or "failed: BOUNDARY" (machinery, tried again by the next
    call) -> candidates. rounds: how many answers a kept task took -> tasks. problems: a reason -> answers that had it, those of
    tasks that were kept in the end too. seeds_failed: seeds without drafts, by boundary. waiting: candidates not begun."""

    seeds: int
    drafts: int
    outcomes: dict[str, int]
    rounds: dict[int, int]
    problems: dict[str, int]
    seeds_failed: dict[str, int] = {}
    waiting: int = 0

    @property
    def kept(self) -> int:
        return self.outcomes.get(KEPT, 0)


def outcome(row: Mapping[str, Any]) -> str:
    """Of a ledger's row, as it is counted."""
    return f"{FAILED}: {row['boundary']}" if row["outcome"] == FAILED else row["outcome"]


def count(
    seeds: int, seeds_failed: Mapping[str, int], duplicates: int, rows: Sequence[Mapping[str, Any]], drafts: int
) -> Account:
    """rows: the last one of each candidate, of the ledger."""
    outcomes = Counter(outcome(row) for row in rows)
    if duplicates:
        outcomes[NEAR_DUPLICATE] = duplicates
    rounds = Counter(len(row["rounds"]) for row in rows if row["outcome"] == KEPT and row["rounds"])
    problems = Counter(reason for row in rows for held in row.get("rounds", []) for reason in held["reasons"])
    return Account(
        seeds=seeds, drafts=drafts, outcomes=dict(outcomes.most_common()), rounds=dict(sorted(rounds.items())),
        problems=dict(problems.most_common()), seeds_failed=dict(seeds_failed), waiting=drafts - sum(outcomes.values()),
    )  # fmt: skip


def table(account: Account) -> str:
    """Text for people."""
    told = max(1, account.drafts)
    lines = [f"{account.drafts} drafts of {account.seeds} seeds", f"{'outcome':44} {'drafts':>6} {'share':>6}"]
    outcomes = {KEPT: account.kept, **{name: number for name, number in account.outcomes.items() if name != KEPT}}
    if account.waiting:
        outcomes["not begun"] = account.waiting
    lines += [f"{name:44} {number:6} {number / told:6.0%}" for name, number in outcomes.items()]
    if account.rounds:
        lines.append(f"answers for a kept task: {', '.join(f'{n} for {tasks}' for n, tasks in account.rounds.items())}")
    if account.problems:
        lines.append(f"wrong in answers: {', '.join(f'{name} {number}' for name, number in account.problems.items())}")
    if account.seeds_failed:
        failed = ", ".join(f"{name} {number}" for name, number in account.seeds_failed.items())
        lines.append(f"seeds without drafts, tried again by the next call: {failed}")
    return "\n".join(lines)
