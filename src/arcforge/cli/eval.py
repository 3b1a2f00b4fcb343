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
    seed: Annotated[int, typer.Option(help="Of the tasks and of the sampling.")] = 0,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 1.0,
) -> None:
    from arcforge.evals.table import matrix
    from arcforge.pipeline.evaluate import evaluate_checkpoint

    cells = evaluate_checkpoint(checkpoint, family, count, seed, temperature)
    typer.echo(matrix({str(checkpoint): {cell.domain: cell for cell in cells}}, corner="per cent, 95% interval"))
