"""Argument text to a typed value. The template writes the string "2" and the number 2 alike; the tool's schema tells them apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

_NOTHING = object()
_IS_TYPE: dict[str, Callable[[Any], bool]] = {
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "string": lambda value: isinstance(value, str),
}
_DEEPEST_REFERENCE = 16


def typed(text: str, key: str, schema: Mapping[str, Any]) -> tuple[Any, str]:
    """(value, problem): argument `key`, read as `schema` (the tool's parameters) types it.

    A string where only a string is allowed; otherwise JSON of an allowed type, else a string if one is allowed. Without a
    type, JSON where the text is JSON of another type than string. Where nothing fits the text itself is the value and
    `problem` says so in one line. Beyond the type, values are the tool's to check.
    """
    allowed = _types(_property(schema, key), schema)
    if allowed == {"string"}:
        return text, ""
    value = _json(text)
    if value is not _NOTHING:
        value = _whole(value, allowed)
        if not allowed and not isinstance(value, str):
            return value, ""
        if any(name != "string" and _IS_TYPE[name](value) for name in allowed):
            return value, ""
    if not allowed or "string" in allowed:
        return text, ""
    return text, f"argument {key!r:.80} is {text!r:.80}, not of type {' or '.join(sorted(allowed))}"


def _property(schema: Mapping[str, Any], key: str) -> Any:
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and key in properties:
        return properties[key]
    return schema.get("additionalProperties")


def _types(schema: Any, root: Mapping[str, Any], depth: int = 0) -> set[str]:
    """Names of the JSON types a schema allows; empty when it does not say."""
    if not isinstance(schema, Mapping) or depth > _DEEPEST_REFERENCE:
        return set()
    if "type" in schema:
        named = [schema["type"]] if isinstance(schema["type"], str) else _items(schema["type"])
        return {name for name in named if isinstance(name, str) and name in _IS_TYPE}
    if "const" in schema or "enum" in schema:
        values = [schema["const"]] if "const" in schema else _items(schema["enum"])
        return {name for value in values for name, is_type in _IS_TYPE.items() if is_type(value)}
    if isinstance(schema.get("$ref"), str):
        return _types(_referenced(schema["$ref"], root), root, depth + 1)
    options = [option for word in ("anyOf", "oneOf", "allOf") for option in _items(schema.get(word))]
    sets = [_types(option, root, depth + 1) for option in options]
    return set().union(*sets) if sets and all(sets) else set()


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _referenced(reference: str, root: Mapping[str, Any]) -> Any:
    """The schema at "#/$defs/name"; None for anything else."""
    node: Any = root
    for part in reference.removeprefix("#/").split("/"):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _whole(value: Any, allowed: set[str]) -> Any:
    """JSON Schema counts 2.0 as an integer."""
    if "integer" in allowed and "number" not in allowed and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _json(text: str) -> Any:
    """The value, or _NOTHING for text that is no JSON, or whose numbers or characters cannot be written again."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):  # UnicodeEncodeError (a lone surrogate) is a ValueError
        return _NOTHING
    return value
