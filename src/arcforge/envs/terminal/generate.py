"""generate(family, seed, difficulty): a terminal task from nothing but those three, the same one every time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from arcforge.core.errors import UserError
from arcforge.envs.terminal.draft import Draft, build
from arcforge.envs.terminal.families import (
    analysis,
    archives,
    configuration,
    content,
    files,
    formats,
    history,
    programs,
    tables,
    times,
)  # fmt: skip
from arcforge.envs.terminal.harbor import HarborTask

DIFFICULTIES = (1, 2, 3)
FAMILIES: dict[str, Callable[[random.Random, int], Draft]] = {
    "text": content.text,
    "regex": content.regex,
    "encodings": content.encodings,
    "csv": tables.csv_table,
    "json": tables.json_documents,
    "join": tables.join,
    "sqlite": tables.sqlite,
    "logs": analysis.logs,
    "checksums": analysis.checksums,
    "find": files.find,
    "permissions": files.permissions,
    "symlinks": files.symlinks,
    "archives": archives.archives,
    "git": history.git,
    "patches": history.patches,
    "schedule": times.schedule,
    "dates": times.dates,
    "config": configuration.config,
    "environment": configuration.environment,
    "packaging": programs.packaging,
    "makefile": programs.makefile,
    "script": programs.script,
    "formats": formats.formats,
}


def generate(family: str, seed: int, difficulty: int) -> HarborTask:
    """difficulty: 1 to 3; more data, more conditions, more steps. UserError: no such family or difficulty."""
    if family not in FAMILIES:
        raise UserError(f"no terminal family {family!r}; there are {', '.join(FAMILIES)}")
    if difficulty not in DIFFICULTIES:
        raise UserError(f"difficulty {difficulty} is not one of {', '.join(map(str, DIFFICULTIES))}")
    draft = FAMILIES[family](random.Random(f"terminal/{family}/{seed}/{difficulty}"), difficulty)
    metadata = {
        "source": "arcforge.envs.terminal.generate", "family": family, "seed": seed, "difficulty": difficulty,
        "license": "Apache-2.0", "category": family,
    }  # fmt: skip
    return build(f"{family}-{difficulty}-{seed:05d}", draft, metadata)


def in_turn(number: int, families: Sequence[str] = tuple(FAMILIES)) -> tuple[str, int, int]:
    """(family, seed, difficulty) of the task `number` where families take turns, then difficulties, then seeds."""
    turn, place = divmod(number, len(families))
    seed, level = divmod(turn, len(DIFFICULTIES))
    return families[place], seed, DIFFICULTIES[level]
