"""Rows of JSONL files, plain or gzipped, with every mistake told by its line."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from arcforge.core.errors import UserError


def read_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """("file:line", row) of every line that is not blank. UserError for a missing file, and for a line that is no object."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}:{number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: an object is wanted, not {type(row).__name__}")
        rows.append((f"{path}:{number}", row))
    if not rows:
        raise UserError(f"{path}: no rows; one JSON object per line is wanted")
    return rows


def field(row: dict[str, Any], where: str, *names: str) -> str:
    """The text of the first of `names` that the row has. UserError names the place when there is none."""
    for name in names:
        if name in row:
            if not isinstance(row[name], str) or not row[name].strip():
                raise UserError(f"{where}: {name}: a text is wanted")
            return row[name]
    raise UserError(f"{where}: no field {' or '.join(map(repr, names))}")


def texts(row: dict[str, Any], where: str, name: str) -> tuple[str, ...]:
    """A list of texts. UserError when it is anything else."""
    value = row.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError(f"{where}: {name}: a list of texts is wanted")
    return tuple(value)
