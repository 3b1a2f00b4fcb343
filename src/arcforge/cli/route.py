from __future__ import annotations

from typing import Annotated

import typer

NAME = "route"
HELP = """Serve many workers under one address.

A session stays on one worker; control calls go to all.

\b
Examples:
  arcforge route --workers http://127.0.0.1:8001 http://127.0.0.1:8002 --port 8000
"""


def main(
    more: Annotated[list[str] | None, typer.Argument(metavar="URL", help="Further workers.")] = None,
    workers: Annotated[list[str] | None, typer.Option(metavar="URL", help="The workers' addresses.")] = None,
    prefill: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A worker that computes prompts for the others; may be repeated."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8000,
    timeout: Annotated[float, typer.Option(help="Seconds for one request, retries included.")] = 660.0,
    grace: Annotated[int, typer.Option(min=0, help="Seconds for open requests when it is stopped.")] = 30,
) -> None:
    from arcforge.serve.router import RouterOptions, route

    route([*(workers or []), *(more or [])], host, port, grace, RouterOptions(timeout=timeout), prefill or [])
