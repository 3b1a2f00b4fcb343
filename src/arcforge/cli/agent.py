from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "agent"
HELP = """Let a model work on a repository.

It works with its tools in a sandbox over a copy, until the tests pass, and prints the diff. Exit code 1: they still fail.

\b
Examples:
  arcforge agent --repo broken "the tests fail, repair it"
  arcforge agent --repo broken --model runs/seed1 --apply "repair it"
  arcforge agent --repo broken --test "python -m pytest -q" "repair it"
  arcforge agent --repo . --model http://127.0.0.1:8000/v1 "fix the failing test"
"""


def main(
    instruction: Annotated[str, typer.Argument(help="What to do.")],
    repo: Annotated[Path, typer.Option(help="The repository to work on.")],
    model: Annotated[
        str, typer.Option(help="A run or checkpoint folder, or an OpenAI-style URL (its key: OPENAI_API_KEY).")
    ] = "runs/laptop",
    name: Annotated[str, typer.Option(help="The model's name at the URL; its first if not given.")] = "",
    stage: Annotated[str, typer.Option(help="The stage whose checkpoint works; agentic RL's if not given.")] = "",
    test: Annotated[str, typer.Option(help="The command that runs the tests; a test.py of asserts if not given.")] = "",
    attempts: Annotated[int, typer.Option(min=1, help="How often to try until the tests pass.")] = 4,
    apply: Annotated[bool, typer.Option("--apply", help="Write the changed files back.")] = False,
) -> None:
    from arcforge.pipeline.repair import agent

    passed = agent(
        model, repo, instruction, stage, name=name, apply=apply, test_command=test, attempts=attempts, say=typer.echo
    )
    if not passed:
        raise typer.Exit(1)
