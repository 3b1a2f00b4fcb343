"""The Python that a repository's tests run in: a virtual environment with exact versions, or one that is already there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from arcforge.core.errors import UserError
from arcforge.core.protocols import ExecResult
from arcforge.core.runs import atomic_write
from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.detection import Needs, detect, import_roots
from arcforge.envs.swe.builder.measurement import SuiteRun
from arcforge.envs.swe.builder.pytest_run import OPTIONS, PYTEST, read_run
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.setup import Command

INSTALL_SECONDS = 900
_ABOUT = "import json, platform, sys; print(json.dumps([platform.python_version(), sys.prefix]))"


@dataclass(frozen=True)
class Interpreter:
    """python: the program. version: its full version. requirements: what is installed, `name==version`, sorted, without
    pip and the project itself. options: pytest options to keep. generated: files (path, text) that a build writes into the tree.
    commit: the one it was installed for ("" when it was there already). Implements builder.setup.Setup.
    """

    python: Path
    version: str
    requirements: tuple[str, ...]
    options: tuple[str, ...] = ()
    generated: tuple[tuple[str, str], ...] = ()
    commit: str = ""

    @property
    def language(self) -> str:
        return "python"

    @property
    def variables(self) -> tuple[str, ...]:
        return ()

    @property
    def folders(self) -> tuple[Path, Path]:
        """Where it lies, and where the Python lies that its environment was made of."""
        return self.python.parent.parent, self.python.resolve().parent.parent

    def absent(self, tree: Path) -> list[tuple[str, str]]:
        """Generated files (path, text) that a tree lacks and has a folder for."""
        return [
            (path, text)
            for path, text in self.generated
            if (tree / path).parent.is_dir() and not (tree / path).exists()
        ]

    def build(self) -> Command | None:
        return None

    def command(self, root: str, tree: Path, tests: Sequence[str]) -> Command:
        return [str(self.python), *PYTEST, *self.options, *tests], self._seen(root, tree)

    def batch_command(self, root: str, tree: Path, driver: str) -> tuple[list[str], dict[str, str], tuple[str, ...]]:
        """(argv, environment, pytest's options) for a driver, in the tree, that runs pytest many times as `command` does once."""
        return [str(self.python), driver], self._seen(root, tree), (*OPTIONS, *self.options)

    def read(self, result: ExecResult, tests: Sequence[str]) -> SuiteRun:
        return read_run(result)

    def _seen(self, root: str, tree: Path) -> dict[str, str]:
        return {
            "PATH": f"{self.python.parent}:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": ":".join(f"{root}/{part}" for part in import_roots(tree)),
        }


def existing(python: Path | None = None, project: str = "") -> Interpreter:
    """An interpreter that is there (default: this one), with what it has. `project`: a distribution to leave out."""
    program = python or Path(sys.executable)
    version, prefix = json.loads(_run([str(program), "-c", _ABOUT], "interpreter"))
    return Interpreter(Path(prefix) / "bin" / program.name, version, _freeze(program, project))


def install(
    clone: Clone, commit: str, folder: Path, python: Path | None = None,
    requirements: Sequence[str] | None = None, pip: Sequence[str] = (), needs: Needs | None = None,
) -> Interpreter:  # fmt: skip
    """A new virtual environment in `folder` for the project at `commit`; one that is complete is taken as it is.

    With `requirements` (exact versions, as a manifest holds them) nothing is resolved anew. `pip`: more options for pip
    install. needs: found by rules if not given. Runs the project's build code: trusted repositories only. Rejected("install")
    when pip does not manage.
    """
    folder = folder.resolve()  # pip runs elsewhere
    done = folder / "interpreter.json"
    if done.exists():
        return _read(done)
    shutil.rmtree(folder, ignore_errors=True)
    _run([str(python or sys.executable), "-m", "venv", str(folder)], "interpreter")
    with tempfile.TemporaryDirectory(prefix="arcforge-install-") as scratch:
        tree = Path(scratch) / "tree"
        tree.mkdir()
        clone.export(commit, tree)
        needs = needs or detect(tree)
        program = folder / "bin" / "python"
        _install(program, tree, needs, clone.version(commit), requirements, pip)
        name, generated = _project(program, tree)
    found = existing(program, name)
    result = Interpreter(program, found.version, found.requirements, needs.options, generated, commit)
    keep(result, folder)
    return result


def _install(
    program: Path, tree: Path, needs: Needs, version: str, requirements: Sequence[str] | None, pip: Sequence[str]
) -> None:
    command = [str(program), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pip]
    project = [f".[{','.join(needs.extras)}]" if needs.extras else "."] if needs.packaged else []
    if requirements is not None:
        plans = [[list(requirements), ["--no-deps", "."] if needs.packaged else []]]
    else:
        files = [part for file in needs.files for part in ("-r", file)]
        plans = [[[*project, *files, *needs.requirements, "pytest"]], [["." if needs.packaged else "pip", "pytest"]]]
    pretend = {"SETUPTOOLS_SCM_PRETEND_VERSION": version, "PBR_VERSION": version}
    problem = ""
    for plan in plans:
        try:
            for arguments in filter(None, plan):
                _run([*command, *arguments], "install", cwd=tree, environment=pretend)
            return
        except Rejected as error:
            problem = str(error)
    raise Rejected("install", problem)


def _project(program: Path, tree: Path) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The distribution installed from `tree`, and version files that its build wrote beside the sources."""
    listed = json.loads(_run([str(program), "-m", "pip", "list", "--format=json", "--verbose"], "install"))
    script = (
        "import importlib.metadata as m, json\n"
        "print(json.dumps([d.metadata['Name'] for d in m.distributions()"
        " if (d.read_text('direct_url.json') or '').find('file://') >= 0]))"
    )
    local = json.loads(_run([str(program), "-c", script], "install"))
    name = local[0] if local else ""
    site = next((Path(row["location"]) for row in listed if row["name"] == name and row.get("location")), None)
    return name, tuple(_version_files(site, tree)) if site else ()


def _version_files(site: Path, tree: Path) -> list[tuple[str, str]]:
    """`_version.py` and the like that stand in the installed package but not in the commit."""
    found = []
    for root in (tree / "src", tree):
        for package in sorted(path.parent for path in root.glob("*/__init__.py")):
            for file in sorted((site / package.name).rglob("*version*.py")):
                target = package / file.relative_to(site / package.name)
                if target.parent.is_dir() and (not target.exists() or root != tree):
                    found.append((target.relative_to(tree).as_posix(), file.read_text("utf-8", errors="replace")))
    return found


def _freeze(program: Path, project: str) -> tuple[str, ...]:
    text = _run([str(program), "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"], "install")
    left_out = {"pip", _normal(project)}
    rows = [line for line in text.split("\n") if "==" in line and _normal(line.split("==")[0]) not in left_out]
    return tuple(sorted(rows, key=str.lower))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(command: list[str], reason: str, cwd: Path | None = None, environment: dict[str, str] | None = None) -> str:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV", "GIT_"))}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=kept | (environment or {}), capture_output=True, text=True, errors="replace",
            timeout=INSTALL_SECONDS, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Rejected(reason, f"more than {INSTALL_SECONDS} s") from None
    except OSError as error:
        raise UserError(f"{command[0]}: cannot be started: {error.strerror}") from None
    if done.returncode:
        raise Rejected(reason, (done.stderr or done.stdout).strip()[-500:])
    return done.stdout


def keep(interpreter: Interpreter, folder: Path) -> None:
    """Write down that `interpreter` is the one of `folder`: install takes it from now on."""
    row = {
        "python": str(interpreter.python), "version": interpreter.version, "options": interpreter.options,
        "requirements": interpreter.requirements, "generated": interpreter.generated,
        "commit": interpreter.commit,
    }  # fmt: skip
    atomic_write(folder / "interpreter.json", json.dumps(row, indent=1) + "\n")


def _read(path: Path) -> Interpreter:
    row = json.loads(path.read_text())
    return Interpreter(
        Path(row["python"]), row["version"], tuple(row["requirements"]), tuple(row["options"]),
        tuple((name, text) for name, text in row["generated"]), row["commit"],
    )  # fmt: skip
