"""Runs chosen test files of a repository in a fresh checkout: a commit's tree with patches applied."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from arcforge.core.errors import VerifierError
from arcforge.core.protocols import ExecResult
from arcforge.envs.swe.builder.checkouts import Checkout, Checkouts
from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.detection import import_roots
from arcforge.envs.swe.builder.interpreter import Interpreter
from arcforge.envs.swe.builder.measurement import SuiteRun
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.logs.parse import parse
from arcforge.envs.swe.logs.reading import SuiteDidNotRun

# The project's own options are dropped (they start other plugins, change the report or stop early), but for those that
# detection keeps. A file that cannot be collected must not stop the others.
OPTIONS = (
    "-v", "-rA", "--tb=no", "--color=no", "--continue-on-collection-errors", "-p", "no:cacheprovider",
    "-p", "no:randomly", "-p", "no:sugar", "-o", "addopts=", "-o", "log_cli=false",
)  # fmt: skip
PYTEST = ("-m", "pytest", *OPTIONS)
PROBE, PLUGIN = "arcforge_function_probe", ".arcforge-probe"
_ALL_PASSED, _SOME_FAILED = 0, 1  # pytest's exit codes
Entered = dict[str, list[tuple[str, int]]]
"""Test -> functions it enters, as (path, first line)."""


@dataclass(frozen=True)
class Suite:
    """A repository's tests: where they come from, what they run in and for how long at most (seconds per run)."""

    clone: Clone
    interpreter: Interpreter
    checkouts: Checkouts
    seconds: float = 120.0

    @contextmanager
    def tree(self, commit: str) -> Iterator[Path]:
        """A folder with the commit's files, for any number of runs; gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="arcforge-tree-", ignore_cleanup_errors=True) as scratch:
            root = Path(scratch) / "tree"
            root.mkdir()
            self.clone.export(commit, root)
            yield root

    def run(self, tree: Path, patches: Sequence[bytes], tests: Sequence[str]) -> SuiteRun:
        """Run test files on a copy of `tree` with `patches` applied in order. Rejected when it did not run as it should."""
        with self.open(tree) as checkout:
            for patch in patches:
                checkout.apply(patch)
            return self._read(self._execute(checkout, tree, tests))

    def entered(self, tree: Path, tests: Sequence[str]) -> tuple[SuiteRun, Entered]:
        """One run that also tells which functions every test enters."""
        with self.open(tree) as checkout:
            checkout.write(f"{PLUGIN}/{PROBE}.py", Path(__file__).with_name("function_probe.py").read_text("utf-8"))
            run = self._read(self._execute(checkout, tree, tests, probed=True))
            try:
                found = json.loads(checkout.read(f"{PLUGIN}/entered.json"))
            except (OSError, ValueError):
                raise Rejected("suite_did_not_run", "the probe reported nothing") from None
        places = [(path, line) for path, line in found["places"]]
        return run, {test: [places[index] for index in indices] for test, indices in found["tests"].items()}

    @contextmanager
    def open(self, tree: Path) -> Iterator[Checkout]:
        """A checkout of `tree` with the files that the project's build writes; gone afterwards."""
        with self.checkouts.open(tree, self.interpreter.folders) as checkout:
            for path, text in self.interpreter.absent(tree):
                checkout.write(path, text)
            yield checkout

    def within(self, seconds: float) -> Suite:
        """The same with another limit for one run."""
        return replace(self, seconds=seconds)

    def _execute(self, checkout: Checkout, tree: Path, tests: Sequence[str], probed: bool = False) -> ExecResult:
        command, environment = test_command(self.interpreter, checkout.root, tree, tests)
        if probed:
            plugin = f"{checkout.root}/{PLUGIN}"
            command += ["-p", PROBE]
            environment["PYTHONPATH"] += f":{plugin}"
            environment["ARCFORGE_PROBE"] = f"{plugin}/entered.json"
        return checkout.run(command, environment, self.seconds)

    def _read(self, result: ExecResult) -> SuiteRun:
        if result.timed_out:
            raise Rejected("timeout", f"{self.seconds:.0f} s")
        return read_run(result)


def test_command(
    interpreter: Interpreter, root: str, tree: Path, tests: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """(argv, environment) of a run of test files where `tree`, or a copy of it, is seen at `root`."""
    return [str(interpreter.python), *PYTEST, *interpreter.options, *tests], _seen(interpreter, root, tree)


def batch_command(
    interpreter: Interpreter, root: str, tree: Path, driver: str
) -> tuple[list[str], dict[str, str], tuple[str, ...]]:
    """(argv, environment, pytest's options) for a driver, in the tree, that runs pytest many times as test_command does once."""
    return [str(interpreter.python), driver], _seen(interpreter, root, tree), (*OPTIONS, *interpreter.options)


def _seen(interpreter: Interpreter, root: str, tree: Path) -> dict[str, str]:
    return {
        "PATH": f"{interpreter.python.parent}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": ":".join(f"{root}/{part}" for part in import_roots(tree)),
    }


def read_run(result: ExecResult) -> SuiteRun:
    """Rejected when the suite did not run to its end, or its log contradicts itself."""
    if result.truncated:
        raise Rejected("output", "more output than is kept")
    said = (result.stderr or result.stdout).strip()[-300:]
    if result.exit_code not in (_ALL_PASSED, _SOME_FAILED):
        raise Rejected("suite_did_not_run", f"exit code {result.exit_code}: {said}")
    try:
        outcomes = parse("pytest", result.stdout, result.exit_code)
    except SuiteDidNotRun as error:
        raise Rejected("suite_did_not_run", f"{error}: {said}") from None
    except VerifierError as error:
        raise Rejected("log", str(error)) from None
    return SuiteRun.of(outcomes)
