from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "chat"
HELP = """Talk to the model of a run.

\b
Examples:
  arcforge chat runs/laptop
  arcforge chat runs/laptop --stage sft
  echo "Write frog 3 times." | arcforge chat runs/laptop
"""


def main(
    run: Annotated[Path, typer.Argument(help="A run folder, or a checkpoint folder.")],
    stage: Annotated[str, typer.Option(help="The stage whose checkpoint answers; the last one if not given.")] = "",
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.6,
) -> None:
    from arcforge.pipeline.talk import chat

    chat(run, stage, temperature)
