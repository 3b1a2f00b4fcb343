"""Criteria of the rubric that rules can decide, so that the judge is asked less. A rule that cannot tell says nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath

from arcforge.envs.terminal.harbor import HarborTask
from arcforge.envs.terminal.synthesis.assembly import WORKDIR, standard_checks
from arcforge.envs.terminal.synthesis.literal import writes_it_down
from arcforge.envs.terminal.synthesis.rubric import Finding, Mark

SHORTEST_COPY = 40
"""Characters of a test or solution that are looked for in the environment; shorter ones are there by chance."""
_STRUCTURED = re.compile(r"\b(?:json|csv|tsv|yaml|xml|toml|sqlite|schema|columns?|fields?)\b", re.IGNORECASE)
_NAMED = re.compile(rf"{WORKDIR}/((?:[\w.-]+/)*[\w-][\w.-]*\w|\w)")
_INSTALL = re.compile(
    r"\b(?P<tool>pip3?|npm|gem|cargo|go)\s+(?P<verb>install|add|i)\b(?P<rest>[^\n;&|]*)|\b(?P<other>uv pip install)\b(?P<more>[^\n;&|]*)"
)
_DOWNLOAD = re.compile(
    r"\b(?:apt-get|apt|pip3?|npm|gem|cargo)\s+(?:-\S+\s+)*(?:install|add)\b"
    r"|\b(?:curl|wget|git\s+clone)\b[^\n]*https?://(?!127\.|localhost)|\buvx?\s+(?:pip|run|add|tool)\b"
)
_TEST_ONLY = re.compile(r"\b(?:pytest|python3-pytest|bats|shunit2|hypothesis)\b")
Told = tuple[Mark, str]


def decided(task: HarborTask) -> dict[str, Finding]:
    """Criterion -> finding, of those that a rule decides."""
    found = {name: rule(task) for name, rule in RULES.items()}
    return {
        name: Finding(criterion=name, mark=told[0], reason=told[1], by="rule") for name, told in found.items() if told
    }


def file_reference_mentioned(task: HarborTask) -> Told | None:
    """Files in the tests that the environment does not have and the solution makes."""
    named = {PurePosixPath(path) for path in _tested_paths(task)}
    if not named:
        return None
    given, solution = _text(task, "environment"), _text(task, "solution")
    made = [path for path in sorted(named) if path.name not in given and path.name not in task.instruction]
    if missing := [str(path) for path in made if path.name in solution]:
        return "fail", f"the tests look at {', '.join(missing)}, which the instruction does not name"
    return None if made else ("pass", "every file in the tests is named in the instruction or there from the start")


def tests_or_solution_in_image(task: HarborTask) -> Told:
    environment = task.part("environment")
    hidden = {f"solution/{path}": raw for path, raw in task.part("solution").items()}
    hidden |= {f"tests/{path}": raw for path, raw in task.part("tests").items() if path.endswith((".sh", ".py"))}
    for name, raw in hidden.items():
        body = raw.strip()
        for path, other in environment.items():
            if len(body) >= SHORTEST_COPY and body in other:
                return "fail", f"environment/{path} holds {name}"
    if found := re.search(r"(?<![\w./-])\.{0,2}/?(?:tests/(?:test\.sh|check)|solution/)[\w.]*", task.dockerfile or ""):
        return "fail", f"the Dockerfile names {found[0]}"
    return "pass", "no file of the environment holds a test or the solution"


def pinned_dependencies(task: HarborTask) -> Told:
    dockerfile = task.dockerfile or ""
    for image in re.findall(r"^FROM\s+(\S+)", dockerfile, re.MULTILINE):
        tag = image.rpartition("/")[2].partition(":")[2]
        if "@sha256" not in image and tag in ("", "latest"):
            return "fail", f"FROM {image}: no version"
    text = _text(task, "environment", (".sh", "Dockerfile")) + _text(task, "tests", (".sh",))
    wanted = [word for rest in _installed(text) for word in rest if not word.startswith("-")]
    if not wanted:
        return "not applicable", "nothing is installed from a package index"
    loose = [word for word in wanted if not re.search(r"==|@|^\.|/|\.txt$|\.toml$", word)]
    return ("fail", f"no version for {', '.join(loose)}") if loose else ("pass", "every dependency has its version")


def test_deps_in_image(task: HarborTask) -> Told:
    """Tests run offline: they may use what the system has and nothing else."""
    scripts = _text(task, "tests", (".sh", ".py"))
    if found := _DOWNLOAD.search(scripts):
        return "fail", f"there is no network when the tests run: {found[0][:60]!r}"
    if found := _TEST_ONLY.search(task.dockerfile or ""):
        return "fail", f"the image installs {found[0]}, which only tests need"
    return "pass", "the tests need nothing that is installed for them"


def hardcoded_solution(task: HarborTask) -> Told | None:
    """A solution of nothing but text that it writes, which stands in the instruction neither."""
    solution = task.part("solution")
    if set(solution) != {"solve.sh"}:
        return None
    written = writes_it_down(solution["solve.sh"].decode("utf-8", "replace"))
    unsaid = [line for line in written or [] if line not in task.instruction]
    return ("fail", f"solve.sh only writes what it knows already: {unsaid[0][:60]!r}") if unsaid else None


def structured_data_schema(task: HarborTask) -> Told | None:
    names = " ".join(_tested_paths(task))
    said = _STRUCTURED.search(f"{task.instruction} {re.sub(r'[._/]', ' ', names)}")
    return None if said else ("not applicable", "no structured data is asked for")


RULES: dict[str, Callable[[HarborTask], Told | None]] = {
    rule.__name__: rule
    for rule in (
        file_reference_mentioned, tests_or_solution_in_image, pinned_dependencies, test_deps_in_image, hardcoded_solution,
        structured_data_schema,
    )
}  # fmt: skip


def _tested_paths(task: HarborTask) -> set[str]:
    """Paths below the working directory that the tests look at, relative to it."""
    checks = standard_checks(task)
    if checks is not None:
        found = {check["path"] for check in checks if isinstance(check.get("path"), str)}
    else:
        found = set(_NAMED.findall(_text(task, "tests")))
    return {path.strip("/") for path in found} - {"", "."}


def _text(task: HarborTask, part: str, endings: tuple[str, ...] = ("",)) -> str:
    """Paths and contents of a part's files, of those that end so."""
    held = [(path, raw) for path, raw in task.part(part).items() if path.endswith(endings)]
    return "\n".join(f"{path}\n{raw.decode('utf-8', 'replace')}" for path, raw in held)


def _installed(text: str) -> list[list[str]]:
    joined = re.sub(r"\\\n", " ", text)
    return [(found["rest"] or found["more"] or "").split() for found in _INSTALL.finditer(joined)]
