"""What a Python project needs for its tests, read from its own files by fixed rules; no model, no network.

Handlers in order, the first that finds test dependencies wins: dependency groups, extras, poetry groups, requirement files,
tox. The project's own dependencies are pip's business.
"""

from __future__ import annotations

import configparser
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GROUPS = ("tests", "test", "testing", "dev")
REQUIREMENT_FILES = (
    "requirements/tests.in", "requirements/tests.txt", "requirements/test.txt", "requirements/testing.txt",
    "requirements-test.txt", "requirements-tests.txt", "requirements_test.txt", "test-requirements.txt",
    "test_requirements.txt", "testing_requirements.txt", "tests/requirements.txt", "tests/requirements.in",
    "test/requirements.txt", "requirements/dev.txt", "requirements-dev.txt", "requirements_dev.txt",
    "dev-requirements.txt", "requirements.txt",
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_KEPT_OPTIONS = frozenset({"--import-mode", "-p", "-m", "-k", "--ignore", "--ignore-glob", "--deselect"})


@dataclass(frozen=True)
class Needs:
    """How to install: the project with `extras`, requirement files (relative), requirements; `handler` says who found it.

    packaged: pip can install the project itself. options: pytest options of the project that its tests cannot do without.
    """

    handler: str
    packaged: bool
    extras: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def detect(root: Path) -> Needs:
    """What the project in `root` needs. A file that cannot be parsed counts as absent."""
    pyproject = _toml(root / "pyproject.toml")
    packaged = "build-system" in pyproject or "project" in pyproject or (root / "setup.py").is_file()
    options = _pytest_options(root, pyproject)
    for handler in _HANDLERS:
        found = handler(root, pyproject)
        if found is not None:
            extras, files, requirements = found
            return Needs(handler.__name__.strip("_"), packaged, extras, files, requirements, options)
    return Needs("none", packaged, options=options)


def import_roots(root: Path) -> tuple[str, ...]:
    """Folders, relative, from which the project's packages are imported: `src` before the root itself."""
    source = root / "src"
    return ("src", ".") if any(source.glob("*.py")) or any(source.glob("*/*.py")) else (".",)


_Found = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]] | None


def _dependency_groups(root: Path, pyproject: dict[str, Any]) -> _Found:
    groups = pyproject.get("dependency-groups", {})
    name = _first(groups)
    return ((), (), tuple(_group(groups, name, set()))) if name else None


def _group(groups: dict[str, Any], name: str, seen: set[str]) -> Iterable[str]:
    """A group's requirements with those of the groups it includes (PEP 735)."""
    if name in seen:
        return
    seen.add(name)
    for entry in groups.get(name, []):
        if isinstance(entry, str):
            yield entry
        elif "include-group" in entry:
            yield from _group(groups, entry["include-group"], seen)


def _extras(root: Path, pyproject: dict[str, Any]) -> _Found:
    named = set(pyproject.get("project", {}).get("optional-dependencies", {}))
    parser = _ini(root / "setup.cfg")
    if parser.has_section("options.extras_require"):
        named |= set(parser.options("options.extras_require"))
    name = _first(named)
    return ((name,), (), ()) if name else None


def _poetry(root: Path, pyproject: dict[str, Any]) -> _Found:
    poetry = pyproject.get("tool", {}).get("poetry", {})
    groups = {name: group.get("dependencies", {}) for name, group in poetry.get("group", {}).items()}
    groups.setdefault("dev", {}).update(poetry.get("dev-dependencies", {}))
    wanted = {key: spec for name in GROUPS for key, spec in groups.get(name, {}).items() if key != "python"}
    return ((), (), tuple(_poetry_requirement(key, spec) for key, spec in wanted.items())) if wanted else None


def _poetry_requirement(name: str, spec: object) -> str:
    """`^1.2` and `~1.2` become `>=1.2`; what pip has no word for is left open."""
    version = spec.get("version", "*") if isinstance(spec, dict) else spec
    text = re.sub(r"^[\^~](?=\d)", ">=", str(version))
    return f"{name}{text}" if re.match(r"[<>=!~]", text) else name


def _requirement_files(root: Path, pyproject: dict[str, Any]) -> _Found:
    found = next((file for file in REQUIREMENT_FILES if (root / file).is_file()), None)
    return ((), (found,), ()) if found else None


def _tox(root: Path, pyproject: dict[str, Any]) -> _Found:
    """`deps` of [testenv]: plain requirements and `-r` files; a factor in front (`py311: x`) is dropped."""
    parser = _ini(root / "tox.ini")
    lines = parser.get("testenv", "deps", fallback="", raw=True).split("\n")
    deps = [re.sub(r"^[\w{},!.-]+: *", "", line.strip()) for line in lines]
    files = tuple(dep[2:].strip() for dep in deps if dep.startswith("-r") and (root / dep[2:].strip()).is_file())
    plain = tuple(dep for dep in deps if _NAME.match(dep) and "{" not in dep)
    return ((), files, plain) if files or plain else None


_HANDLERS: tuple[Callable[[Path, dict[str, Any]], _Found], ...] = (
    _dependency_groups,
    _extras,
    _poetry,
    _requirement_files,
    _tox,
)


def _pytest_options(root: Path, pyproject: dict[str, Any]) -> tuple[str, ...]:
    """Of the project's `addopts` only what decides how tests are imported, which plugins they need and which are left out."""
    given = [pyproject.get("tool", {}).get("pytest", {}).get("ini_options", {}).get("addopts", "")]
    for file, section in (("pytest.ini", "pytest"), ("setup.cfg", "tool:pytest"), ("tox.ini", "pytest")):
        given.append(_ini(root / file).get(section, "addopts", fallback="", raw=True))
    words = [word for text in given for word in (text if isinstance(text, list) else _split(text))]
    kept: list[str] = []
    for word, following in zip(words, [*words[1:], ""]):
        name, equals, _ = word.partition("=")
        if name in _KEPT_OPTIONS and not (name == "-p" and following.startswith("no:")):
            kept += [word] if equals else [word, following]
    return tuple(kept)


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


def _first(names: Iterable[str]) -> str:
    held = set(names)
    return next((name for name in GROUPS if name in held), "")


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def _ini(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        parser.read(path, "utf-8")
    except (configparser.Error, ValueError):
        return configparser.ConfigParser()
    return parser
