"""The part of a Dockerfile that can be followed on a file tree, without an image or a daemon."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

from arcforge.core.errors import TaskError

IGNORED = ("FROM", "LABEL", "MAINTAINER", "EXPOSE", "CMD", "ENTRYPOINT", "SHELL", "STOPSIGNAL", "HEALTHCHECK")
_INSTALL = re.compile(r"(?:\w+=\S+\s+)*(?:apt-get|apt)\b[^|;]*|rm -rf /var/lib/apt/lists/\*|true")


@dataclass
class Recipe:
    """workdir: the last one. env: of RUN, the agent and the tests. steps: ("copy", source, destination) or ("run", script,
    working directory), in order. Installing Debian packages is left out of a RUN: the host has them, or the oracle fails."""

    workdir: str = "/"
    env: dict[str, str] = field(default_factory=dict)
    steps: list[tuple[str, str, str]] = field(default_factory=list)


def recipe(text: str) -> Recipe:
    """TaskError names an instruction that is not followed here."""
    found = Recipe()
    for line in _logical_lines(text):
        word, _, rest = line.partition(" ")
        word, rest = word.upper(), rest.strip()
        if word == "WORKDIR":
            found.workdir = rest if rest.startswith("/") else f"{found.workdir.rstrip('/')}/{rest}"
        elif word == "ENV":
            found.env.update(_environment(rest))
        elif word == "COPY":
            sources, target = _copy(rest, found.workdir)
            found.steps += [("copy", source, target) for source in sources]
        elif word == "RUN":
            found.steps += [("run", script, found.workdir) for script in _without_packages(rest)]
        elif word not in IGNORED:
            raise TaskError(f"Dockerfile: {word} is not followed here")
    return found


def _logical_lines(text: str) -> list[str]:
    joined = re.sub(r"\\\n", " ", "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("#")))
    return [line.strip() for line in joined.split("\n") if line.strip()]


def _words(rest: str) -> list[str]:
    try:
        return shlex.split(rest)
    except ValueError as error:
        raise TaskError(f"Dockerfile: {rest}: {error}") from None


def _without_packages(script: str) -> list[str]:
    """The script without its commands that install Debian packages; none where nothing else is left."""
    commands = [command.strip() for command in script.split("&&")]
    if not any(_INSTALL.fullmatch(command) for command in commands):
        return [script]
    left = [command for command in commands if not _INSTALL.fullmatch(command)]
    return [" && ".join(left)] if left else []


def _environment(rest: str) -> dict[str, str]:
    words = _words(rest)
    if words and "=" not in words[0]:
        return {words[0]: rest.partition(" ")[2].strip()}
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _copy(rest: str, workdir: str) -> tuple[list[str], str]:
    words = _words(rest)
    if any(word.startswith("--") for word in words) or len(words) < 2:
        raise TaskError(f"Dockerfile: COPY {rest} is not followed here")
    *sources, target = words
    return sources, target if target.startswith("/") else f"{workdir.rstrip('/')}/{target}"
