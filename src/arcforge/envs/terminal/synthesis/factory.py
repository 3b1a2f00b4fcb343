"""Seeds to tasks: drafts, construction and refinement in parallel, every outcome in a ledger, so that a call goes on where the last
one ended and never asks a model again for what is finished.

    OUT/drafts.jsonl   what was drafted of each seed
        ledger.jsonl   the first line says what is made here; then one line per candidate
        tasks/<name>/  the kept ones, in Harbor's format
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from arcforge.core.errors import BoundaryError, UserError
from arcforge.core.messages import Value
from arcforge.core.metrics import JsonLines, Progress
from arcforge.core.runs import RunFolder, read_jsonl
from arcforge.envs.asking import Asker
from arcforge.envs.terminal.harbor import write_task
from arcforge.envs.terminal.sandboxes import SandboxRunner
from arcforge.envs.terminal.synthesis.accounts import FAILED, KEPT, Account, count
from arcforge.envs.terminal.synthesis.ideas import Candidate, Idea, distinct, think
from arcforge.envs.terminal.synthesis.prompts import prompts_hash
from arcforge.envs.terminal.synthesis.refining import Workshop, refine
from arcforge.envs.terminal.synthesis.seeds import Seed

SOURCE = "arcforge.envs.terminal.synthesis"
Item = TypeVar("Item")


class SynthesisSettings(Value):
    """count: tasks wanted. drafts: asked for of each seed. rounds: answers for one task, at most. in_flight: candidates at a time.
    oracle_runs: how often a solution must pass. seed: of the models' sampling."""

    count: int
    drafts: int = 4
    rounds: int = 4
    in_flight: int = 2
    oracle_runs: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Models:
    constructor: Asker
    judge: Asker

    def seeded(self, seed: int) -> Models:
        return Models(replace(self.constructor, seed=seed), replace(self.judge, seed=seed))


async def synthesize(seeds: Sequence[Seed], models: Models, out: Path, settings: SynthesisSettings) -> Account:
    """Tasks from topics and tasks (GLM-5 report, section 4.2.2, the first pipeline), until `count` are kept or the drafts are used
    up. UserError for a folder that holds a synthesis by other models or prompts, or where bubblewrap does not work."""
    models = models.seeded(settings.seed)
    with Ledger(out, _begin(models, settings)) as ledger:
        failed = await _draft(seeds, models.constructor, ledger, settings)
        drafted = ledger.drafts(seeds)
        kept, dropped = distinct(drafted)
        rows = await _build_all(kept, models, ledger, settings)
    return count(len(seeds), failed, len(dropped), rows, len(drafted))


async def build_candidates(
    candidates: Sequence[Candidate], models: Models, out: Path, settings: SynthesisSettings
) -> Account:
    """The same from candidates that need no drafting, such as pages (the second pipeline)."""
    models = models.seeded(settings.seed)
    with Ledger(out, _begin(models, settings)) as ledger:
        rows = await _build_all(candidates, models, ledger, settings)
    return count(len({candidate.seed.digest for candidate in candidates}), {}, 0, rows, len(candidates))


class Ledger:
    """What was finished, in a folder that one process at a time writes."""

    def __init__(self, out: Path, begin: dict[str, Any]) -> None:
        self.out, self._begin = out, begin

    def __enter__(self) -> Ledger:
        folder = RunFolder(self.out).create().lock()
        self._folder, path = folder, self.out / "ledger.jsonl"
        held = read_jsonl(path)
        if held and held[0].get("begin") != self._begin:
            raise UserError(f"{path}: made by other models, prompts or seed of sampling; choose another folder")
        self._lines, self._drafts = JsonLines(path), JsonLines(self.out / "drafts.jsonl")
        if not held:
            self._lines.write({"begin": self._begin})
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._drafts.close()

    def rows(self) -> dict[str, dict[str, Any]]:
        """The last row of every candidate, by its name."""
        return {row["candidate"]: row for row in read_jsonl(self.out / "ledger.jsonl") if "candidate" in row}

    def write(self, row: dict[str, Any]) -> None:
        self._lines.write(row)

    def drafted(self) -> dict[str, list[Idea]]:
        """Ideas by their seed's digest."""
        rows = read_jsonl(self.out / "drafts.jsonl")
        return {row["seed"]: [Idea.model_validate(idea) for idea in row["ideas"]] for row in rows}

    def drafts(self, seeds: Sequence[Seed]) -> list[Candidate]:
        """In order of the seeds, then as they were drafted."""
        held = self.drafted()
        return [Candidate(seed=seed, idea=idea) for seed in seeds for idea in held.get(seed.digest, [])]

    def write_drafts(self, seed: Seed, ideas: Sequence[Idea]) -> None:
        told = [idea.model_dump(mode="json") for idea in ideas]
        self._drafts.write({"seed": seed.digest, "kind": seed.kind, "name": seed.name, "ideas": told})


def _begin(models: Models, settings: SynthesisSettings) -> dict[str, Any]:
    names = {"model": models.constructor.name, "judge": models.judge.name}
    return {**names, "prompts": prompts_hash(), "seed": settings.seed}


async def _draft(seeds: Sequence[Seed], asker: Asker, ledger: Ledger, settings: SynthesisSettings) -> Counter[str]:
    """Ask for what the ledger does not hold; failures by boundary."""
    held, failed = ledger.drafted(), Counter[str]()

    async def one(seed: Seed) -> None:
        try:
            ledger.write_drafts(seed, await think(asker, seed, settings.drafts))
        except BoundaryError as error:
            failed[error.boundary] += 1

    await _in_turn(iter([seed for seed in seeds if seed.digest not in held]), one, settings.in_flight, lambda _: True)
    return failed


async def _build_all(
    candidates: Sequence[Candidate], models: Models, ledger: Ledger, settings: SynthesisSettings
) -> list[dict[str, Any]]:
    """The ledger's rows of these candidates, after what was left to do is done."""
    rows = {name: row for name, row in ledger.rows().items() if row["outcome"] != FAILED}
    wanted = [candidate for candidate in candidates if candidate.name not in rows]
    names = {candidate.name for candidate in candidates}
    kept = sum(row["outcome"] == KEPT for name, row in rows.items() if name in names)
    progress = Progress("synthesize", settings.count, "task", min(kept, settings.count))
    async with SandboxRunner() as runner:
        shop = Workshop(models.constructor, models.judge, runner, settings.rounds, settings.oracle_runs)

        async def one(candidate: Candidate) -> None:
            nonlocal kept
            row = await _build(candidate, shop, ledger.out / "tasks", settings.seed)
            ledger.write(row)
            kept += row["outcome"] == KEPT
            progress.update(int(row["outcome"] == KEPT), last=str(row["outcome"]))

        await _in_turn(iter(wanted), one, settings.in_flight, lambda running: kept + running < settings.count)
    progress.close()
    return [row for name, row in ledger.rows().items() if name in names]


async def _build(candidate: Candidate, shop: Workshop, tasks: Path, seed: int) -> dict[str, Any]:
    """A ledger row, whatever came out. What broke is a failure with its boundary, never an outcome of the task."""
    started = time.monotonic()
    row: dict[str, Any] = {"candidate": candidate.name, "seed": candidate.seed.name, "kind": candidate.seed.kind}
    if (tasks / candidate.name).exists():
        # Written whole before its row, which a kill prevented.
        return row | {"outcome": KEPT, "rounds": [], "detail": "found in the folder"}
    try:
        refined = await refine(candidate, shop, provenance(candidate, shop, seed))
    except BoundaryError as error:
        row |= {"outcome": FAILED, "boundary": error.boundary, "detail": str(error)[:500]}
        return row | {"seconds": round(time.monotonic() - started, 3)}
    row |= {"rounds": [held.model_dump(mode="json") for held in refined.rounds]}
    if refined.task is None:
        row |= {"outcome": refined.rounds[-1].reasons[0], "detail": refined.rounds[-1].problems[0][:500]}
    else:
        write_task(refined.task, tasks)
        row |= {"outcome": KEPT, "findings": [finding.model_dump(mode="json") for finding in refined.findings]}
    return row | {"seconds": round(time.monotonic() - started, 3)}


def provenance(candidate: Candidate, shop: Workshop, seed: int) -> dict[str, Any]:
    """Where a task comes from, into its task.toml."""
    idea = candidate.idea
    return {
        "source": SOURCE, "title": idea.title, "difficulty": idea.difficulty, "skills": list(idea.skills),
        "seed_kind": candidate.seed.kind, "seed": candidate.seed.name, "seed_sha256": candidate.seed.digest,
        "model": shop.constructor.name, "judge": shop.judge.name, "prompts": prompts_hash(), "sampling_seed": seed,
    }  # fmt: skip


async def _in_turn(
    items: Iterator[Item], work: Callable[[Item], Awaitable[None]], at_once: int, more: Callable[[int], bool]
) -> None:
    """Begin items in order, `at_once` at a time, while `more` (given how many run) says so. An error of one ends all."""
    running: set[asyncio.Task[None]] = set()
    try:
        while True:
            while len(running) < at_once and more(len(running)) and (item := next(items, None)) is not None:
                running.add(asyncio.ensure_future(work(item)))
            if not running:
                return
            # Each of them waits for nothing without a time limit of its own.
            finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
