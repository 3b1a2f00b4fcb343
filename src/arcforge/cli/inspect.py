from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "inspect"
HELP = """Describe a checkpoint: sizes and parameters.

\b
Examples:
  arcforge inspect runs/laptop/stages/02-pretrain/checkpoint
"""


def main(checkpoint: Annotated[Path, typer.Argument(help="A checkpoint folder.")]) -> None:
    from arcforge.model.inspect import describe

    typer.echo(describe(checkpoint))
