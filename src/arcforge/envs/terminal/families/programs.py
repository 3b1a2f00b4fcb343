"""Programs to repair or to write: a Python package, a Makefile, shell scripts. They run on inputs that the agent never sees."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from arcforge.envs.terminal.draft import Draft
from arcforge.envs.terminal.families.pools import WORDS, sentence
from arcforge.envs.terminal.families.scripts import SCRIPTS

_PYTHON, _MAKE = "/usr/bin/python3", "/usr/bin/make"
_HIDDEN = "zeta alpha\nmiddle beta\n"
_COMMANDS = [
    ("tr a-z A-Z", "turned to capitals (a-z only)", _HIDDEN.upper()),
    ("sort", "its lines sorted by byte value", "middle beta\nzeta alpha\n"),
    ("rev", "each line reversed", "ahpla atez\nateb elddim\n"),
]


@dataclass
class _Parts:
    """A task in the making: what is told, the lines of its solution (a Makefile's rules, say), what is checked."""

    told: list[str]
    solve: list[str]
    checks: list[dict[str, Any]]


def packaging(rng: random.Random, level: int) -> Draft:
    """Metadata in pyproject.toml, an entry point, and above level 1 a single-file zip application."""
    name, module = rng.choice(WORDS) + rng.choice(WORDS), rng.choice(["core", "main", "work", "engine"])
    version = f"{rng.randint(0, 3)}.{rng.randint(0, 20)}.{rng.randint(0, 9)}"
    factor, word = rng.randint(2, 9), rng.choice(WORDS)
    files: dict[str, str | bytes] = {
        f"{name}/__init__.py": f'__version__ = "{version}"\n',
        f"{name}/numbers.py": f"def scale(value):\n    return value * {factor}\n",
        f"{name}/{module}.py": f"from numbers import scale\n\n\ndef run(arguments):\n    for text in arguments:\n"
        f"        print('{word}', scale(int(text)))\n    return len(arguments)\n",
    }
    numbers = [rng.randint(1, 500) for _ in range(4)]
    parts = _package(name, module, version)
    output = "".join(f"{word} {number * factor}\n" for number in numbers)
    run = {"kind": "command", "argv": [_PYTHON, "-m", name, *map(str, numbers)], "stdout": output}
    parts.checks.insert(0, run)
    if level > 1:
        _zip_application(parts, name, module, f"{word} {7 * factor}\n")
    if level > 2:
        _version_option(parts, name, module, version)
    return Draft("\n\n".join(parts.told), "\n".join(parts.solve), parts.checks, files)


def _package(name: str, module: str, version: str) -> _Parts:
    """The import to repair, `python3 -m NAME`, pyproject.toml."""
    told = [
        f"/app/{name} is a Python package that nobody has installed. `{name}.{module}.run(arguments)` fails with an ImportError: it means "
        f"the module numbers of the package, not the one of the standard library. Repair that, and add what is missing so that, in "
        f'/app, `python3 -m {name} 3 4` calls run(["3", "4"]) and ends with exit code 0.',
        f"Write /app/pyproject.toml with the table [project]: name `{name}`, version {version}, requires-python `>=3.11`, and a script `{name}` "
        f"in [project.scripts] that stands for `{name}.{module}:run`.",
    ]
    solve = [
        f"sed -i 's/^from numbers/from .numbers/' {name}/{module}.py",
        f"printf 'import sys\\nfrom {name}.{module} import run\\n\\nrun(sys.argv[1:])\\n' > {name}/__main__.py",
        f'printf \'[project]\\nname = "{name}"\\nversion = "{version}"\\nrequires-python = ">=3.11"\\n\\n[project.scripts]\\n{name} = "{name}.{module}:run"\\n\' > pyproject.toml',
    ]
    read = "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(p['name'], p['version'], p['requires-python'], p['scripts'])"
    scripts = {name: f"{name}.{module}:run"}
    stdout = f"{name} {version} >=3.11 {scripts}\n"
    return _Parts(told, solve, [{"kind": "command", "argv": [_PYTHON, "-I", "-c", read], "stdout": stdout}])


def _zip_application(parts: _Parts, name: str, module: str, output: str) -> None:
    """output: of a run with the argument 7."""
    parts.told.append(
        f"Build /app/{name}.pyz, a zip application that does the same when it is run as `python3 /app/{name}.pyz 3 4` from any folder."
    )
    parts.solve.append(
        f"mkdir .build; cp -r {name} .build/; printf 'import sys\\nfrom {name}.{module} import run\\n\\nrun(sys.argv[1:])\\n' "
        f"> .build/__main__.py; python3 -m zipapp .build -o {name}.pyz; rm -r .build"
    )
    parts.checks.append({"kind": "command", "argv": [_PYTHON, f"/app/{name}.pyz", "7"], "stdout": output})


def _version_option(parts: _Parts, name: str, module: str, version: str) -> None:
    parts.told.append(
        f"`python3 -m {name} --version` prints `{name} {version}` and nothing else, with the version taken from the package's __version__."
    )
    parts.solve.append(
        f'printf \'import sys\\nfrom {name} import __version__\\nfrom {name}.{module} import run\\n\\nif sys.argv[1:] == ["--version"]:\\n'
        f'    print("{name}", __version__)\\nelse:\\n    run(sys.argv[1:])\\n\' > {name}/__main__.py'
    )
    # The second run finds another version in the package: one that was copied out of it is not enough.
    changed = {f"{name}/__init__.py": '__version__ = "99.99.99"\n'}
    parts.checks += [
        {"kind": "command", "argv": [_PYTHON, "-m", name, "--version"], "stdout": f"{name} {version}\n"},
        {
            "kind": "command",
            "argv": [_PYTHON, "-B", "-m", name, "--version"],
            "files": changed,
            "stdout": f"{name} 99.99.99\n",
        },
    ]


@dataclass(frozen=True)
class _Rule:
    """The pattern rule of a Makefile: source/NAME.old becomes target/NAME.new by `command`. made: of _HIDDEN."""

    source: str
    target: str
    old: str
    new: str
    command: str
    shown: str
    made: str

    @property
    def late(self) -> str:
        """The file that is added later."""
        return f"{self.source}/late.{self.old}"

    @property
    def recipe(self) -> str:
        return f"LC_ALL=C {self.command} < $< > $@"


def makefile(rng: random.Random, level: int) -> Draft:
    """Pattern rules that rebuild what is out of date and nothing else."""
    source, target = rng.sample(["src", "in", "raw", "build", "out", "gen"], 2)
    old, new = rng.sample(["txt", "dat", "up", "lst", "res"], 2)
    rule = _Rule(source, target, old, new, *rng.choice(_COMMANDS))
    names = rng.sample(WORDS, 3 * level)
    files: dict[str, str | bytes] = {
        f"{source}/{name}.{old}": "".join(sentence(rng) + "\n" for _ in range(5)) for name in names
    }
    told = (
        f"Write /app/Makefile (GNU make). For every {source}/NAME.{old} there shall be {target}/NAME.{new}: the file, {rule.shown}. `make` builds all of "
        f"them, also for files that are added to {source} later; it makes the folder {target} where it is missing, and does nothing for what "
        "is up to date. `make clean` removes the folder and succeeds also when there is none."
    )
    parts = _Parts([told], _rules(rule, total=level > 1), _make_checks(rule, names))
    if level > 1:
        _total(parts, rule, 5 * len(names) + _HIDDEN.count("\n"))
    if level > 2:
        _show(parts, rule)
    text = "\n".join(parts.solve)
    solve = f"cat > Makefile <<'MAKEFILE'\n{text}\nMAKEFILE"
    return Draft("\n\n".join(parts.told), solve, parts.checks, files, "", ("make", "bsdextrautils"))


def _rules(rule: _Rule, total: bool) -> list[str]:
    source, target, old, new = rule.source, rule.target, rule.old, rule.new
    return [
        f"SOURCES := $(wildcard {source}/*.{old})",
        f"TARGETS := $(patsubst {source}/%.{old},{target}/%.{new},$(SOURCES))",
        f"all: $(TARGETS){f' {target}/total' if total else ''}",
        f"{target}/%.{new}: {source}/%.{old}",
        f"\t@mkdir -p {target}",
        f"\t{rule.recipe}",
        "clean:",
        f"\trm -rf {target}",
        ".PHONY: all clean",
    ]


def _make_checks(rule: _Rule, names: Sequence[str]) -> list[dict[str, Any]]:
    """A file added later is built with the others, then nothing is out of date, then one is, then all is cleaned, twice."""
    target, new = rule.target, rule.new
    touch = f"touch -d '+5 seconds' {rule.source}/{names[0]}.{rule.old}; {_MAKE} -n | grep -c {target}/"
    return [
        {"kind": "command", "argv": [_MAKE], "files": {rule.late: _HIDDEN}},
        {"kind": "text", "path": f"{target}/late.{new}", "text": rule.made},
        *({"kind": "command", "argv": ["/usr/bin/test", "-s", f"{target}/{name}.{new}"]} for name in names),
        {"kind": "command", "argv": [_MAKE, "-q"]},
        {"kind": "command", "argv": ["/bin/sh", "-c", touch], "exit_code": 0},
        {"kind": "command", "argv": [_MAKE, "clean"]},
        {"kind": "absent", "path": target},
        {"kind": "command", "argv": [_MAKE, "clean"]},
    ]


def _total(parts: _Parts, rule: _Rule, lines: int) -> None:
    """A file made of all of the others."""
    target, new = rule.target, rule.new
    parts.told.append(
        f"`make` also builds {target}/total: one line with the number of lines of all {target}/*.{new} files together, made again when one of them changes."
    )
    parts.solve += [f"{target}/total: $(TARGETS)", "\tcat $(TARGETS) | wc -l > $@"]
    parts.checks.insert(2, {"kind": "text", "path": f"{target}/total", "text": f"{lines}\n"})


def _show(parts: _Parts, rule: _Rule) -> None:
    """A target that prints one file; what builds it may print nothing then."""
    target, new = rule.target, rule.new
    parts.told.append(
        f"`make show NAME=x` prints {target}/x.{new} and nothing else, and builds it first where that is needed."
    )
    parts.solve[parts.solve.index(f"\t{rule.recipe}")] = f"\t@{rule.recipe}"
    parts.solve += [f"show: {target}/$(NAME).{new}", "\t@cat $<", ".PHONY: show"]
    parts.checks.insert(2, {"kind": "command", "argv": [_MAKE, "-s", "show", "NAME=late"], "stdout": rule.made})


def script(rng: random.Random, level: int) -> Draft:
    """A shell script with one to three planted mistakes, told by what it should do."""
    kind = rng.choice(sorted(SCRIPTS))
    about = SCRIPTS[kind]
    mistakes = rng.sample(about.mistakes, min(level, len(about.mistakes)))
    code = about.code
    for right, wrong in mistakes:
        code = code.replace(right, wrong)
    checks: list[dict[str, Any]] = []
    for number in range(3 + level):
        case = about.case(rng, number)
        checks.append({"kind": "command", "argv": ["/bin/bash", f"/app/{kind}.sh", *case.arguments], "stdin": case.stdin,
                       "files": case.files, "stdout": case.output, "exit_code": case.exit_code})  # fmt: skip
    example = about.case(rng, 0)
    files: dict[str, str | bytes] = {
        f"{kind}.sh": code,
        "example.txt": example.stdin or "\n".join(map(str, example.files.values())),
    }
    fixed = f"cat > {kind}.sh <<'SCRIPT'\n{about.code}SCRIPT"
    told = f"/app/{kind}.sh does not do what it should. {about.told}\n\nRepair it; it is run with bash on inputs of this kind, in /app."
    return Draft(told, fixed, checks, files)
