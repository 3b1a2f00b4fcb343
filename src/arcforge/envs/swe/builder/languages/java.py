"""Java with Debian's libraries in /usr/share/java: compiled by javac, test classes run by JUnit's console."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.languages.scripted import Scripted


def install(clone: Clone, commit: str, folder: Path, requirements: Sequence[str] | None = None) -> Scripted:
    raise NotImplementedError
