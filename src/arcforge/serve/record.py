"""The engine's own record: one JSON line per finished request of the token API, to prove a rollout's tokens by.

    {"rid": "..", "prompt_tokens": 812, "prompt_sha256": "..", "output_tokens": 31, "output_sha256": "..",
     "weight_versions": [{"version", "start", "end"}], "finish_reason": "stop" | "length" | "abort"}

A digest is the SHA-256 of the ids as little-endian int32. A line is written before its request is answered, so every
answer that anybody has is in the record; requests whose caller left before their end are not. Files of several runs of
one server follow each other.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson

from arcforge.core.errors import EngineError, UserError
from arcforge.core.trajectory import TokenSpan
from arcforge.serve.token_answers import output_ids, weight_versions


def id_bytes(ids: Sequence[int]) -> bytes:
    """Token ids as little-endian int32."""
    return np.asarray(ids, dtype="<i4").tobytes()


def digest(ids: Sequence[int]) -> str:
    return hashlib.sha256(id_bytes(ids)).hexdigest()


class EngineRecord:
    """Appends to a file. UserError when it cannot be written."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - open as long as the server runs
        except OSError as error:
            raise UserError(
                f"{path}: the record cannot be written: {error.strerror}; choose another --record"
            ) from None
        # A line that a killed server left unfinished must not swallow the next one.
        if end := self._file.seek(0, os.SEEK_END):
            self._file.seek(end - 1)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def add(self, rid: str, prompt_ids: Sequence[int], spans: Sequence[TokenSpan], finish_reason: str) -> None:
        """EngineError when the line cannot be written: an answer without one is not given."""
        ids = output_ids(spans)
        row = {
            "rid": rid,
            "prompt_tokens": len(prompt_ids),
            "prompt_sha256": digest(prompt_ids),
            "output_tokens": len(ids),
            "output_sha256": digest(ids),
            "weight_versions": weight_versions(spans),
            "finish_reason": finish_reason,
        }
        line = orjson.dumps(row) + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            raise EngineError(f"the engine's record cannot be written: {error.strerror}") from None
        if written < len(line):
            raise EngineError("the engine's record cannot be written: the disk is full")
