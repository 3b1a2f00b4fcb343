"""`arcforge env build` and `arcforge env admit`: software environments made, made again and admitted, as text for the terminal."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from arcforge.clients.openai import endpoint
from arcforge.core.errors import TaskError, UserError
from arcforge.core.metrics import Progress
from arcforge.core.protocols import Completion, CompletionRequest
from arcforge.core.runs import atomic_write
from arcforge.envs.admission import Admission
from arcforge.envs.swe.builder.archives import Release
from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.factory import BuildSettings, build_repository
from arcforge.envs.swe.builder.layout import language_of
from arcforge.envs.swe.builder.manifest import TaskRow, read_shard, shard_name
from arcforge.envs.swe.builder.rebuild import build as build_row
from arcforge.envs.swe.builder.rebuild import clone_of
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.releases import assemble, source_of, up_to
from arcforge.envs.swe.builder.yields import table as yield_table
from arcforge.envs.swe.built.admission import admit
from arcforge.envs.swe.built.places import Places
from arcforge.sandbox.overlay import OverlaySandboxes
from arcforge.view.table import table


@dataclass(frozen=True)
class UrlCompleter:
    """The model at a URL, for questions in event loops of their own. Implements core.protocols.Completer."""

    url: str

    async def complete(self, request: CompletionRequest) -> Completion:
        completer = await endpoint(self.url)
        try:
            return await completer.complete(request)
        finally:
            await completer.close()


def build(
    repo: Path | None, name: str, out: Path, commits: int, bugs: int, workers: int, seconds: float, model: str = "",
    index: str = "", language: str = "",
) -> str:  # fmt: skip
    """Mine one repository, or without one the releases of pypi/NAME, npm/NAME or debian/SOURCE; its yield table.

    model: the URL of one that is asked how to set the project up where rules do not find out. language: "" for Python where there is
    a clone, for what most files are in where there is none.
    """
    completer = (lambda: UrlCompleter(model)) if model else None
    settings = BuildSettings(commits=commits, bugs=bugs, workers=workers, budget=seconds)
    found: list[Release] = []
    if repo is None:
        name, last = up_to(name)
        source, project = source_of(name, index)
        found = source.releases(project, commits, last)
        if not found:
            raise UserError(f"{name}: no release with a source archive that runs here")
        repo = assemble(source, project, found, out / shard_name(name) / "releases")
        language = language or language_of(Clone(repo).paths("HEAD"))
    account = build_repository(
        repo, name, out, settings, releases=found, completer=completer, language=language or "python"
    )
    rate = f"{account.valid} valid of {account.measured} measured in this call, {account.per_hour:.0f} an hour"
    return f"{yield_table([account])}\n{rate}\nmanifest: {out / 'manifest'}"


def rebuild(repo: Path | None, name: str, manifest: Path, out: Path, task: str, index: str = "") -> str:
    """A folder per environment of a shard: repository/, statement.md, hidden.patch, gold.patch, row.json."""
    environment, rows = read_shard(manifest, name)
    wanted = [row for row in rows if not task or row.task_id == task]
    if not wanted:
        raise UserError(f"{manifest}: no task {task!r} of {name}")
    clone, failed = clone_of(environment, out / "releases", repo, index), []
    for row in wanted:
        folder = out / row.task_id.replace("/", "-")
        try:
            built = build_row(row, clone, folder / "repository")
        except Rejected as error:
            failed.append(f"{row.task_id}: {error.reason}: {error}")
            continue
        atomic_write(folder / "statement.md", built.statement)
        atomic_write(folder / "hidden.patch", built.hidden)
        atomic_write(folder / "gold.patch", built.gold)
        atomic_write(folder / "row.json", json.dumps(row.model_dump(exclude_defaults=True), indent=1) + "\n")
    lines = [f"{len(wanted) - len(failed)} of {len(wanted)} environments in {out}", *failed]
    return "\n".join(lines)


def admitted(
    manifest: Path, name: str, sample: int, seed: int, in_flight: int, cache: Path | None, results: Path | None,
    index: str = "",
) -> tuple[str, int]:  # fmt: skip
    """(table of reasons and of what was run, how many are not fit). results: a file for every outcome, JSON lines."""
    places = Places(manifest, cache, index)
    rows = [row for row in places.rows() if not name or row.repository == name]
    if not rows:
        raise UserError(f"{manifest}: no environment of {name!r}")
    rows = random.Random(seed).sample(rows, min(sample or len(rows), len(rows)))
    rows.sort(key=lambda row: row.task_id)  # a repository's come together: its Python is made once
    try:
        found = asyncio.run(_admit_all(places, rows, in_flight))
    finally:
        places.close()
    if results:
        lines = [
            {"task": row.task_id, "reason": a.reason, "outcomes": a.outcomes, "seconds": round(a.seconds, 2)}
            for row, a in found
        ]
        atomic_write(results, "".join(json.dumps(line) + "\n" for line in lines))
    unfit = sum(not admission.admitted for _, admission in found)
    scored = Counter(probe for _, a in found for probe, outcome in a.outcomes.items() if outcome == 1.0)
    runs = Counter(probe for _, a in found for probe in a.outcomes)
    reasons = [[row.task_id, a.reason] for row, a in found if not a.admitted]
    said = [table(["run", "scored", "of"], [[probe, str(scored[probe]), str(count)] for probe, count in runs.items()])]
    said += [table(["not fit", "why"], reasons)] if reasons else []
    return "\n\n".join([*said, f"{len(found) - unfit} of {len(found)} are fit"]), unfit


async def _admit_all(places: Places, rows: list[TaskRow], in_flight: int) -> list[tuple[TaskRow, Admission]]:
    gate = asyncio.Semaphore(in_flight)
    progress = Progress("admit", len(rows), "environment")
    async with OverlaySandboxes() as boxes:

        async def one(row: TaskRow) -> tuple[TaskRow, Admission]:
            async with gate:
                try:
                    admission = await admit(await asyncio.to_thread(places.prepare, row), boxes)
                except TaskError as error:
                    admission = Admission(f"environment: {error}")
                progress.update()
                return row, admission

        found = await asyncio.gather(*map(one, rows))
    progress.close()
    return found
