"""Task families by name.

`reason` and the like are names; `math:2-4` takes levels 2 to 4 of a generated family; `gsm8k:FILE` is a family over a
JSONL file, and `gsm8k@test:FILE` one whose rows are all of that split; `+python` after the name adds the python tool, as in
`math+python:5`; `selected:FILE` holds the tasks that evals.difficulty kept; `search:FOLDER` asks about the pages whose graph
is in the folder; `manifest:FOLDER` holds the environments of a manifest.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import cast, get_args

from arcforge.core.errors import UserError
from arcforge.core.tasks import Family, Split
from arcforge.envs.chat.family import ChatFamily
from arcforge.envs.code.family import CodeFamily
from arcforge.envs.files.family import FileFamily
from arcforge.envs.files.formats import FORMATS
from arcforge.envs.levelled import LEVELS, LevelledFamily
from arcforge.envs.math.family import MathFamily
from arcforge.envs.reason.family import ReasonFamily
from arcforge.envs.recall.family import RecallFamily
from arcforge.envs.science.family import ScienceFamily
from arcforge.envs.search.family import SearchFamily
from arcforge.envs.selected import SelectedFamily, read_selection
from arcforge.envs.slides.family import SlidesFamily
from arcforge.envs.swe.built.family import ManifestFamily
from arcforge.envs.swe.family import SweFamily
from arcforge.envs.terminal.family import TerminalFamily
from arcforge.envs.tool_integrated import SUFFIX, ToolIntegratedFamily

LEVELLED: dict[str, type[MathFamily | ScienceFamily | CodeFamily]] = {
    "math": MathFamily,
    "science": ScienceFamily,
    "code": CodeFamily,
}
FAMILIES: dict[str, Callable[[int], Family]] = {
    "swe": SweFamily,
    "reason": ReasonFamily,
    "chat": ChatFamily,
    "recall": RecallFamily,
    **LEVELLED,
    "slides": SlidesFamily,
    "terminal": TerminalFamily,
}
SELECTED, SEARCH, MANIFEST = "selected", "search", "manifest"
WITH_PATH = (*(f"{name}:FILE" for name in (*FORMATS, SELECTED)), f"{SEARCH}:FOLDER", f"{MANIFEST}:FOLDER")
"""How the families that need a file or a folder are written."""


def family(name: str, seed: int = 0) -> Family:
    """A new family, called `name`. UserError names the families there are, and what is wrong with a level, a file or a folder."""
    kind, colon, argument = name.partition(":")
    if kind in FAMILIES and not colon:
        return FAMILIES[kind](seed)
    made = _with_argument(name, kind, argument, seed)
    made.name = name
    return made


def _with_argument(
    name: str, kind: str, argument: str, seed: int
) -> LevelledFamily | FileFamily | SearchFamily | SelectedFamily | ToolIntegratedFamily | ManifestFamily:
    if kind.endswith(SUFFIX):
        inner = kind.removesuffix(SUFFIX)
        return ToolIntegratedFamily(family(f"{inner}:{argument}" if argument else inner, seed))
    if kind in LEVELLED:
        return LEVELLED[kind](seed, _levels(name, argument))
    if kind == SELECTED and argument:
        selection = read_selection(Path(argument))
        return SelectedFamily(family(selection.family, selection.seed), selection)
    if kind == MANIFEST and argument:
        return ManifestFamily.of(Path(argument), seed)
    if kind == SEARCH and argument:
        return SearchFamily(Path(argument))
    format, at, split = kind.partition("@")
    if format in FORMATS and argument and (not at or split in get_args(Split)):
        return FileFamily(format, Path(argument), seed, cast(Split, split) if at else None)
    raise UserError(
        f"task family {name!r}: choose one of {', '.join(FAMILIES)}, or with a path one of {', '.join(WITH_PATH)}"
    )


def _levels(name: str, text: str) -> range:
    match = re.fullmatch(r"(\d)(?:-(\d))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not LEVELS[0] <= first <= last <= LEVELS[-1]:
        raise UserError(f"task family {name!r}: levels are written as 3 or as 2-4, from {LEVELS[0]} to {LEVELS[-1]}")
    return range(first, last + 1)
