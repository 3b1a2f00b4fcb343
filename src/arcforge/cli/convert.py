from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

NAME = "convert"
HELP = """Write a checkpoint in another number format.

\b
Examples:
  arcforge convert runs/laptop/stages/09-distill/checkpoint glm-small-fp8 --dtype fp8
  arcforge convert glm-small-fp8 glm-small-bf16 --dtype bf16
"""


class Dtype(StrEnum):
    bf16 = "bf16"
    fp8 = "fp8"
    fp32 = "fp32"


FORMATS = {Dtype.bf16: "bfloat16", Dtype.fp8: "fp8", Dtype.fp32: "float32"}


def main(
    source: Annotated[Path, typer.Argument(help="The checkpoint to read.")],
    target: Annotated[Path, typer.Argument(help="The folder to write.")],
    dtype: Annotated[Dtype, typer.Option(help="The number format of the weights.")] = Dtype.bf16,
) -> None:
    from arcforge.model.convert import convert

    convert(source, target, FORMATS[dtype])
    typer.echo(target)
