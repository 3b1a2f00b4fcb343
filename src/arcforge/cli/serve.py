from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "serve"
HELP = """Serve a checkpoint over HTTP (tokens and chat).

\b
Examples:
  arcforge serve runs/laptop/stages/11-export/bf16
  arcforge serve runs/laptop/stages/05-sft/checkpoint --port 8001
"""


def main(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint folder in Hugging Face layout.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8000,
) -> None:
    from arcforge.serve.main import serve

    serve(checkpoint, host, port)
