from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "agent"
HELP = """Let a run's model repair a little repository.

It works with its tools and prints the diff.

\b
Examples:
  arcforge agent --repo broken "the tests fail, repair it"
  arcforge agent --repo broken --run runs/seed1 "repair it"
"""


def main(
    instruction: Annotated[str, typer.Argument(help="What to do.")],
    repo: Annotated[Path, typer.Option(help="The repository to work on.")],
    run: Annotated[Path, typer.Option(help="The run folder whose model works.")] = Path("runs/laptop"),
) -> None:
    from arcforge.pipeline.talk import agent

    agent(run, repo, instruction)
