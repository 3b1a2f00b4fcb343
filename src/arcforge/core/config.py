"""Typed, strict configuration: unknown keys are errors that name the nearest key; `section.key=value` overrides."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from arcforge.core.errors import UserError

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of every configuration section. Frozen and strict; lives next to the class it builds."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file; UserError names the file and what is wrong with it."""
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such recipe; recipes/ holds the ones that ship") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None


def override(data: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return `data` with `section.key=value` assignments applied; values are read as TOML, else as text."""
    result = _copy(data)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise UserError(f"override {assignment!r}: write section.key=value")
        *parents, leaf = key.strip().split(".")
        node = result
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise UserError(f"override {assignment!r}: {parent} is a value, not a section")
        node[leaf] = _toml_value(text.strip())
    return result


def build(config_type: type[C], data: Mapping[str, Any], where: str) -> C:
    """Validate `data`; UserError in one line names the key, the place and, for an unknown key, the nearest one."""
    try:
        return config_type.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{where}: {_one_line(config_type, error)}") from None


def dump_toml(config: Config) -> str:
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def count_fields(config_type: type[BaseModel]) -> int:
    """Number of leaf values a recipe may set."""
    total = 0
    for field in config_type.model_fields.values():
        child = _section(field.annotation)
        total += count_fields(child) if child else 1
    return total


def _section(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _one_line(config_type: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    key = ".".join(place)
    if first["type"] != "extra_forbidden":
        return f"{key}: {first['msg']}"
    owner: type[BaseModel] | None = config_type
    for part in place[:-1]:
        field = owner.model_fields.get(part) if owner else None
        owner = _section(field.annotation) if field else None
    names = list(owner.model_fields) if owner else []
    near = difflib.get_close_matches(place[-1], names, n=1, cutoff=0.0)
    return f"unknown key {key}" + (f"; the nearest is {'.'.join([*place[:-1], near[0]])}" if near else "")


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _copy(data: Any) -> Any:
    return {k: _copy(v) for k, v in data.items()} if isinstance(data, dict) else data
