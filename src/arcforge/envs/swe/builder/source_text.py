"""A Python source with its syntax tree, where nodes are places in the bytes: an edit keeps every other byte."""

from __future__ import annotations

import ast
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

Function = ast.FunctionDef | ast.AsyncFunctionDef
LEAST_LINES = 3  # of code in the body of a new function, for it to be worth writing
_ONE_AT_A_TIME = threading.Lock()


def syntax_tree(text: str | bytes) -> ast.Module:
    """SyntaxError or ValueError for what is no Python. From any thread: some releases of Python 3.11 count the depth of all parsers
    of a process together, and one of two at a time fails."""
    with _ONE_AT_A_TIME:
        return ast.parse(text)


@dataclass(frozen=True)
class Edit:
    """Bytes [start, end) become `new`."""

    start: int
    end: int
    new: bytes


@dataclass(frozen=True)
class Place:
    """A node inside a function: its ancestors from the module down, and the innermost function."""

    node: ast.AST
    parents: tuple[ast.AST, ...]
    function: Function

    @property
    def parent(self) -> ast.AST:
        return self.parents[-1]


@dataclass
class Source:
    """Raises SyntaxError or ValueError for what is no Python."""

    data: bytes
    tree: ast.Module = field(init=False)

    def __post_init__(self) -> None:
        self.tree = syntax_tree(self.data)
        self._starts = [0, *accumulate(len(line) for line in self.data.splitlines(keepends=True))]

    def start(self, node: ast.AST) -> int:
        return self._starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]

    def end(self, node: ast.AST) -> int:
        return self._starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def segment(self, node: ast.AST) -> bytes:
        return self.data[self.start(node) : self.end(node)]

    def replace(self, node: ast.AST, new: bytes) -> Edit:
        return Edit(self.start(node), self.end(node), new)

    def between(self, left: ast.AST, right: ast.AST) -> bytes:
        return self.data[self.end(left) : self.start(right)]

    def replace_between(self, left: ast.AST, right: ast.AST, new: bytes) -> Edit:
        return Edit(self.end(left), self.start(right), new)

    def edited(self, edit: Edit) -> bytes:
        return self.data[: edit.start] + edit.new + self.data[edit.end :]

    def places(self) -> Iterator[Place]:
        """Every node inside a function, in source order; not annotations, f-strings (whose places are wrong before Python
        3.12) and the functions' decorators.
        """
        yield from _walk(self.tree, (), None)


def first_line(node: Function | ast.ClassDef) -> int:
    """The line a code object calls its first: that of the first decorator."""
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _walk(node: ast.AST, parents: tuple[ast.AST, ...], function: Function | None) -> Iterator[Place]:
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr):
                continue
            inner = child if isinstance(child, Function) else function
            if inner is not None:
                yield Place(child, (*parents, node), inner)
            yield from _walk(child, (*parents, node), inner)


def same_code(one: str, other: str) -> bool:
    """Whether two sources differ in documentation, annotations, layout and version numbers at most. False for what is no Python."""
    try:
        return ast.dump(_bare(syntax_tree(one))) == ast.dump(_bare(syntax_tree(other)))
    except (SyntaxError, ValueError):
        return False


def functions_taken_back(old: str, new: str) -> dict[str, str]:
    """As functions.functions_taken_back."""
    try:
        before, after = _functions(old), _functions(new)
    except (SyntaxError, ValueError):
        return {}
    changed, added = {}, {}
    for name, now in sorted(after.items()):
        if name not in before:
            if (text := _without_body(new, now)) is not None:
                added[name] = text
        elif _dumped(before[name]) != _dumped(now):
            changed[name] = _replaced(new, first_line(now), now, _lines(old, before[name]))
    return changed | added


def _without_body(text: str, function: Function) -> str | None:
    """The source with a function that only says it is not implemented; its documentation stays. None for a short body."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if sum(ast.unparse(statement).count("\n") + 1 for statement in body) < LEAST_LINES:
        return None
    indent = text.splitlines()[body[0].lineno - 1][: body[0].col_offset]
    if indent.strip():
        return None  # it stands behind the colon
    # Comments that lead the body go with it.
    header = function.body[0].end_lineno if len(body) < len(function.body) else _header_end(text, function, body[0])
    assert header is not None
    return _replaced(text, header + 1, function, [f"{indent}raise NotImplementedError\n"])


def _header_end(text: str, function: Function, first: ast.stmt) -> int:
    """The last line of `def ...:`, with nothing but comments between it and the body."""
    lines = text.splitlines()
    line = (first_line(first) if isinstance(first, Function | ast.ClassDef) else first.lineno) - 1
    while line > function.lineno and lines[line - 1].strip()[:1] in ("", "#"):
        line -= 1
    return line


def _replaced(text: str, start: int, function: Function, new: list[str]) -> str:
    """The source with other lines from `start` to the function's end."""
    lines = text.splitlines(keepends=True)
    lines[start - 1 : function.end_lineno] = new
    return "".join(lines)


def _lines(text: str, function: Function) -> list[str]:
    """Its decorators included."""
    return text.splitlines(keepends=True)[first_line(function) - 1 : function.end_lineno]


def _functions(text: str) -> dict[str, Function]:
    """Those of the module and its classes; of one that is defined twice none is told."""
    found: dict[str, list[Function]] = {}

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, Function):
                found.setdefault(prefix + node.name, []).append(node)
            elif isinstance(node, ast.ClassDef):
                collect(node.body, f"{prefix}{node.name}.")

    collect(syntax_tree(text).body, "")
    return {name: nodes[0] for name, nodes in found.items() if len(nodes) == 1}


def _dumped(function: Function) -> str:
    return ast.dump(_bare(syntax_tree(textwrap.dedent(ast.unparse(function)))))


def _bare(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | Function):
            node.body = [part for part in node.body if not _said_only(part)]
        if isinstance(node, Function):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    return tree


def _said_only(statement: ast.stmt) -> bool:
    """A string or a number that stands alone, or `__version__ = ...` and its like."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    names = [target.id for target in getattr(statement, "targets", []) if isinstance(target, ast.Name)]
    return bool(names) and all(name.strip("_").startswith(("version", "VERSION")) for name in names)
