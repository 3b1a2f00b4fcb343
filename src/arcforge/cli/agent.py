from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "agent"
HELP = """Let a run's model repair a little repository.

It works with its tools on a copy, until the tests pass, and prints the diff. Exit code 1: they still fail.

\b
Examples:
  arcforge agent --repo broken "the tests fail, repair it"
  arcforge agent --repo broken --run runs/seed1 --apply "repair it"
  arcforge agent --repo broken --test "python -m pytest -q" "repair it"
"""


def main(
    instruction: Annotated[str, typer.Argument(help="What to do.")],
    repo: Annotated[Path, typer.Option(help="The repository to work on.")],
    run: Annotated[Path, typer.Option(help="The run folder whose model works.")] = Path("runs/laptop"),
    stage: Annotated[str, typer.Option(help="The stage whose checkpoint works; agentic RL's if not given.")] = "",
    test: Annotated[str, typer.Option(help="The command that runs the tests; a test.py of asserts if not given.")] = "",
    attempts: Annotated[int, typer.Option(min=1, help="How often to try until the tests pass.")] = 4,
    apply: Annotated[bool, typer.Option("--apply", help="Write the repaired files back.")] = False,
) -> None:
    from arcforge.pipeline.repair import agent

    passed = agent(run, repo, instruction, stage, apply=apply, test_command=test, attempts=attempts, say=typer.echo)
    if not passed:
        raise typer.Exit(1)
