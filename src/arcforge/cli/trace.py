from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

NAME = "trace"
HELP = """Show a trajectory's tokens, or list the newest.

\b
Examples:
  arcforge trace runs/laptop
  arcforge trace runs/laptop --stage agentic_rl --limit 50
  arcforge trace runs/laptop ROLLOUT
  arcforge trace runs/laptop ROLLOUT --tokens
"""


def main(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    rollout: Annotated[str, typer.Argument(help="A rollout's name, from the list.")] = "",
    stage: Annotated[str, typer.Option(help="List one stage only.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many to list.")] = 20,
    tokens: Annotated[bool, typer.Option("--tokens", help="One line per token: id, logprob, text.")] = False,
) -> None:
    from arcforge.view.trace import listing, trace

    if not rollout:
        typer.echo(listing(run, stage, limit))
        return
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    typer.echo(trace(run, rollout, tokens=tokens, colour=colour), color=colour)
