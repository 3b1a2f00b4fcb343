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
"""


def main(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    stage: Annotated[str, typer.Option(help="The stage whose checkpoint answers; the last one if not given.")] = "",
) -> None:
    from arcforge.pipeline.talk import chat

    chat(run, stage)
