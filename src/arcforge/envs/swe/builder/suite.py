"""Runs chosen test files of a repository in a fresh checkout: a commit's tree with patches applied."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from arcforge.core.protocols import ExecResult
from arcforge.envs.swe.builder.clone import Clone, apply
from arcforge.envs.swe.builder.detection import import_roots
from arcforge.envs.swe.builder.interpreter import Interpreter
from arcforge.envs.swe.builder.pytest_log import SuiteRun, parse
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.running import Runner

# The project's own options are dropped (they start other plugins, change the report or stop early), but for those that
# detection keeps. A file that cannot be collected must not stop the others.
PYTEST = (
    "-m", "pytest", "-rA", "--tb=no", "--color=no", "--continue-on-collection-errors", "-p", "no:cacheprovider",
    "-p", "no:randomly", "-p", "no:sugar", "-o", "addopts=", "-o", "log_cli=false",
)  # fmt: skip
PROBE = "arcforge_function_probe"
Entered = dict[str, list[tuple[str, int]]]
"""Test -> functions it enters, as (path, first line)."""


@dataclass(frozen=True)
class Suite:
    """A repository's tests: where they come from, what they run in and for how long at most (seconds per run)."""

    clone: Clone
    interpreter: Interpreter
    runner: Runner
    seconds: float = 120.0

    def run(self, commit: str, patches: Sequence[bytes], tests: Sequence[str]) -> SuiteRun:
        """Run test files on `commit` with `patches` applied in order. Rejected when it did not run as it should."""
        with self.checkout(commit, patches) as root:
            return self.run_in(root, tests)

    def run_in(self, root: Path, tests: Sequence[str]) -> SuiteRun:
        """The same in a directory that stands already; the tests may write into it."""
        return self._read(self._execute(root, tests))

    def entered(self, commit: str, tests: Sequence[str]) -> tuple[SuiteRun, Entered]:
        """One run that also tells which functions every test enters."""
        with self.checkout(commit, ()) as root:
            plugin = root / ".arcforge-probe"
            plugin.mkdir()
            shutil.copyfile(Path(__file__).with_name("function_probe.py"), plugin / f"{PROBE}.py")
            run = self._read(self._execute(root, tests, probed=True))
            try:
                found = json.loads((plugin / "entered.json").read_text())
            except (OSError, ValueError):
                raise Rejected("suite_did_not_run", "the probe reported nothing") from None
        return run, {test: [(path, line) for path, line in places] for test, places in found.items()}

    @contextmanager
    def checkout(self, commit: str, patches: Sequence[bytes]) -> Iterator[Path]:
        """A fresh directory with the commit's tree, patches and generated version files; gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="arcforge-swe-", ignore_cleanup_errors=True) as scratch:
            root = Path(scratch) / "checkout"
            root.mkdir()
            self.clone.export(commit, root)
            for patch in patches:
                apply(root, patch)
            self.complete(root)
            yield root

    def complete(self, root: Path) -> None:
        """Write the generated files that the tree lacks and has a folder for."""
        for path, text in self.interpreter.generated:
            target = root / path
            if target.parent.is_dir() and not target.exists():
                target.write_text(text, "utf-8")

    def _execute(self, root: Path, tests: Sequence[str], probed: bool = False) -> ExecResult:
        inside = self.runner.inside(root)
        roots = [str(inside / part) for part in import_roots(root)]
        environment = {"PATH": f"{self.interpreter.python.parent}:/usr/local/bin:/usr/bin:/bin"}
        options = list(self.interpreter.options)
        if probed:
            roots.append(str(inside / ".arcforge-probe"))
            options += ["-p", PROBE]
            environment["ARCFORGE_PROBE"] = str(inside / ".arcforge-probe" / "entered.json")
        environment["PYTHONPATH"] = ":".join(roots)
        command = [str(self.interpreter.python), *PYTEST, *options, *tests]
        return self.runner.run(command, root, environment, self.seconds, readable=[self.interpreter.prefix])

    def _read(self, result: ExecResult) -> SuiteRun:
        if result.timed_out:
            raise Rejected("timeout", f"{self.seconds:.0f} s")
        if result.truncated:
            raise Rejected("output", "more output than is kept")
        try:
            return parse(result.stdout, result.exit_code)
        except Rejected as error:
            if error.reason != "suite_did_not_run":
                raise
            raise Rejected(error.reason, f"{error}: {(result.stderr or result.stdout).strip()[-300:]}") from None
