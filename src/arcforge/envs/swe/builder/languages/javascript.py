"""JavaScript and TypeScript: packages of the npm registry at exact versions, test files run one by one.

npm resolves what the head commit's package.json asks for and writes a lock; what the lock names is unpacked here, and no script of
any package runs.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from arcforge.core.errors import UserError
from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.languages.npm_modules import lock_rows, unpack_all
from arcforge.envs.swe.builder.languages.scripted import Plan, Run, Scripted, read_facts, write_facts
from arcforge.envs.swe.builder.layout import layout_of
from arcforge.envs.swe.builder.rejection import Rejected

SECONDS = 300
# Runner -> (what shows in the package's own files that it is used, the log parser). The first that shows is taken.
_RUNNERS: dict[str, tuple[str, str]] = {
    "vitest": (r"""["']vitest["']""", "vitest"), "tape": (r"""["'](?:tape|tape-catch)["']""", "tape"),
    "tap": (r"""["'](?:tap|t-a-p)["']""", "tap"), "node": (r"""["']node:test["']""", "tap"),
    "jest": (r"\bjest\b", "jest"), "mocha": (r"\bmocha\b|\bdescribe\(", "mocha"),
}  # fmt: skip
_IMPORTED = re.compile(r"""(?:require\(|from |import\(?)\s*["']((?:@[\w.-]+/)?[\w.-]+)""")
# Development dependencies that a runner's settings name and no test imports.
_COMPILERS = re.compile(r"jest|^(typescript|ts-node|@swc/core|@babel/[\w-]+)$")
# ts-jest checks the types of a whole project before its first test; here tests tell.
_QUICK = '{"isolatedModules": true, "diagnostics": false}'
_UNCHECKED = f"""--globals '{{"ts-jest": {_QUICK}}}'"""
_TRANSFORM = f"""--transform '{{"^.+\\\\.tsx?$": ["ts-jest", {_QUICK}]}}'"""  # where a package leaves its settings out
_PRELOADED = re.compile(r"(?:-r|--require)[ =]+(\S+)")


def install(
    language: str, clone: Clone, commit: str, folder: Path, requirements: Sequence[str] | None = None
) -> Scripted:
    """What the package at `commit` needs, in `folder`. Rejected("install"): npm does not manage, or no test runner is known."""
    held = read_facts(folder)
    if held is None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="arcforge-install-") as scratch:
            tree = Path(scratch) / "tree"
            tree.mkdir()
            clone.export(commit, tree)
            package = _package(tree)
            runner, options = _runner(tree, package, language)
            wanted = (
                tuple(requirements)
                if requirements is not None
                else _resolve(tree, package, (runner, *options), language)
            )
        unpack_all(wanted, folder / "modules")
        held = (runner, *options), wanted
        write_facts(folder, *held)
    options, wanted = held
    return Scripted(language, _plan, wanted, options, ((folder / "modules").resolve(),), commit)


def _plan(options: tuple[str, ...], folders: tuple[Path, ...], tests: Sequence[str]) -> Plan:
    modules = folders[0] / "node_modules"
    runner, *given = options
    node = " ".join(["node", *given])
    command = {
        "vitest": f"node {modules}/vitest/vitest.mjs run --reporter=verbose --no-color",
        "tape": node, "tap": node, "node": f"{node} --test --test-reporter=tap",
        "jest": f"node {modules}/jest/bin/jest.js --ci --verbose {_UNCHECKED} {' '.join(given)} --runInBand --runTestsByPath",
        "mocha": f"{node} {modules}/mocha/bin/{_mocha(modules)} --exit --reporter spec",
    }[runner]  # fmt: skip
    parser = _RUNNERS[runner][1]
    if runner in ("vitest", "jest"):  # name files themselves, and take seconds to start
        runs = [Run(runner, " ".join([command, *map(quote, tests)]), parser)]
    else:
        runs = [Run(path, f"{command} {quote(path)}", parser) for path in tests]
    return Plan(
        f"[ -e node_modules ] || ln -s {modules} node_modules", tuple(runs), (("CI", "1"), ("NODE_ENV", "test"))
    )


def _mocha(modules: Path) -> str:
    return next((name for name in ("mocha.js", "_mocha") if (modules / "mocha/bin" / name).exists()), "mocha")


def _package(tree: Path) -> dict[str, Any]:
    try:
        return json.loads((tree / "package.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Rejected("install", f"package.json: {error}") from None


def _test_text(tree: Path, language: str) -> str:
    layout = layout_of(language)
    files = [path for path in sorted(tree.rglob("*")) if path.is_file()]
    relative = [(path, path.relative_to(tree).as_posix()) for path in files]
    return "\n".join(p.read_text("utf-8", errors="replace") for p, name in relative if layout.side(name) == "test")


def _runner(tree: Path, package: dict[str, Any], language: str) -> tuple[str, tuple[str, ...]]:
    """The test runner and its own or node's options."""
    text, script = _test_text(tree, language), json.dumps(package.get("scripts", {}))
    for runner, (sign, _) in _RUNNERS.items():
        if re.search(sign, text) or (re.search(rf"\b{runner}\b", script) and runner != "node"):
            preloaded = ["--import", "tsx"] if language == "typescript" and runner not in ("vitest", "jest") else []
            if (
                runner == "jest"
                and language == "typescript"
                and "jest" not in package
                and not any(tree.glob("jest.config.*"))
            ):
                preloaded = [_TRANSFORM]
            if runner == "mocha":
                preloaded += [part for name in _PRELOADED.findall(script) for part in ("-r", name.strip("\"'\\"))]
            return runner, tuple(preloaded)
    raise Rejected("install", "no test runner that is known here")


def _resolve(tree: Path, package: dict[str, Any], options: Sequence[str], language: str) -> tuple[str, ...]:
    """What the package depends on, its runner, and of its development dependencies those that its tests import: linters and bundlers
    are left out."""
    runner, development = options[0], package.get("devDependencies", {})
    imported = set(_IMPORTED.findall(_test_text(tree, language)))
    imported |= set(_PRELOADED.findall(json.dumps(package.get("scripts", {}))))
    chosen = {name: version for name, version in development.items() if name in imported or _compiles(name, runner)}
    if runner != "node":
        chosen[runner] = development.get(runner, "*")
    if language == "typescript" and runner not in ("vitest", "jest"):
        chosen["tsx"] = "*"
    if _TRANSFORM in options:
        chosen = {"ts-jest": "*", "typescript": "*"} | chosen
    needed = {**package.get("optionalDependencies", {}), **package.get("peerDependencies", {})}
    needed |= package.get("dependencies", {})
    try:
        return _lock({**chosen, **needed})
    except Rejected:  # a registry may lack the newest versions of what only tests need
        return _lock({**dict.fromkeys(chosen, "*"), **needed})


def _compiles(name: str, runner: str) -> bool:
    return runner in ("jest", "mocha") and _COMPILERS.search(name) is not None


def _lock(dependencies: dict[str, str]) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory(prefix="arcforge-lock-") as scratch:
        described = {"name": "arcforge-measured", "version": "0.0.0", "dependencies": dependencies}
        (Path(scratch) / "package.json").write_text(json.dumps(described))
        _npm(
            ["install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund", "--force"], Path(scratch)
        )
        return lock_rows(json.loads((Path(scratch) / "package-lock.json").read_text()))


def _npm(arguments: list[str], place: Path) -> None:
    try:
        done = subprocess.run(
            ["npm", *arguments], cwd=place, capture_output=True, text=True, errors="replace", timeout=SECONDS,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise UserError("npm is not installed; install nodejs and npm with the system's package manager") from None
    except subprocess.TimeoutExpired:
        raise Rejected("install", f"npm took more than {SECONDS} s") from None
    if done.returncode:
        raise Rejected("install", done.stderr.strip()[-500:])
