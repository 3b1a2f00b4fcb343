"""Many runs of one tree for little more than their tests cost: a checkout kept from run to run, and pytest imported once.

Starting an interpreter, importing pytest and compiling a project over again cost several times what the tests of a small project do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcforge.core.protocols import ExecResult
from arcforge.envs.swe.builder.batch_driver import PART_OF_PYTEST
from arcforge.envs.swe.builder.checkouts import Checkout
from arcforge.envs.swe.builder.clone import APPLY, git_command
from arcforge.envs.swe.builder.interpreter import Interpreter
from arcforge.envs.swe.builder.measurement import SuiteRun
from arcforge.envs.swe.builder.pytest_run import read_run
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.suite import Suite
from arcforge.sandbox.host import tell_once

FOLDER = ".arcforge-batch"
_DRIVER = Path(__file__).with_name("batch_driver.py")
_START_SECONDS = 60.0  # besides what the runs may take


@dataclass(frozen=True)
class Variant:
    """Test files to run on the tree with patches applied in order, for so many seconds at most."""

    patches: tuple[bytes, ...]
    tests: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Ran:
    """outcome: what came out, or why nothing did."""

    outcome: SuiteRun | Rejected
    seconds: float = 0.0

    def run(self) -> SuiteRun:
        if isinstance(self.outcome, Rejected):
            raise self.outcome
        return self.outcome


class Batch:
    """Runs variants of a tree in one checkout, each in a process of its own; close() or the end of a `with` block ends it.

    A run starts from the tree as it is: what the one before added is gone, and where it changed a file the rest gets a new checkout.
    Only compiled bytecode stays.
    In languages other than Python, and where pytest itself imports the tree (packaging, pluggy), every run is one of Suite.run instead.
    """

    def __init__(self, suite: Suite, tree: Path) -> None:
        self._suite, self._tree = suite, tree
        self._opened = ExitStack()
        self._checkout: Checkout | None = None
        self._alone = not isinstance(suite.setup, Interpreter)

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._opened.close()
        self._checkout = None

    def run(self, variants: Sequence[Variant]) -> list[Ran]:
        """What each of them gives, in order. SandboxError when the machinery failed."""
        done: list[Ran] = []
        while len(done) < len(variants):
            left = variants[len(done) :]
            rows = [] if self._alone else self._together(left)
            done += [_ran(row) for row in rows]
            if not rows:
                self._alone = True
                done.append(self._by_itself(left[0]))
            if len(rows) < len(left):
                self.close()  # the last run left the tree other than it was
        return done

    def _together(self, variants: Sequence[Variant]) -> list[dict[str, Any]]:
        """The driver's results of as many of the first variants as it ran."""
        interpreter = self._suite.setup
        assert isinstance(interpreter, Interpreter)
        checkout = self._checkout or self._open()
        jobs = []
        for number, variant in enumerate(variants):
            names = [f"{number}-{index}.patch" for index in range(len(variant.patches))]
            for name, patch in zip(names, variant.patches):
                checkout.write(f"{FOLDER}/{name}", patch.decode("utf-8", "surrogateescape"))
            jobs.append({"patches": names, "tests": variant.tests, "seconds": variant.seconds})
        argv, environment, options = interpreter.batch_command(checkout.root, self._tree, f"{FOLDER}/driver.py")
        asked = {"private": checkout.private, "apply": [*git_command(), *APPLY], "options": options, "jobs": jobs}
        checkout.write(f"{FOLDER}/jobs.json", json.dumps(asked))
        checkout.write(f"{FOLDER}/results.jsonl", "")
        ended = checkout.run(argv, environment, _START_SECONDS + sum(variant.seconds for variant in variants))
        rows = [json.loads(line) for line in checkout.read(f"{FOLDER}/results.jsonl").splitlines()]
        if not rows and ended.exit_code != PART_OF_PYTEST:
            said = (ended.stderr.strip().splitlines() or [f"exit code {ended.exit_code}"])[-1]
            tell_once(f"{self._suite.clone.path}: runs go one by one, because runs together fail: {said}")
        return rows

    def _open(self) -> Checkout:
        self._checkout = checkout = self._opened.enter_context(self._suite.open(self._tree))
        checkout.write(f"{FOLDER}/driver.py", _DRIVER.read_text("utf-8"))
        return checkout

    def _by_itself(self, variant: Variant) -> Ran:
        started = time.monotonic()
        try:
            outcome = self._suite.within(variant.seconds).run(self._tree, variant.patches, variant.tests)
        except Rejected as error:
            outcome = error
        return Ran(outcome, time.monotonic() - started)


def _ran(row: dict[str, Any]) -> Ran:
    seconds = row["seconds"]
    try:
        if row["unfit"]:
            raise Rejected("patch", row["stderr"])
        if row["timed_out"]:
            raise Rejected("timeout", f"{seconds:.0f} s")
        names = ("exit_code", "stdout", "stderr", "truncated")
        return Ran(read_run(ExecResult(**{name: row[name] for name in names})), seconds)
    except Rejected as error:
        return Ran(error, seconds)
