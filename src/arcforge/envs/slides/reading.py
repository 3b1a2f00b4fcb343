"""Level 1 in the checking process (`envs.checking.worker`), which bounds CPU seconds and memory: hostile markup may need any.

Its reference are the files that there are, its answer the HTML; what it says of a slide that can be read are the checks.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import TypeAdapter

from arcforge.envs.checking.client import Checker
from arcforge.envs.slides.check import Check
from arcforge.envs.slides.markup import Unreadable, parse
from arcforge.envs.slides.markup_checks import markup_level

CHECKS = TypeAdapter(tuple[Check, ...])
WARM_UP = (({}, "<!DOCTYPE html><title>x</title><style>p { color: red }</style><p>x"),)


def read_reference(files: Mapping[str, str]) -> dict[str, bytes]:
    return {name: text.encode() for name, text in files.items()}


def compare(files: Mapping[str, bytes], html: str) -> tuple[bool, str]:
    """(True, the checks as JSON), or (False, why this is no slide)."""
    try:
        return True, CHECKS.dump_json(tuple(markup_level(parse(html), files))).decode()
    except Unreadable as reason:
        return False, str(reason)


async def read(checker: Checker, files: Mapping[str, str], html: str) -> tuple[Check, ...]:
    """Level 1 of one slide. Raises Unreadable for what is none, VerifierError when the checking process fails."""
    said = await checker.equal("slide", dict(files), html)
    if not said.equal:
        raise Unreadable(said.note)
    return CHECKS.validate_json(said.note)
