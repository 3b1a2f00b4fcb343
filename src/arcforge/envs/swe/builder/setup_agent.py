"""Where fixed rules do not find out what a project's tests need, a model that reads its files and the error says it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from arcforge.core.errors import BoundaryError
from arcforge.core.messages import Message, Value
from arcforge.core.protocols import Completer
from arcforge.envs.asking import Asker, unfenced
from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.detection import Needs, detect
from arcforge.envs.swe.builder.interpreter import Interpreter, install
from arcforge.envs.swe.builder.rejection import Rejected

ROUNDS = 3
ASK_SECONDS, MOST_TOKENS = 300.0, 2048
MOST_PATHS, MOST_CHARS = 200, 6000
_TELLING = (
    "pyproject.toml", "setup.cfg", "setup.py", "tox.ini", "noxfile.py", "pytest.ini", "Makefile", "requirements*.txt",
    "requirements/*", ".github/workflows/*.y*ml", ".travis.yml", "CONTRIBUTING*", "README*",
)  # fmt: skip
_SYSTEM = """You set up Python projects so that their tests run under pytest in a fresh virtual environment. Answer with one JSON object \
and nothing else:
{"packaged": true or false (can pip install the project itself), "extras": [names], "files": [requirement files, relative],
"requirements": [pip requirements of the tests], "options": [pytest options the tests cannot do without]}
The network is there for pip alone. Name no version unless the error asks for one."""


class Advice(Value):
    """What a model says a project needs: the fields of detection.Needs."""

    packaged: bool
    extras: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def needs(self, root: Path) -> Needs:
        """Rejected("advice") for what would be no requirement, or leave the project."""
        for text in (*self.extras, *self.requirements):
            if text.startswith("-") or not re.match(r"[A-Za-z0-9]", text):
                raise Rejected("advice", f"{text!r} is no requirement")
        for file in self.files:
            if not (root / file).resolve().is_relative_to(root.resolve()) or not (root / file).is_file():
                raise Rejected("advice", f"{file}: no such file in the project")
        return Needs("model", self.packaged, self.extras, self.files, self.requirements, self.options)


def set_up(
    clone: Clone, commit: str, folder: Path, python: Path | None, trial: Callable[[Interpreter], str],
    completer: Callable[[], Completer],
) -> Interpreter:  # fmt: skip
    """An interpreter in which `trial` finds nothing wrong: by rules if that does, else as the model says. trial: what is wrong, "" if
    nothing is. completer: a new one for every question. Rejected("install"): the last problem, or what the model's side says.
    """
    with tempfile.TemporaryDirectory(prefix="arcforge-set-up-") as scratch:
        tree = Path(scratch) / "tree"
        tree.mkdir()
        clone.export(commit, tree)
        said: list[Message] = [Message(role="system", content=_SYSTEM)]
        needs: Needs | None = detect(tree)
        for left in range(ROUNDS, -1, -1):
            problem = "the answer is not what was asked for" if needs is None else ""
            if needs is not None:
                found, problem = _tried(clone, commit, folder, python, trial, needs)
                if found and not problem:
                    return found
            if not left:
                raise Rejected("install", f"after {ROUNDS} answers of the model: {problem}")
            text = _described(tree, problem) if len(said) == 1 else f"That does not do:\n{problem}\nAnswer anew."
            said.append(Message(role="user", content=text))
            answer = _ask(completer(), said)
            said.append(Message(role="assistant", content=answer))
            needs = _read(answer, tree)
    raise AssertionError


def _tried(
    clone: Clone, commit: str, folder: Path, python: Path | None, trial: Callable[[Interpreter], str], needs: Needs
) -> tuple[Interpreter | None, str]:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        found = install(clone, commit, folder, python, needs=needs)
        return found, trial(found)
    except Rejected as error:
        return None, str(error)


def _ask(completer: Completer, messages: list[Message]) -> str:
    """ "" for an answer that was cut off."""
    asker = Asker(completer, "the model", ASK_SECONDS, MOST_TOKENS)
    try:
        return asyncio.run(asker.answer(messages, "set-up", temperature=0.0))
    except ValueError:
        return ""
    except BoundaryError as error:
        raise Rejected("install", f"the model does not answer: {error}") from error


def _read(answer: str, tree: Path) -> Needs | None:
    """None for an answer that cannot be read."""
    try:
        return Advice.model_validate(json.loads(unfenced(answer))).needs(tree)
    except (ValueError, ValidationError, Rejected):
        return None


def _described(tree: Path, problem: str) -> str:
    paths = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file())
    files = dict.fromkeys(path for pattern in _TELLING for path in sorted(tree.glob(pattern)) if path.is_file())
    parts = [f"What fails now:\n{problem}", "Files:\n" + "\n".join(paths[:MOST_PATHS])]
    left = 4 * MOST_CHARS
    for path in files:
        text = path.read_text("utf-8", errors="replace")[: min(MOST_CHARS, left)]
        left -= len(text)
        if text:
            parts.append(f"=== {path.relative_to(tree).as_posix()}\n{text}")
    return "\n\n".join(parts)
