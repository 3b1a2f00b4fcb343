"""Ruby with Debian's minitest, test-unit and RSpec: test files one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.languages.debian_packages import check, rows_of
from arcforge.envs.swe.builder.languages.scripted import Plan, Run, Scripted
from arcforge.envs.swe.builder.layout import LAYOUTS

_OPTIONS = "/tmp/arcforge-rspec"
_PACKAGES = {"minitest": "ruby-minitest", "test-unit": "ruby-test-unit", "rspec": "ruby-rspec"}


def install(clone: Clone, commit: str, folder: Path, requirements: Sequence[str] | None = None) -> Scripted:
    """Nothing is installed: what the tests require comes from Debian."""
    runner = _runner(clone, commit)
    if requirements is not None:
        check(requirements)
    wanted = tuple(requirements) if requirements is not None else rows_of(["ruby", _PACKAGES[runner]])
    return Scripted("ruby", _plan, wanted, (runner,), (), commit)


def _runner(clone: Clone, commit: str) -> str:
    layout = LAYOUTS["ruby"]
    tests = [path for path in clone.paths(commit) if layout.side(path) == "test" and layout.is_source(path)]
    if sum(path.endswith("_spec.rb") for path in tests) * 2 > len(tests):
        return "rspec"
    return "test-unit" if any("test/unit" in clone.text(commit, path) for path in tests) else "minitest"


def _plan(options: tuple[str, ...], folders: tuple[Path, ...], tests: Sequence[str]) -> Plan:
    def command(path: str) -> str:
        if options[0] == "rspec":
            return f"rspec -O {_OPTIONS} -I lib -I spec --no-color --format documentation --order defined {quote(path)}"
        verbose = "-v --seed 1" if options[0] == "minitest" else "--verbose=verbose --no-use-color"
        return f"ruby -W0 -I lib -I test -I . {quote(path)} {verbose}"

    # Of the project's options only what its tests cannot do without: its formatters would change the log.
    build = f"grep -hE '^ *(-r|--require|-I)' .rspec > {_OPTIONS}; true"
    return Plan(build if options[0] == "rspec" else "", tuple(Run(path, command(path), options[0]) for path in tests))
