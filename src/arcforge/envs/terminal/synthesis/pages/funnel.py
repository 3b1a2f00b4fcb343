"""Folders of pages to pages that tasks are made of, and what became of the others, without a model.

GLM-5 report, section 4.2.2, the second pipeline: quality, suitability, strata of topic and difficulty.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from arcforge.core.messages import Value
from arcforge.envs.search.pages.folder import RawPage, list_folders, load, read, redirect_target
from arcforge.envs.search.pages.page import Page
from arcforge.envs.terminal.synthesis.ideas import Candidate, Idea
from arcforge.envs.terminal.synthesis.pages.alike import Alike
from arcforge.envs.terminal.synthesis.pages.glance import glance
from arcforge.envs.terminal.synthesis.pages.quality import features, poor
from arcforge.envs.terminal.synthesis.pages.strata import Placed, difficulty, topic
from arcforge.envs.terminal.synthesis.pages.suitability import Suitability, suitability
from arcforge.envs.terminal.synthesis.prompts import PAGE_CHARACTERS
from arcforge.envs.terminal.synthesis.seeds import Seed

STEPS = ("by name", "drawn", "copies", "reading", "quality", "suitability", "near-copies")
BLOCK = 64
"""Pages are read in blocks of so many: groff, which renders manual pages, is a process of its own."""


class Funnel(Value):
    """listed: files that are pages by their names. dropped: step -> reason -> pages, of STEPS. pages: those that suit."""

    listed: int
    dropped: dict[str, dict[str, int]]
    pages: tuple[Placed, ...]

    def entering(self, step: str) -> int:
        """Pages that came as far as this step."""
        before = STEPS[: STEPS.index(step)]
        return self.listed - sum(sum(self.dropped.get(name, {}).values()) for name in before)

    @property
    def strata(self) -> dict[str, dict[int, int]]:
        """Topic -> difficulty -> pages."""
        counts = Counter((page.topic, page.difficulty) for page in self.pages)
        topics = sorted({page.topic for page in self.pages})
        return {name: {level: counts[name, level] for level in (1, 2, 3)} for name in topics}


def plan(
    folders: Sequence[Path],
    workers: int = 1,
    most: int = 0,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Funnel:
    """UserError for a folder that is not there or holds no page. workers: manual pages rendered at a time. most: read so many of the
    pages that their names leave, drawn from the seed (0: all), for a folder that takes hours."""
    listing = list_folders(folders)
    dropped: dict[str, Counter[str]] = {step: Counter() for step in STEPS}
    wanted: list[str] = []
    for page_id in listing.paths:
        if reason := glance(page_id):
            dropped["by name"][reason] += 1
        else:
            wanted.append(page_id)
    if 0 < most < len(wanted):
        dropped["drawn"]["not drawn"] = len(wanted) - most
        wanted = sorted(random.Random(f"pages/{seed}").sample(wanted, most))
    progress(0, len(wanted))
    pages: list[Placed] = []
    alike = Alike()
    for done, (page_id, read_page) in enumerate(_read_all(wanted, listing.paths, workers, dropped), 1):
        suits = suitability(read_page)
        step, reason = _unfit(read_page, suits, alike)
        if step:
            dropped[step][reason] += 1
        else:
            pages.append(_placed(read_page, suits, listing.paths[page_id]))
        if done % BLOCK == 0:
            progress(done, len(wanted))
    return Funnel(
        listed=len(listing.paths),
        dropped={step: dict(held.most_common()) for step, held in dropped.items()},
        pages=tuple(pages),
    )


def candidates(pages: Sequence[Placed]) -> list[Candidate]:
    """What the construction begins with: the page as seed, its stratum as what is asked for. Pages are read again."""
    return [_candidate(page, read(load(page.page_id, Path(page.path)))) for page in pages]


def _read_all(
    wanted: Sequence[str], paths: dict[str, Path], workers: int, dropped: dict[str, Counter[str]]
) -> Iterator[tuple[str, Page]]:
    """Pages in order; those that are equal to an earlier one or cannot be read are counted."""
    seen: set[str] = set()

    def first(page_id: str) -> RawPage | None:
        try:
            raw = load(page_id, paths[page_id])
        except ValueError as error:
            dropped["reading"][str(error).partition(":")[0]] += 1
            return None
        if raw.digest in seen or redirect_target(raw):
            dropped["copies"]["the same file"] += 1
            return None
        seen.add(raw.digest)
        return raw

    def taken(raw: RawPage) -> Page | str:
        try:
            return read(raw)
        except ValueError as error:
            return str(error).partition(":")[0]

    loaded = (raw for raw in map(first, wanted) if raw is not None)
    with ThreadPoolExecutor(workers) as pool:
        while block := list(islice(loaded, BLOCK)):
            for raw, page in zip(block, pool.map(taken, block)):
                if isinstance(page, str):
                    dropped["reading"][page] += 1
                else:
                    yield raw.page_id, page


def _unfit(page: Page, suits: Suitability, alike: Alike) -> tuple[str, str]:
    """(step, reason) of a page that is left out; empty for one that is not."""
    if reason := poor(features(page)):
        return "quality", reason
    if suits.reason:
        return "suitability", suits.reason
    return ("near-copies", "says what another page says") if alike.seen(page.text) else ("", "")


def _placed(page: Page, suits: Suitability, path: Path) -> Placed:
    return Placed(
        page_id=page.page_id, title=page.title[:100], topic=topic(page), difficulty=difficulty(page, suits),
        tools=suits.tools, path=path.as_posix(),
    )  # fmt: skip


def _candidate(placed: Placed, page: Page) -> Candidate:
    tools = ", ".join(placed.tools)
    goal = (
        f"One task ({placed.topic}) that somebody who has read this page can do and who has not can hardly do, offline, with what is "
        f"there: {tools}. It asks for a result and does not quote the page."
    )
    idea = Idea(
        title=f"{placed.title} page"[:120],
        goal=goal,
        difficulty=placed.difficulty,
        skills=(placed.topic, *placed.tools)[:8],
    )
    return Candidate(seed=Seed(kind="page", name=placed.page_id, text=page.text[:PAGE_CHARACTERS]), idea=idea)
