from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

NAME = "rl"
HELP = """Look into a run's agentic RL.

replay takes the trainer's steps again, from the rollouts that the run wrote down, and compares the weights with every version
that the run published, bit for bit. It needs no engine and changes nothing in the run.

\b
Examples:
  arcforge rl replay runs/laptop
"""


class Action(StrEnum):
    replay = "replay"


def main(
    action: Annotated[Action, typer.Argument(help="What to do.")],
    run: Annotated[Path, typer.Argument(help="A run folder.")],
) -> None:
    from arcforge.pipeline.replay import replay_run

    assert action is Action.replay
    replay_run(run, typer.echo)
