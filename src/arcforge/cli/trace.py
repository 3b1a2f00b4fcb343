from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from arcforge.rl.verify import StageCheck

NAME = "trace"
HELP = """Show a trajectory's tokens, list the newest, or prove them all.

verify compares every model turn of every trajectory with the engines' own records: the ids before it in its fork must be
what an engine consumed, its ids and weight versions what that engine produced. Exit code 0: all verified; 2: a turn
differs or has no record. The records are stages/<n>-<stage>/engine-*.jsonl of the run, written by engines that serve with
--record; rollouts of a stage without one are named, not judged.

\b
Examples:
  arcforge trace runs/laptop
  arcforge trace runs/laptop --stage agentic_rl --limit 50
  arcforge trace runs/laptop ROLLOUT
  arcforge trace runs/laptop ROLLOUT --tokens
  arcforge trace verify runs/laptop
"""
VERIFY = "verify"
"""In place of a run folder. A run in a folder of this name is shown by its absolute path."""


def main(
    run: Annotated[Path, typer.Argument(help="A run folder; or verify, before one.")],
    rollout: Annotated[str, typer.Argument(help="A rollout's name, from the list; after verify, the run folder.")] = "",
    stage: Annotated[str, typer.Option(help="List or verify one stage only.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many to list, or how many faulty turns to tell.")] = 20,
    tokens: Annotated[bool, typer.Option("--tokens", help="One line per token: id, logprob, text.")] = False,
) -> None:
    from arcforge.view.trace import listing, trace

    if str(run) == VERIFY and rollout:
        verify(Path(rollout), stage, limit)
    elif not rollout:
        typer.echo(listing(run, stage, limit))
    else:
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        typer.echo(trace(run, rollout, tokens=tokens, colour=colour), color=colour)


def verify(run: Path, stage: str, limit: int) -> None:
    """Print the table and the faulty turns; exit with 2 unless everything that can be judged is verified."""
    from arcforge.core.errors import UserError
    from arcforge.rl.verify import RECORDS
    from arcforge.rl.verify import verify as verified

    checks = verified(run, stage)
    judged = [check for check in checks if check.recorded]
    if not judged:
        where = f"stages/<n>-{stage or '<stage>'}/{RECORDS}"
        raise UserError(f"{run}: no engine record ({where}), so nothing can be verified; serve with --record")
    typer.echo(_table(judged))
    for check in checks:
        if not check.recorded:
            typer.echo(f"{check.stage}: no engine record; its {check.trajectories} trajectories are not verified")
    faults = [fault for check in judged for fault in check.faults]
    for fault in faults[:limit]:
        typer.echo(f"{fault.rollout_id} turn {fault.turn}: {fault.what}")
    if len(faults) > limit:
        typer.echo(f"... and {len(faults) - limit} more; --limit {len(faults)} tells them all")
    if faults:
        raise typer.Exit(2)


def _table(checks: list[StageCheck]) -> str:
    from arcforge.view.table import table

    headers = ["stage", "trajectories", "turns verified", "without record", "differing", "unused requests"]
    return table(
        headers,
        [[c.stage, *map(str, (c.trajectories, c.verified, c.missing, c.differing, c.unused))] for c in checks],
    )
