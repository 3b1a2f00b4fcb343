"""`arcforge env synthesize`: the models by what the command line names, and what came of it as text."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from arcforge.clients.openai import endpoint
from arcforge.core.errors import BoundaryError, UserError
from arcforge.core.protocols import Completion, CompletionRequest
from arcforge.envs.terminal.synthesis.accounts import Account, table
from arcforge.envs.terminal.synthesis.asking import Asker
from arcforge.envs.terminal.synthesis.factory import Models, SynthesisSettings, synthesize
from arcforge.envs.terminal.synthesis.seeds import read_seeds
from arcforge.pipeline.talk import checkpoint_of, load
from arcforge.rl.gateway import Gateway
from arcforge.rl.local_engine import LocalTokenEngine


@dataclass(frozen=True)
class Writer:
    """model: an OpenAI-style URL, or a run or checkpoint folder. name: of the model at the URL. judge: as model; the same one if
    empty. max_tokens: of one answer."""

    model: str
    name: str = ""
    judge: str = ""
    max_tokens: int = 8192


def synthesized(seeds: Path, writer: Writer, out: Path, settings: SynthesisSettings) -> str:
    """The yield table. UserError for bad seeds, a model that is not there or a folder of another synthesis."""
    read = read_seeds(seeds)

    async def work() -> Account:
        async with models(writer, settings) as found:
            return await synthesize(read, found, out, settings)

    return told(asyncio.run(work()), out, settings)


def told(account: Account, out: Path, settings: SynthesisSettings) -> str:
    return f"{table(account)}\n{account.kept} of {settings.count} tasks wanted in {out / 'tasks'}"


@asynccontextmanager
async def models(writer: Writer, settings: SynthesisSettings) -> AsyncIterator[Models]:
    """UserError when one of them is not there."""
    async with AsyncExitStack() as stack:
        try:
            constructor = await _asker(writer.model, writer, settings, stack)
            judge = await _asker(writer.judge, writer, settings, stack) if writer.judge else constructor
        except BoundaryError as error:
            raise UserError(f"{writer.model}: {error}") from None
        yield Models(constructor, judge)


async def _asker(model: str, writer: Writer, settings: SynthesisSettings, stack: AsyncExitStack) -> Asker:
    if "://" in model:
        completer = await endpoint(model, writer.name if model == writer.model else "")
        stack.push_async_callback(completer.close)
        return Asker(completer, completer.model, max_tokens=writer.max_tokens)
    folder = checkpoint_of(Path(model))
    return Asker(Checkpoint(folder, settings.in_flight), folder.as_posix(), max_tokens=writer.max_tokens)


class Checkpoint:
    """A Completer of a checkpoint folder, its engine in this process; every request is a conversation of its own."""

    def __init__(self, folder: Path, in_flight: int) -> None:
        engine, tokenizer = load(folder, in_flight)
        self._gateway = Gateway(LocalTokenEngine(engine), tokenizer, engine.config.max_length)
        self._numbers = itertools.count()

    async def complete(self, request: CompletionRequest) -> Completion:
        """EngineError, GatewayError."""
        name = f"{request.session}#{next(self._numbers)}"
        session = self._gateway.open(name)
        try:
            return await session.complete(request)
        finally:
            self._gateway.close(name)
