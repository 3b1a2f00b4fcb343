"""Typed, strict configuration: unknown keys are errors that name the nearest key; `section.key=value` overrides."""

from __future__ import annotations

import difflib
import tomllib
import typing
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
    """Parse a TOML file, over its base where it names one; UserError names the file and what is wrong with it.

    `base = "other.toml"` at the top, a path relative to the file: the other file is read first, which may have a base of
    its own, and this one's values are merged over it section by section.
    """
    return _with_base(path, ())


def _with_base(path: Path, readers: tuple[Path, ...]) -> dict[str, Any]:
    """readers: the files that led here by their bases, outermost first."""
    if path.resolve() in readers:
        raise UserError(f"{readers[-1]}: base: {path} is read already; the bases go round in a circle")
    data = _parse(path)
    base = data.pop("base", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise UserError(f"{path}: base: write the path of one other recipe as text")
    return _merged(_with_base(path.parent / base, (*readers, path.resolve())), data)


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {
        k: _merged(under[k], v) if isinstance(v, dict) and isinstance(under.get(k), dict) else v
        for k, v in over.items()
    }
    return {**under, **both}


def _parse(path: Path) -> dict[str, Any]:
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
    """The section that a field holds; `Section | None` is one that may be left out."""
    kinds = [kind for kind in typing.get_args(annotation) or (annotation,) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, BaseModel)), None)


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
