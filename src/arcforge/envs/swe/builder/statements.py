"""What a task says: from a commit's message, or from what the failing tests want. Neither names a line to change."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from arcforge.envs.swe.builder.patches import added_lines
from arcforge.envs.swe.builder.source_text import syntax_tree

TaskType = Literal["bug fix", "feature", "refactor", "other"]
"""GLM-5 report, section 4.2.1."""

_TYPES: tuple[tuple[TaskType, re.Pattern[str]], ...] = (
    (
        "bug fix",
        re.compile(r"\b(fix(es|ed)?|bug|regression|crash(es)?|wrong|incorrect(ly)?|broken|error|fails?)\b", re.I),
    ),
    (
        "refactor",
        re.compile(r"\b(refactor(ed|ing)?|clean ?up|simplif(y|ied)|rename[ds]?|move[ds]?|rewrite|drop)\b", re.I),
    ),
    (
        "feature",
        re.compile(r"\b(add(s|ed)?|support(s|ed)?|implement(s|ed)?|allow(s|ed)?|new|introduce[ds]?|feat)\b", re.I),
    ),
)
_TRAILER = re.compile(
    r"^(co-authored-by|signed-off-by|reviewed-by|acked-by|change-id|cc|closes?|fixes|refs?) ?[:#].*$", re.I
)
_NUMBER = re.compile(r"\s*\(?(?<!\w)(?:(?:closes?|fix(?:es|ed)?|resolves?|refs?|see) )?(?:gh-|#)\d+\b\)?", re.I)
_EMPTY = re.compile(
    r"^(wip|merge|revert|bump|release|prepare|update (deps|dependencies|changelog)|\[pre-commit)\b", re.I
)
_WORDS = 3
_LONGEST = 200  # characters of a quoted assertion
_SHOWN = 3  # failing tests that a statement quotes
_IDENTIFIER = re.compile(r"\b[A-Za-z_][A-Za-z0-9_]{2,}\b")
# What a test asks of the code: an attribute, a call, a keyword argument. Its own variables are not among them.
_USED = re.compile(r"\.([A-Za-z_]\w{2,})|\b([A-Za-z_]\w{2,})(?:\(|=(?=[^=\s]))")
_IMPORTED = re.compile(r"^\s*from \S+ import (.+)|^\s{4}(\w+),$")


def task_type(message: str) -> TaskType:
    """By the first line of a commit message."""
    subject = message.split("\n", 1)[0]
    for name, pattern in _TYPES:
        if pattern.search(subject):
            return name
    return "other"


def from_message(message: str) -> str:
    """A commit message without trailers and numbers of issues; empty when it does not say what to do."""
    lines = [line.rstrip() for line in message.split("\n") if not _TRAILER.match(line.strip())]
    text = re.sub(r"\n{3,}", "\n\n", _NUMBER.sub("", "\n".join(lines))).strip()
    subject = text.split("\n", 1)[0]
    return "" if _EMPTY.match(subject) or len(subject.split()) < _WORDS else text


def required_names(test_patch: bytes, gold_patch: bytes, base_source: str) -> list[str]:
    """Names that the new tests use and the solution introduces: without them a right solution could fail the tests
    (the task requirements of GLM-5 report, section 4.2.1)."""
    used = _used(added_lines(test_patch))
    made = set(_IDENTIFIER.findall("\n".join(_code(added_lines(gold_patch)))))
    return sorted((used & made) - set(_IDENTIFIER.findall(base_source)))


def commit_statement(message: str, names: Sequence[str]) -> str:
    """The text of a task that was mined from a commit."""
    wanted = "\n\nUse these names: " + ", ".join(f"`{name}`" for name in names) + "." if names else ""
    return f"{from_message(message)}{wanted}\n"


def broken_statement(root: Path, fail_to_pass: Sequence[str], notes: str = "") -> str:
    """The text of a task whose tests are in the tree: what some of the failing ones want, and for a part of a release what the
    project says of it. `root` holds the test files."""
    shown = [_wanted(root, name) for name in _spread(fail_to_pass)]
    count = len(fail_to_pass)
    kind = "that should pass" if notes else "that passed before"
    head = f"A test {kind} fails now." if count == 1 else f"{count} tests {kind} fail now."
    told = "This should hold:" if notes else "This no longer holds:"
    said = f"\nA part of this release is not there yet. Of all of it the project says:\n\n{notes}\n" if notes else ""
    return f"{head} {told}\n\n" + "".join(f"- {text}\n" for text in shown) + (
        f"{said}\nFind the cause in the source and mend it. The tests are right.\n"
    )  # fmt: skip


def _spread(names: Sequence[str]) -> list[str]:
    """A few names, of different test functions if there are."""
    functions = {name.split("[")[0]: name for name in reversed(names)}
    return sorted(functions.values())[:_SHOWN]


def _wanted(root: Path, name: str) -> str:
    """A test in words: its docstring or its name, and its first assertion."""
    path, *parts = name.split("[")[0].split("::")
    text, function = _find(root / path, parts)
    words = parts[-1].removeprefix("test_").replace("_", " ").strip() if parts else path
    if function is None:
        return f"{words} (`{name}`)"
    documented = (ast.get_docstring(function) or "").split("\n")[0].rstrip(".")
    quoted = _assertion(text, function)
    return f"{documented or words} (`{name}`)" + (f": `{quoted}`" if quoted else "")


def _find(path: Path, parts: Sequence[str]) -> tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | None]:
    try:
        text = path.read_text("utf-8")
        node: ast.AST | None = syntax_tree(text)
    except (OSError, ValueError, SyntaxError):
        return "", None
    for part in parts:
        node = next((child for child in getattr(node, "body", []) if getattr(child, "name", "") == part), None)
    return text, node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else None


def _assertion(text: str, function: ast.AST) -> str:
    """The first `assert`, or the first `with ...raises(...)`, on one line."""
    for node in ast.walk(function):
        raises = isinstance(node, ast.With) and "raises" in ast.unparse(node.items[0].context_expr)
        if isinstance(node, ast.Assert) or raises:
            part = node.items[0].context_expr if isinstance(node, ast.With) else node
            line = " ".join((ast.get_source_segment(text, part) or "").split())
            return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."
    return ""


def _used(lines: Sequence[str]) -> set[str]:
    own = {name for line in lines for name in re.findall(r"^\s*(?:def|class) (\w+)", line)}
    asked = {a or b for line in _code(lines) for a, b in _USED.findall(line)}
    imported = {n for line in lines for a, b in _IMPORTED.findall(line) for n in _IDENTIFIER.findall(a or b)}
    return (asked | imported) - own


def _code(lines: Sequence[str]) -> list[str]:
    return [line.split("#")[0] for line in lines]
