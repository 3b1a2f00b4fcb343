"""`arcforge env synthesize`: the models by what the command line names, and what came of it as text."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from arcforge.clients.openai import endpoint
from arcforge.core.errors import BoundaryError, UserError
from arcforge.core.messages import Value
from arcforge.core.metrics import Progress
from arcforge.core.protocols import Completion, CompletionRequest
from arcforge.core.runs import atomic_write
from arcforge.envs.asking import Asker
from arcforge.envs.terminal.synthesis.accounts import Account, table
from arcforge.envs.terminal.synthesis.factory import Models, SynthesisSettings, build_candidates, synthesize
from arcforge.envs.terminal.synthesis.pages.funnel import Funnel, candidates, plan
from arcforge.envs.terminal.synthesis.pages.strata import sample
from arcforge.envs.terminal.synthesis.pages.tables import funnel_table, strata_table
from arcforge.envs.terminal.synthesis.seeds import Seed, read_seeds
from arcforge.pipeline.talk import checkpoint_of, load
from arcforge.rl.gateway import Gateway
from arcforge.rl.local_engine import LocalTokenEngine

PAGES_PER_TASK = 10
"""At most so many pages are tried for each task that is wanted."""


@dataclass(frozen=True)
class Writer:
    """model: an OpenAI-style URL, or a run or checkpoint folder. name: of the model at the URL. judge: as model; the same one if
    empty. max_tokens: of one answer."""

    model: str
    name: str = ""
    judge: str = ""
    max_tokens: int = 8192


@dataclass(frozen=True)
class PageFolders:
    """most: of the pages that their names leave, at most so many are read; 0: all."""

    folders: Sequence[Path] = ()
    most: int = 0


def synthesized(
    seeds: Path | None, pages: PageFolders, writer: Writer | None, out: Path, settings: SynthesisSettings
) -> str:
    """From one of seeds and pages: the yield table; without a writer only the plan. UserError for bad seeds or pages, a model that
    is not there or a folder of another synthesis."""
    if (seeds is None) == (not pages.folders):
        raise UserError("synthesize: name either --seeds FILE or --pages FOLDER")
    if writer is not None and not writer.model:
        raise UserError("synthesize: name what builds the tasks with --model, or see with --plan what there is to do")
    if seeds is not None:
        return _from_seeds(read_seeds(seeds), writer, out, settings)
    return _from_pages(pages, writer, out, settings)


def _from_seeds(read: Sequence[Seed], writer: Writer | None, out: Path, settings: SynthesisSettings) -> str:
    if writer is None:
        return f"{len(read)} seeds, {len(read) * settings.drafts} drafts to ask for, {settings.count} tasks wanted"

    async def work() -> Account:
        async with models(writer, settings) as found:
            return await synthesize(read, found, out, settings)

    return told(asyncio.run(work()), out, settings)


def _from_pages(pages: PageFolders, writer: Writer | None, out: Path, settings: SynthesisSettings) -> str:
    """Leaves the funnel in `funnel.json`. Where it lies already it is of the same folders, or a UserError."""
    funnel = _funnel(pages, out / "funnel.json", settings)
    # Not every page becomes a task: those that are tried are drawn from all strata alike, in this order.
    ordered = sample(funnel.pages, len(funnel.pages), settings.seed)
    wanted = ordered[: settings.count]
    text = f"{funnel_table(funnel)}\n\n{strata_table(funnel, wanted)}"
    if writer is None:
        return f"{text}\n{len(wanted)} pages first, of {len(ordered)}; {settings.count} tasks wanted"
    tries = candidates(ordered[: settings.count * PAGES_PER_TASK])

    async def work() -> Account:
        async with models(writer, settings) as found:
            return await build_candidates(tries, found, out, settings)

    return f"{text}\n\n{told(asyncio.run(work()), out, settings)}"


def _funnel(pages: PageFolders, path: Path, settings: SynthesisSettings) -> Funnel:
    folders = tuple(folder.resolve().as_posix() for folder in pages.folders)
    if path.exists():
        try:
            held = Planned.model_validate_json(path.read_bytes())
        except ValidationError:
            raise UserError(f"{path}: no funnel of this version; remove it and the pages are read again") from None
        if (held.folders, held.most, held.seed) != (folders, pages.most, settings.seed):
            raise UserError(
                f"{path}: of other folders, --most-pages or --seed ({', '.join(held.folders)}); choose another --out"
            )
        return held.funnel
    progress: list[Progress] = []

    def update(done: int, total: int) -> None:
        if not progress:
            progress.append(Progress("pages", total, "page"))
        progress[0].update(done - progress[0].done)

    funnel = plan(pages.folders, settings.in_flight, pages.most, settings.seed, update)
    planned = Planned(folders=folders, most=pages.most, seed=settings.seed, funnel=funnel)
    atomic_write(path, planned.model_dump_json(indent=1) + "\n")
    return funnel


class Planned(Value):
    """The funnel of these folders."""

    folders: tuple[str, ...]
    most: int
    seed: int
    funnel: Funnel


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
