"""The one form in which a model gives the files of a task, read strictly.

    <file path="tests/test.sh">
    #!/bin/bash
    ...
    </file>

Each mark stands on a line of its own. Nothing but blank lines stands between the blocks, no path comes twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from arcforge.core.errors import TaskError

MOST_FILES, MOST_CHARACTERS = 40, 200_000
TOP = ("instruction.md", "task.toml")
FOLDERS = ("environment", "tests", "solution")
_OPEN = re.compile(r'<file path="([^"\n]+)">')
_CLOSE = "</file>"


class Malformed(TaskError):
    """What a model wrote is not in the form asked for, or no task that can be run here."""


def parse_files(text: str) -> dict[str, str]:
    """Path -> content, in order. Malformed names the first line that is not in the form."""
    found: dict[str, str] = {}
    path, lines = "", []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if path:
            if line.rstrip() == _CLOSE:
                found[path] = "".join(f"{held}\n" for held in lines)
                path, lines = "", []
            else:
                lines.append(line)
        elif opened := _OPEN.fullmatch(line.rstrip()):
            path = _path(opened[1], found)
        elif line.strip():
            raise Malformed(f'line {number} stands outside of <file path="..."> and </file>: {line.strip()[:80]!r}')
    if path:
        raise Malformed(f"{path}: no </file> at its end; was the answer cut off?")
    if not found:
        raise Malformed('there is no <file path="..."> in the answer')
    return _sized(found)


def show_files(files: Mapping[str, str]) -> str:
    """The inverse of `parse_files`."""
    return "\n".join(f'<file path="{path}">\n{content.rstrip()}\n{_CLOSE}' for path, content in files.items())


def _path(path: str, found: Mapping[str, str]) -> str:
    parts = PurePosixPath(path).parts
    plain = path == "/".join(parts) and ".." not in parts and path.isprintable()
    if not plain or not (path in TOP or (len(parts) > 1 and parts[0] in FOLDERS)):
        raise Malformed(f"{path!r} is neither {' nor '.join(TOP)} nor a file below {', '.join(FOLDERS)}")
    if path in found:
        raise Malformed(f"{path}: given twice")
    return path


def _sized(files: dict[str, str]) -> dict[str, str]:
    if len(files) > MOST_FILES:
        raise Malformed(f"{len(files)} files; at most {MOST_FILES} are taken")
    if (size := sum(map(len, files.values()))) > MOST_CHARACTERS:
        raise Malformed(f"{size} characters; at most {MOST_CHARACTERS} are taken: make large data in a setup script")
    for path, content in files.items():
        if "\0" in content:
            raise Malformed(f"{path}: holds a zero byte; make binary data in a setup script")
        if any(other.startswith(f"{path}/") for other in files):
            raise Malformed(f"{path}: a file and a folder at once")
    return files
