"""Suites that a shell script runs: a build, then one command or several, each with a log of its own."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from arcforge.core.errors import VerifierError
from arcforge.core.protocols import ExecResult
from arcforge.core.runs import atomic_write
from arcforge.envs.swe.builder.measurement import SuiteRun
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.setup import Command
from arcforge.envs.swe.logs.parse import bracket, marked, parse
from arcforge.envs.swe.logs.reading import Outcome

BUILD_FAILED = 97
_PATH = "/usr/local/bin:/usr/bin:/bin"
_TAIL = 300  # characters of a log that a rejection tells


@dataclass(frozen=True)
class Run:
    """One command. name: what its tests' names begin with (a file, a package, a tool). parser: of logs.parse. whole: what the parser
    calls all of its tests together; it goes before them and is left out."""

    name: str
    command: str
    parser: str
    whole: str = ""


@dataclass(frozen=True)
class Plan:
    """build: shell commands, run first in the checkout's folder; done again they do nothing anew. environment: for everything."""

    build: str
    runs: tuple[Run, ...]
    environment: tuple[tuple[str, str], ...] = ()


Planner = Callable[[tuple[str, ...], tuple[Path, ...], Sequence[str]], Plan]
"""(options, folders, test files) to what is run."""


@dataclass(frozen=True)
class Scripted:
    """What is there for a repository in one language. Implements builder.setup.Setup. variables: NAME=VALUE that its suite asks for."""

    language: str
    plan: Planner
    requirements: tuple[str, ...]
    options: tuple[str, ...]
    folders: tuple[Path, ...] = ()
    commit: str = ""
    version: str = ""
    variables: tuple[str, ...] = ()
    _nonce: str = field(default_factory=lambda: secrets.token_hex(8))

    def absent(self, tree: Path) -> list[tuple[str, str]]:
        return []

    def build(self) -> Command | None:
        plan = self.plan(self.options, self.folders, ())
        return (["bash", "-c", _built(plan)], self._environment(plan)) if plan.build else None

    def command(self, root: str, tree: Path, tests: Sequence[str]) -> Command:
        plan = self.plan(self.options, self.folders, tests)
        lines = [_built(plan) if plan.build else ""]
        for number, run in enumerate(plan.runs):
            lines.append(bracket(f"{run.command} </dev/null", self._mark(number)))
        return ["bash", "-c", "\n".join([*lines, "exit 0"])], self._environment(plan)

    def read(self, result: ExecResult, tests: Sequence[str]) -> SuiteRun:
        """A run that died breaks all of its tests; where every one did, nothing was measured."""
        if result.truncated:
            raise Rejected("output", "more output than is kept")
        if result.exit_code == BUILD_FAILED:
            raise Rejected("does_not_build", result.stdout.strip()[-_TAIL:])
        outcomes: dict[str, Outcome] = {}
        died: list[str] = []
        for number, run in enumerate(self.plan(self.options, self.folders, tests).runs):
            found, log = self._parsed(run, result.stdout, number)
            prefix = f"{run.whole}." if run.whole else ""
            named: dict[str, Outcome] = {
                test.removeprefix(prefix): outcome for test, outcome in found.items() if test != run.whole
            }
            outcomes |= {f"{run.name}::{test}": outcome for test, outcome in named.items()}
            if not named:
                outcomes[run.name] = "error"
                died.append(f"{run.name}: {log.strip()[-_TAIL:]}")
        if died and len(died) == len(outcomes):
            raise Rejected("suite_did_not_run", died[0])
        return SuiteRun.of(outcomes)

    def _parsed(self, run: Run, log: str, number: int) -> tuple[Mapping[str, Outcome], str]:
        """(outcomes, none when it died; what it said)."""
        try:
            said, code = marked(log, self._mark(number))
        except VerifierError as error:
            raise Rejected("log", str(error)) from None
        try:
            return parse(run.parser, said, code), said
        except VerifierError as error:
            if not code:
                raise Rejected("log", f"{run.name}: {error}") from None
            return {}, said

    def _mark(self, number: int) -> str:
        return f"{self._nonce}-{number:03}"

    def _environment(self, plan: Plan) -> dict[str, str]:
        return {"PATH": _PATH, **dict(plan.environment), **dict(row.split("=", 1) for row in self.variables)}


def _built(plan: Plan) -> str:
    log = "/tmp/arcforge-build.log"
    return f"( {plan.build}\n) >{log} 2>&1 </dev/null || {{ tail -n 8 {log}; exit {BUILD_FAILED}; }}"


def write_facts(folder: Path, options: Sequence[str], requirements: Sequence[str]) -> None:
    """Write down that a folder is complete."""
    facts = {"options": [*options], "requirements": [*requirements]}
    atomic_write(folder / "setup.json", json.dumps(facts, indent=1) + "\n")


def read_facts(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """(options, requirements) of a folder that is complete."""
    if not (folder / "setup.json").exists():
        return None
    held = json.loads((folder / "setup.json").read_text())
    return tuple(held["options"]), tuple(held["requirements"])
