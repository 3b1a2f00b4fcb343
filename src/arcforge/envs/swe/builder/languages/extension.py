"""C and C++ of extension modules: built in the checkout by setuptools for Debian's Python, their tests all at once by Debian's pytest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from shlex import quote

from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.languages.debian_packages import check, owners, rows_of
from arcforge.envs.swe.builder.languages.scripted import Plan, Run, Scripted
from arcforge.envs.swe.builder.layout import layout_of
from arcforge.envs.swe.builder.pytest_run import PYTEST

_PYTHON = "/usr/bin/python3"
_LIBRARIES = Path("/usr/lib/python3/dist-packages")
_PACKAGES = (
    "gcc", "g++", "libc6-dev", "python3", "python3-dev", "python3-setuptools", "python3-pytest", "python3-pytest-forked",
)  # fmt: skip
_IMPORT = re.compile(r"^\s*(?:from|import)\s+(\w+)", re.M)
_REQUIRED = re.compile(r"^requires\s*=\s*\[([^\]]*)\]", re.M)
# For a pyproject.toml of today that Debian's setuptools does not understand: what is compiled stands in setup.py.
_WITHOUT_PROJECT = (
    "import runpy, setuptools.dist as d; d.pyprojecttoml.apply_configuration = lambda dist, *rest: dist; "
    'runpy.run_path("setup.py", run_name="__main__")'
)
_BUILT = "/tmp/arcforge-extension"
_ENVIRONMENT = (
    ("CFLAGS", "-O0 -g0 -w"), ("SETUPTOOLS_SCM_PRETEND_VERSION", "1.0"), ("PYTHONPATH", "src:."), ("PIP_NO_INDEX", "1"),
)  # fmt: skip


def is_extension(clone: Clone, commit: str) -> bool:
    """Whether a repository of C or C++ is built by a setup.py and tested in Python."""
    return "setup.py" in clone.paths(commit) and bool(_test_folders(clone, commit))


def install(
    language: str, clone: Clone, commit: str, folder: Path, requirements: Sequence[str] | None = None
) -> Scripted:
    """Nothing is installed: what the build and the tests import comes from Debian, as far as it is there."""
    if requirements is not None:
        check(requirements)
    wanted = tuple(requirements) if requirements is not None else rows_of([*_PACKAGES, *_needed(clone, commit)])
    return Scripted(language, _plan, wanted, _test_folders(clone, commit), (), commit)


def _test_folders(clone: Clone, commit: str) -> tuple[str, ...]:
    python = layout_of("python")
    files = [PurePosixPath(path) for path in clone.paths(commit) if path.endswith(".py") and python.is_test_file(path)]
    return tuple(sorted({str(file.parent) for file in files if not python.other_folders & set(file.parts[:-1])}))


def _needed(clone: Clone, commit: str) -> set[str]:
    python = layout_of("python")
    paths = clone.paths(commit)
    files = [path for path in paths if path == "setup.py" or (path.endswith(".py") and python.side(path) == "test")]
    names = {name for path in files for name in _IMPORT.findall(clone.text(commit, path))}
    if "pyproject.toml" in paths and (found := _REQUIRED.search(clone.text(commit, "pyproject.toml"))):
        names |= {name.replace("-", "_") for name in re.findall(r"[\"']([\w-]+)", found[1])}
    own = {PurePosixPath(path).parts[0] for path in paths}
    return owners(_LIBRARIES / f"{name}{end}" for name in names - own for end in ("", ".py"))


def _plan(options: tuple[str, ...], folders: tuple[Path, ...], tests: Sequence[str]) -> Plan:
    """Everything is compiled again where a source or a header is newer: setuptools does not know who includes what. A test that kills
    its process fails, and no other with it."""
    newer = f"find . -newer {_BUILT} -regex '.*[.]\\(c\\|cc\\|cpp\\|cxx\\|h\\|hh\\|hpp\\|hxx\\|inl\\|inc\\)'"
    arguments = "-q build_ext --inplace --force -j2"
    build = (
        f'if [ ! -e {_BUILT} ] || [ -n "$({newer})" ]; then '
        f"{{ {_PYTHON} setup.py {arguments} || {_PYTHON} -c {quote(_WITHOUT_PROJECT)} {arguments}; }} && touch {_BUILT}; fi"
    )
    # Of the folders with tests those that this commit has.
    pytest = f"{' '.join([_PYTHON, *PYTEST, '--forked'])} $(ls -d {' '.join(map(quote, options))})"
    return Plan(build, (Run("pytest", pytest, "pytest"),), _ENVIRONMENT)
