"""Functions of sources in languages other than Python, by tree-sitter's grammars."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from arcforge.core.errors import UserError
from arcforge.envs.swe.builder.source_text import LEAST_LINES

# Language -> (module of its grammar, what in the module makes it).
_GRAMMARS = {
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "go": ("tree_sitter_go", "language"),
    "java": ("tree_sitter_java", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "php": ("tree_sitter_php", "language_php"),
    "ruby": ("tree_sitter_ruby", "language"),
}
_FUNCTIONS = frozenset(
    {
        "function_definition", "function_declaration", "generator_function_declaration", "method_declaration",
        "constructor_declaration", "method_definition", "method", "singleton_method",
    }
)  # fmt: skip
# A variable that holds a function: const f = () => ..., exports.f = function () ...
_HOLDERS = frozenset({"variable_declarator", "assignment_expression", "pair"})
_HELD = frozenset({"arrow_function", "function_expression", "function"})
_SCOPES = frozenset(
    {
        "class_declaration", "class_definition", "class_specifier", "struct_specifier", "namespace_definition", "interface_declaration",
        "trait_declaration", "enum_declaration", "record_declaration", "class", "module", "singleton_class", "abstract_class_declaration",
        "internal_module",
    }
)  # fmt: skip
# What stands for the body of a function without one.
_STUBS = {
    "c": "{ __builtin_trap(); }",
    "cpp": "{ __builtin_trap(); }",
    "go": '{ panic("not implemented") }',
    "java": "{ throw new UnsupportedOperationException(); }",
    "javascript": '{ throw new Error("not implemented"); }',
    "typescript": '{ throw new Error("not implemented"); }',
    "php": "{ throw new \\LogicException('not implemented'); }",
    "ruby": "raise NotImplementedError",
}
_SAID = frozenset({"comment", "line_comment", "block_comment", "html_comment"})


@dataclass(frozen=True)
class Grammar:
    """A language of layout.LAYOUTS but Python."""

    language: str

    def same_code(self, one: str, other: str) -> bool:
        """Whether two sources differ in comments and layout at most. False for what cannot be parsed."""
        roots = [self._root(text.encode()) for text in (one, other)]
        if any(root.has_error for root in roots):
            return False
        return list(_tokens(roots[0])) == list(_tokens(roots[1]))

    def functions_taken_back(self, old: str, new: str) -> dict[str, str]:
        """As functions.functions_taken_back."""
        raw = new.encode()
        before, after = self._functions(old.encode()), self._functions(raw)
        changed, added = {}, {}
        for name, now in sorted(after.items()):
            if name not in before:
                if (body := _block(now)) is not None:
                    added[name] = _replaced(raw, body, _STUBS[self.language].encode())
            elif list(_tokens(before[name])) != list(_tokens(now)):
                changed[name] = _replaced(raw, now, before[name].text)
        return changed | added

    def _functions(self, raw: bytes) -> dict[str, Any]:
        """Those outside other functions, by name; of one that is there twice (overloads, alternatives) none is told."""
        found: dict[str, list[Any]] = {}
        for name, node in _found(self._root(raw), ""):
            found.setdefault(name, []).append(node)
        return {name: nodes[0] for name, nodes in found.items() if len(nodes) == 1 and not nodes[0].has_error}

    def _root(self, raw: bytes) -> Any:
        return _parser(self.language).parse(raw).root_node


def _found(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for child in node.named_children:
        if child.type in _FUNCTIONS:
            if name := _name(child):
                yield f"{prefix}{name}", child
        elif child.type in _HOLDERS and (value := _value(child)) is not None and value.type in _HELD:
            yield f"{prefix}{_text(child.named_children[0])}", child
        else:
            inner = f"{prefix}{_name(child)}." if child.type in _SCOPES else prefix
            yield from _found(child, inner)


def _block(node: Any) -> Any:
    """A function's body of statements; None where it has none, or one of a few lines."""
    function = _value(node) if node.type in _HOLDERS else node
    body = function.child_by_field_name("body")
    if body is None or (body.type != "body_statement" and not body.text.startswith(b"{")):
        return None
    lines = [line for line in body.text.strip(b"{}").splitlines() if line.strip()]
    return body if len(lines) >= LEAST_LINES else None


def _replaced(raw: bytes, node: Any, new: bytes) -> str:
    return (raw[: node.start_byte] + new + raw[node.end_byte :]).decode(errors="replace")


def _name(node: Any) -> str:
    """Of a Go method with its receiver's type; of a C function what its declarator names, with the class where it is told."""
    if (receiver := node.child_by_field_name("receiver")) is not None:
        words = _text(receiver).strip("()").split()
        return f"{words[-1].lstrip('*') if words else ''}.{_text(node.child_by_field_name('name'))}"
    named = node.child_by_field_name("name")
    if named is None:
        named = node.child_by_field_name("declarator")
        while named is not None and (inner := named.child_by_field_name("declarator")) is not None:
            named = inner
    return _text(named) if named is not None else ""


def _value(node: Any) -> Any:
    return node.child_by_field_name("value") or node.child_by_field_name("right")


def _text(node: Any) -> str:
    return node.text.decode(errors="replace") if node is not None else ""


def _tokens(node: Any) -> Iterator[tuple[str, bytes]]:
    if node.type in _SAID:
        return
    if not node.children:
        yield node.type, node.text
    for child in node.children:
        yield from _tokens(child)


@functools.cache
def _parser(language: str) -> Any:
    """UserError: the grammar is not installed."""
    module, maker = _GRAMMARS[language]
    try:
        tree_sitter, grammar = importlib.import_module("tree_sitter"), importlib.import_module(module)
    except ImportError:
        raise UserError(f"{module} is not installed: pip install 'arcforge[languages]'") from None
    return tree_sitter.Parser(tree_sitter.Language(getattr(grammar, maker)()))
