from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

NAME = "serve"
HELP = """Serve a checkpoint over HTTP: tokens, OpenAI and Anthropic chat, control.

Prints the address once it answers; /docs describes every path.

\b
Examples:
  arcforge serve runs/laptop/stages/11-export/bfloat16
  arcforge serve runs/laptop/stages/09-distill/checkpoint --port 8001 --drafts 3
  arcforge serve runs/laptop/stages/09-distill/checkpoint --values fp8 --deterministic
"""


def main(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint folder in Hugging Face layout.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8000,
    model_name: Annotated[str, typer.Option(help="The name that requests may give.")] = "arcforge",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the engine.")] = 1,
    max_running: Annotated[int, typer.Option(help="Requests decoded at once.")] = 64,
    max_length: Annotated[int, typer.Option(help="Tokens of a request, prompt included.")] = 1024,
    cache_tokens: Annotated[int, typer.Option(help="Tokens that the cache holds; 0: room for all of the above.")] = 0,
    prefill_tokens: Annotated[int, typer.Option(help="Prompt tokens computed per step.")] = 8192,
    drafts: Annotated[int, typer.Option(help="Tokens that the MTP layer drafts per step; 0: none.")] = 0,
    deterministic: Annotated[bool, typer.Option(help="The same bits whatever else is in the batch; slower.")] = False,
    handoff: Annotated[
        str, typer.Option(help="shared_memory or nixl: hand cache blocks over between prefill and decode workers.")
    ] = "",
    values: Annotated[
        Literal["", "bfloat16", "fp8"], typer.Option(help="Round the weights when they are loaded; prints fp8's gap.")
    ] = "",
) -> None:
    from arcforge.core.config import build
    from arcforge.infer.engine import EngineConfig
    from arcforge.serve.main import serve

    fields = {
        "max_running": max_running,
        "max_length": max_length,
        "cache_tokens": cache_tokens,
        "prefill_tokens": prefill_tokens,
        "drafts": drafts,
        "deterministic": deterministic,
        "values": values,
    }
    config = build(EngineConfig, fields, "the engine's options")
    serve(checkpoint, host, port, threads, model_name=model_name, engine_config=config, handoff=handoff)
