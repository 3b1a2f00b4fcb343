"""What counts of an agent's work, and what its tests say, in a fresh sandbox: the task's tree with the task's tests, the agent's changes
of the source, and nothing else that it did."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from arcforge.core.errors import VerifierError
from arcforge.core.protocols import ExecResult, FileChange, Verdict
from arcforge.envs.swe.builder.checkouts import FROZEN, LIMITS
from arcforge.envs.swe.builder.clone import APPLY
from arcforge.envs.swe.builder.layout import layout_of
from arcforge.envs.swe.builder.measurement import SuiteRun, resolved
from arcforge.envs.swe.builder.pytest_run import read_run
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.built.places import TEST_SECONDS, Place
from arcforge.sandbox.folder import SKIPPED
from arcforge.sandbox.host import python_folders
from arcforge.sandbox.overlay import WORK, OverlaySandbox, OverlaySandboxes
from arcforge.sandbox.spec import Spec

# What decides how tests are run stays the task's, wherever it lies.
SETTINGS = frozenset({"conftest.py", "pytest.ini", ".pytest.ini", "tox.ini", "setup.cfg", "pyproject.toml"})
STARTUP = frozenset({"sitecustomize.py", "usercustomize.py"})
_SEAL, _SEALED, _PATCH = "/opt/arcforge", "arcforge_seal", "/opt/arcforge/gold.patch"
_PATHS = 200  # arguments of one command


@dataclass(frozen=True)
class Work:
    """The changes of an agent that count. ignored: paths of those that do not."""

    changes: tuple[tuple[FileChange, bytes | None], ...]
    ignored: tuple[str, ...]


def spec(boxes: OverlaySandboxes, place: Place, tree: Path) -> Spec:
    """A sandbox over a tree of the place, with its Python."""
    _, environment = place.interpreter.command(WORK, place.tree, ())
    seen = {path: path for path in python_folders(place.interpreter.folders)}
    return boxes.host(
        tree,
        replace(LIMITS, wall_seconds=TEST_SECONDS),
        uid=1000,
        read_only=seen,
        env={**FROZEN, "HOME": "/tmp", **environment},
    )


async def work_of(box: OverlaySandbox, place: Place) -> Work:
    """Of the sandbox that an agent worked in. Files over 1 MiB do not count: no solution is that large."""
    kept: list[tuple[FileChange, bytes | None]] = []
    ignored: list[str] = []
    installed = _installed(place)
    for change in await box.changes():
        if SKIPPED.intersection(PurePosixPath(change.path).parts):
            continue
        raw = None
        counts = not _decides(change.path) and not _shadows(change, place, installed)
        if counts and change.kind != "removed" and not change.link:
            try:
                raw = await box.read_bytes(change.path)
            except OSError:
                counts = False
        if counts:
            kept.append((change, raw))
        else:
            ignored.append(change.path)
    return Work(tuple(kept), tuple(ignored))


def _decides(path: str) -> bool:
    """Whether a file is of the tests, or decides how they are run."""
    name = PurePosixPath(path).name
    hidden = any(part.startswith(".") or part == "__pycache__" for part in PurePosixPath(path).parts)
    return (
        layout_of("python").side(path) == "test"
        or name in SETTINGS | STARTUP
        or name.endswith((".pth", ".pyc"))
        or hidden
    )


def _shadows(change: FileChange, place: Place, installed: frozenset[str]) -> bool:
    """Whether a file that was not there takes the place of a module of Python's, or of an installed one."""
    parts = PurePosixPath(change.path).parts
    root = "src" if change.path.startswith("src/") else ""
    below = list(parts[1:] if root else parts)
    if change.kind != "added" or not below:
        return False
    if len(below) > 1 and (place.tree / root / below[0]).is_dir():
        return False  # in a package of the project's own
    top = below[0].split(".")[0]
    return top in sys.stdlib_module_names or top in installed


def _installed(place: Place) -> frozenset[str]:
    found = place.interpreter.folders[0].glob("lib/python*/site-packages/*")
    return frozenset(path.name.split(".")[0] for path in found)


async def grade(boxes: OverlaySandboxes, place: Place, work: Work) -> Verdict:
    """1.0 when every test of the task passes. VerifierError when nothing is told, and the solution's tests are not either."""
    details: dict[str, object] = {"ignored": list(work.ignored)} if work.ignored else {}
    try:
        run = await _tests(boxes, place, work)
    except Rejected as error:
        # Is it the agent's doing, or this machine's? The solution's tests are run in its place.
        await _control(boxes, place, error)
        return Verdict(reward=0.0, details={**details, "problem": str(error)})
    solved = resolved(run, place.row.fail_to_pass, place.pass_to_pass)
    missed = {
        "fail_to_pass": sorted(set(place.row.fail_to_pass) - run.passed),
        "pass_to_pass": sorted(set(place.pass_to_pass) - run.passed),
    }
    return Verdict(reward=1.0 if solved else 0.0, details={**details, **{k: v for k, v in missed.items() if v}})


async def _control(boxes: OverlaySandboxes, place: Place, problem: Rejected) -> None:
    try:
        run = await _tests(boxes, place, None)
    except Rejected as error:
        raise VerifierError(f"{place.row.task_id}: {problem}; the solution's tests: {error}") from error
    if not resolved(run, place.row.fail_to_pass, place.pass_to_pass):
        raise VerifierError(f"{place.row.task_id}: {problem}; the solution does not pass here now")


async def solve(box: OverlaySandbox, place: Place) -> None:
    """Apply the solution in a sandbox over one of the place's trees. Rejected("patch") when it does not fit."""
    await box.write_bytes(_PATCH, place.gold)
    done = await box.exec(["/usr/bin/git", *APPLY, _PATCH])
    if done.exit_code:
        raise Rejected("patch", done.stderr.strip()[-300:])


async def _tests(boxes: OverlaySandboxes, place: Place, work: Work | None) -> SuiteRun:
    """Run them over the agent's work, or over the solution. Rejected when they do not say what passed."""
    async with await boxes.create(spec(boxes, place, place.graded)) as box:
        if work is None:
            await solve(box, place)
        else:
            await _lay(box, work.changes)
        plugin = Path(__file__).with_name("seal.py").read_bytes()
        await box.write_bytes(f"{_SEAL}/{_SEALED}.py", plugin)
        command, environment = place.interpreter.command(WORK, place.tree, place.row.tests)
        environment["PYTHONPATH"] = f"{_SEAL}:{environment['PYTHONPATH']}"
        command[1:1] = ["-P"]  # the working directory is on the path by PYTHONPATH, behind the plugin's
        command += ["-p", _SEALED]
        word = f"suite-end {secrets.token_hex(16)}"
        result = await box.exec(command, TEST_SECONDS, f"{word}\n", env=environment)
    return _read(result, word)


async def _lay(box: OverlaySandbox, changes: Sequence[tuple[FileChange, bytes | None]]) -> None:
    """The agent's changes over the task's tree. Rejected when they cannot stand in it."""
    # What is gone, and what stands in the place of something else: a file where a folder was, or a link.
    cleared = [f"{WORK}/{change.path}" for change, _ in changes if change.kind != "changed" or change.link]
    for start in range(0, len(cleared), _PATHS):
        await box.exec(["/bin/rm", "-rf", "--", *cleared[start : start + _PATHS]])
    for change, raw in changes:
        path = f"{WORK}/{change.path}"
        if raw is not None:
            try:
                await box.write_bytes(path, raw, change.mode_after & 0o777)
            except OSError as error:
                raise Rejected("work", f"{change.path}: {error.strerror}") from None
        elif change.link and change.after is not None:
            await box.exec(["/bin/ln", "-s", "--", change.after, path])


def _read(result: ExecResult, word: str) -> SuiteRun:
    if result.timed_out:
        raise Rejected("timeout", f"{TEST_SECONDS:.0f} s")
    log, sealed, after = result.stdout.rpartition(f"\n{word}\n")
    if not sealed or after.strip():
        raise Rejected("suite_did_not_run", f"it did not come to its end: {result.stdout.strip()[-300:]}")
    return read_run(result.model_copy(update={"stdout": log}))
