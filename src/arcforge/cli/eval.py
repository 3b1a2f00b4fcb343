from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "eval"
HELP = """Evaluate a checkpoint on held-out tasks.

Prints the share solved with its 95% interval.

\b
Examples:
  arcforge eval runs/laptop/stages/07-agentic_rl/checkpoint --family swe
  arcforge eval runs/laptop/stages/05-sft/checkpoint --family reason --count 512
"""


def main(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint folder.")],
    family: Annotated[str, typer.Option(help="The family of tasks.")],
    count: Annotated[int, typer.Option(min=1, help="How many tasks.")] = 128,
) -> None:
    from arcforge.pipeline.evaluate import evaluate_checkpoint
    from arcforge.view.table import matrix_table

    typer.echo(matrix_table(evaluate_checkpoint(checkpoint, family, count)))
