"""Seeds: what a model is asked to think of tasks about. A topic in words, a task that there is, or a page."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from arcforge.core.errors import UserError
from arcforge.core.messages import Value
from arcforge.envs.terminal.harbor import read_task

TASK_MARK = "task:"
LONGEST_TOPIC = 400


class Seed(Value):
    """name: the topic, the task's name or the page's id. text: what the model reads of it; empty for a topic."""

    kind: Literal["topic", "task", "page"]
    name: str
    text: str = ""

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.kind}\0{self.name}\0{self.text}".encode()).hexdigest()


def read_seeds(path: Path) -> list[Seed]:
    """One seed a line: a topic, or `task: FOLDER` for a Harbor task, relative to the file. Lines that begin with # are not read,
    a seed that comes twice is one. UserError names the line that is not as it should be."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the seeds cannot be read: {error}") from None
    found: dict[str, Seed] = {}
    for number, line in enumerate(lines, 1):
        if not (text := line.strip()) or text.startswith("#"):
            continue
        if len(text) > LONGEST_TOPIC:
            raise UserError(f"{path}:{number}: longer than {LONGEST_TOPIC} characters; a seed is a topic in one line")
        seed = _task(path, text) if text.startswith(TASK_MARK) else Seed(kind="topic", name=text)
        found.setdefault(seed.digest, seed)
    if not found:
        raise UserError(f"{path}: no seeds here; write one topic a line")
    return list(found.values())


def _task(path: Path, line: str) -> Seed:
    task = read_task(path.parent / line.removeprefix(TASK_MARK).strip())
    solution = task.part("solution").get("solve.sh", b"").decode("utf-8", "replace")
    return Seed(kind="task", name=task.name, text=f"{task.instruction}\nIts solution:\n{solution}")
