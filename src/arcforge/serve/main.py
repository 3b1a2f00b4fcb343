"""One engine as one process: `python -m arcforge.serve.main CHECKPOINT --port N --version V`.

Prints `ready http://HOST:PORT` once requests are accepted (with --port 0 the port is a free one, also written to
--port-file). SIGTERM and SIGINT stop it in order: running requests are answered with what they have, then it exits 0.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
from pathlib import Path
from typing import get_args

import torch

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.config import build
from arcforge.core.errors import UserError
from arcforge.core.runs import atomic_write
from arcforge.infer.engine import EngineConfig, load_engine
from arcforge.infer.precision import rounding_gap
from arcforge.launch.heartbeat import Heartbeat
from arcforge.serve.limits import Limits
from arcforge.serve.listener import Server, bind, server
from arcforge.serve.loop import EngineLoop
from arcforge.serve.metrics import Metrics
from arcforge.serve.record import EngineRecord
from arcforge.serve.server import build_app
from arcforge.serve.transport import transport

# Longest wait of the event loop for Python's lock at each socket call while the engine computes; the default is 5 ms.
SWITCH_SECONDS = 0.0005


def serve(
    checkpoint: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    threads: int = 1,
    version: int = 0,
    model_name: str = "arcforge",
    engine_config: EngineConfig | None = None,
    port_file: Path | None = None,
    heartbeat: Path | None = None,
    stuck_after: float = 60.0,
    limits: Limits | None = None,
    handoff: str = "",
    record: Path | None = None,
) -> None:
    """Load a checkpoint folder and answer until SIGTERM or SIGINT. UserError for a bad checkpoint or port.

    heartbeat: a file that the engine's thread touches while it turns (`launch.heartbeat`). stuck_after: seconds without
    a beat after which /health answers 503. handoff: name of a `serve.transport` for prefill and decode workers, "" for none.
    record: a file that `serve.record` appends to.
    """
    recorder = EngineRecord(record) if record is not None else None
    sock = bind(host, port)
    url = f"http://{host}:{sock.getsockname()[1]}"
    tokenizer = Tokenizer.load(checkpoint)
    torch.set_num_threads(threads)
    sys.setswitchinterval(SWITCH_SECONDS)
    engine = load_engine(checkpoint, engine_config or EngineConfig.model_validate({}))
    if tokenizer.vocab_size > engine.model.config.vocab_size:
        size = engine.model.config.vocab_size
        raise UserError(f"{checkpoint}: the tokenizer has {tokenizer.vocab_size} tokens, the model only {size}")
    engine.version = version
    if engine.config.values == "fp8":
        print(f"fp8 against bfloat16: {rounding_gap(checkpoint)}", flush=True)
    metrics, beat = Metrics(), Heartbeat(heartbeat).beat if heartbeat else lambda: None
    loop = EngineLoop(engine, stuck_after, beat, metrics.finished)
    carrier, length = transport(handoff) if handoff else None, engine.config.max_length
    drafts = engine.speculator is not None
    app = build_app(loop, tokenizer, model_name, limits, metrics, length, carrier, drafts, recorder)

    def ready() -> None:
        if port_file is not None:
            atomic_write(port_file, f"{sock.getsockname()[1]}\n")
        print(f"ready {url}", flush=True)

    asyncio.run(_until_signalled(server(app, loop, ready), sock))


async def _until_signalled(running: Server, sock: socket.socket) -> None:
    def stop() -> None:
        running.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    await running.serve([sock])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m arcforge.serve.main", description="Serve one checkpoint.")
    parser.add_argument("checkpoint", type=Path, help="a Hugging Face checkpoint folder")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 picks a free one")
    parser.add_argument("--port-file", type=Path, help="where to write the port once requests are accepted")
    parser.add_argument("--version", type=int, default=0, help="version number of the checkpoint's weights")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the engine")
    parser.add_argument("--model-name", default="arcforge", help="name under /v1/models")
    parser.add_argument("--handoff", default="", help="shared_memory or nixl: take part in prefill/decode hand-offs")
    parser.add_argument("--record", type=Path, help="a file to append a line to for every finished token request")
    parser.add_argument("--heartbeat", type=Path, help="a file to touch while the engine's loop turns")
    for name, field in EngineConfig.model_fields.items():
        flag, words = f"--{name.replace('_', '-')}", get_args(field.annotation)
        if field.annotation is bool:
            parser.add_argument(flag, action="store_true", help="see EngineConfig")
        elif words:
            parser.add_argument(flag, choices=words, default=field.default, help="see EngineConfig")
        else:
            parser.add_argument(flag, type=int, default=field.default, help="see EngineConfig")
    options = vars(parser.parse_args(arguments))
    engine_fields = {name: options.pop(name) for name in EngineConfig.model_fields}
    try:
        serve(**options, engine_config=build(EngineConfig, engine_fields, "the engine's options"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
