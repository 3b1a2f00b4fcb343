"""Kinds of bugs: for a node in a function, the edits that make it wrong in one way people do make it wrong."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from arcforge.envs.swe.builder.source_text import Edit, Function, Place, Source

_COMPARISONS: dict[type[ast.cmpop], tuple[bytes, bytes]] = {
    ast.Lt: (rb"<", b"<="), ast.LtE: (rb"<=", b"<"), ast.Gt: (rb">", b">="), ast.GtE: (rb">=", b">"),
    ast.Eq: (rb"==", b"!="), ast.NotEq: (rb"!=", b"=="), ast.Is: (rb"\bis\b", b"is not"),
    ast.IsNot: (rb"\bis\s+not\b", b"is"), ast.In: (rb"\bin\b", b"not in"), ast.NotIn: (rb"\bnot\s+in\b", b"in"),
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], tuple[bytes, bytes]] = {
    ast.Add: (rb"\+", b"-"), ast.Sub: (rb"-", b"+"), ast.Mult: (rb"\*", b"+"), ast.Div: (rb"/", b"*"),
    ast.FloorDiv: (rb"//", b"%"), ast.Mod: (rb"%", b"//"), ast.BitOr: (rb"\|", b"&"), ast.BitAnd: (rb"&", b"|"),
}  # fmt: skip
_PAIRS = (
    ("startswith", "endswith"), ("min", "max"), ("any", "all"), ("lstrip", "rstrip"), ("upper", "lower"),
    ("split", "rsplit"), ("partition", "rpartition"), ("find", "rfind"), ("index", "rindex"), ("keys", "values"),
    ("add", "discard"), ("floor", "ceil"), ("append", "extend"), ("isinstance", "issubclass"),
    ("removeprefix", "removesuffix"), ("ljust", "rjust"),
)  # fmt: skip
_SIBLINGS = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
_LEAVING = (ast.Return, ast.Raise, ast.Continue, ast.Break)
Kind = Callable[[Source, Place], Iterator[Edit]]


def comparison_swapped(source: Source, place: Place) -> Iterator[Edit]:
    """`<` becomes `<=`, `==` becomes `!=`, `in` becomes `not in`, and back."""
    match place.node:
        case ast.Compare(left=left, ops=[operator], comparators=[right]):
            yield from _operator(source, left, right, _COMPARISONS[type(operator)])


def wrong_operator(source: Source, place: Place) -> Iterator[Edit]:
    """`+` for `-`, `*` for `/`, `or` for `and` and the like; not the `%` of string formatting."""
    match place.node:
        case ast.BinOp(left=ast.Constant(value=str() | bytes()), op=ast.Mod()):
            return
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            yield from _operator(source, left, right, _OPERATORS[type(operator)])
        case ast.BoolOp(op=ast.And(), values=[left, right]):
            yield from _operator(source, left, right, (rb"\band\b", b"or"))
        case ast.BoolOp(op=ast.Or(), values=[left, right]):
            yield from _operator(source, left, right, (rb"\bor\b", b"and"))


def off_by_one(source: Source, place: Place) -> Iterator[Edit]:
    """A whole number is one too large or one too small."""
    match place.node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool) and value < 1000:
            for wrong in (value + 1, value - 1):
                if wrong >= 0:
                    yield source.replace(place.node, str(wrong).encode())


def condition_negated(source: Source, place: Place) -> Iterator[Edit]:
    match place.node:
        case ast.If(test=test) | ast.IfExp(test=test):
            yield source.replace(test, b"(not (" + source.segment(test) + b"))")


def return_dropped(source: Source, place: Place) -> Iterator[Edit]:
    """The value is computed and not returned."""
    match place.node:
        case ast.Return(value=ast.expr()):
            word = re.match(rb"return\s*", source.segment(place.node))
            assert word
            start = source.start(place.node)
            yield Edit(start, start + len(word[0]), b"")


def arguments_swapped(source: Source, place: Place) -> Iterator[Edit]:
    """The first two positional arguments change places."""
    match place.node:
        case ast.Call(args=[first, second, *_]) if not isinstance(first, ast.Starred | ast.JoinedStr):
            if not isinstance(second, ast.Starred | ast.JoinedStr) and source.segment(first) != source.segment(second):
                swapped = source.segment(second) + source.between(first, second) + source.segment(first)
                yield Edit(source.start(first), source.end(second), swapped)


def argument_dropped(source: Source, place: Place) -> Iterator[Edit]:
    """A keyword argument that follows another argument is forgotten."""
    match place.node:
        case ast.Call(args=args, keywords=keywords):
            given = sorted([*args, *keywords], key=source.start)
            for before, after in zip(given, given[1:]):
                if isinstance(after, ast.keyword) and after.arg:
                    yield Edit(source.end(before), source.end(after), b"")


def branch_removed(source: Source, place: Place) -> Iterator[Edit]:
    """A guard (`if ...: return`) or what stands under `else` is missing."""
    node = place.node
    if not isinstance(node, ast.If) or not source.segment(node).startswith(b"if"):
        return
    if not node.orelse and isinstance(node.body[0], _LEAVING):
        yield source.replace(node, b"pass")
    elif node.orelse and not (len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If)):
        yield Edit(source.start(node.orelse[0]), source.end(node.orelse[-1]), b"pass")


def wrong_default(source: Source, place: Place) -> Iterator[Edit]:
    """Another default value of a parameter."""
    if not isinstance(place.node, ast.arguments) or not isinstance(place.parent, Function):
        return
    for default in [*place.node.defaults, *place.node.kw_defaults]:
        match default:
            case ast.Constant(value=bool(value)):
                yield source.replace(default, str(not value).encode())
            case ast.Constant(value=int(value)):
                yield source.replace(default, str(value + 1).encode())
            case ast.Constant(value=str(text)) if text:
                yield source.replace(default, b'""')


def wrong_variable(source: Source, place: Place) -> Iterator[Edit]:
    """Another parameter of the same function is read."""
    match place.node:
        case ast.Name(id=name, ctx=ast.Load()):
            arguments = place.function.args
            names = [a.arg for a in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]]
            names = [other for other in names if other not in ("self", "cls")]
            called = isinstance(place.parent, ast.Call) and place.parent.func is place.node
            if name in names and len(names) > 1 and not called:
                yield source.replace(place.node, names[(names.index(name) + 1) % len(names)].encode())


def exception_swallowed(source: Source, place: Place) -> Iterator[Edit]:
    """An except block does nothing, or raises no more."""
    node = place.node
    if isinstance(node, ast.ExceptHandler) and not isinstance(node.body[0], ast.Pass):
        yield Edit(source.start(node.body[0]), source.end(node.body[-1]), b"pass")
    elif isinstance(node, ast.Raise) and isinstance(place.parent, ast.ExceptHandler) and len(place.parent.body) > 1:
        yield source.replace(node, b"pass")


def wrong_function(source: Source, place: Place) -> Iterator[Edit]:
    """The sibling of a function or method: `startswith` for `endswith`, `min` for `max`."""
    match place.node:
        case ast.Call(func=ast.Name(id=name) as function) if name in _SIBLINGS:
            yield source.replace(function, _SIBLINGS[name].encode())
        case ast.Call(func=ast.Attribute(attr=name) as function) if name in _SIBLINGS:
            end = source.end(function)
            yield Edit(end - len(name.encode()), end, _SIBLINGS[name].encode())


def loop_left(source: Source, place: Place) -> Iterator[Edit]:
    """A loop ends where it should go on with its next round."""
    if isinstance(place.node, ast.Continue):
        yield source.replace(place.node, b"break")


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        comparison_swapped, wrong_operator, off_by_one, condition_negated, return_dropped, arguments_swapped,
        argument_dropped, branch_removed, wrong_default, wrong_variable, exception_swallowed, wrong_function, loop_left,
    )
}  # fmt: skip


def _operator(source: Source, left: ast.expr, right: ast.expr, change: tuple[bytes, bytes]) -> Iterator[Edit]:
    """Replace the operator in the text between two operands, which may hold brackets and line breaks."""
    pattern, new = change
    text, count = re.subn(pattern, new, source.between(left, right))
    if count == 1:
        yield source.replace_between(left, right, text)
