"""Weights in shared memory: one safetensors image in a named segment, which engines of the same machine load from.

share_weights(model, "run-7")    in the trainer's process
weights("shm:run-7")             what `checkpoint.fill` reads, in the engine's
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arcforge.core import segments
from arcforge.core.errors import UserError
from arcforge.model.checkpoint import formatted, plans, to_hf
from arcforge.model.stored import CODES, Stored, StoredTensors, write_shard
from arcforge.model.trunk import GlmMoeDsa

SCHEME = "shm:"
DTYPES = {code: dtype for dtype, code in CODES.items()}


def share_weights(model: GlmMoeDsa, name: str, dtype: str = "float32") -> int:
    """Write the model's tensors, as a checkpoint holds them, into the segment `name`; its size in bytes.

    dtype: "float32" | "bfloat16" | "fp8". The segment appears whole, takes the place of one of the same name, and stays until
    `unshare_weights`, also after this process has ended. UserError: there is no room for it.
    """
    tensors = dict(to_hf(model))
    coming = (part for stored, tensor in tensors.items() for part in formatted(stored, tensor, dtype))
    try:
        with segments.written(name) as file:
            write_shard(file, plans({stored: tuple(t.shape) for stored, t in tensors.items()}, dtype), coming)
            return file.stat().st_size
    except OSError as error:
        raise UserError(
            f"{SCHEME}{name}: the weights cannot be written: {error.strerror}; free shared memory"
        ) from None


def unshare_weights(name: str) -> None:
    """Remove the segment; an engine that reads it goes on."""
    segments.remove(name)


def weights(source: Path | str) -> StoredTensors:
    """The tensors of a checkpoint folder or of a segment, "shm:NAME". UserError when they cannot be read."""
    text = str(source)
    if not text.startswith(SCHEME):
        return StoredTensors(Path(source))
    try:
        return ImageTensors(segments.mapped(text.removeprefix(SCHEME)), text)
    except OSError as error:
        raise UserError(f"{text}: cannot be read: {error.strerror or error}") from None


class ImageTensors(StoredTensors):
    """The tensors of one safetensors image in memory; where: what errors call it.

    `read` gives views of the image where it is writable, and copies where it is not. UserError for an image that is not whole.
    """

    def __init__(self, image: bytes | bytearray | memoryview, where: str) -> None:
        self.folder, view = Path(where), memoryview(image)
        try:
            header, self._values = _split(view)
            self._places = {name: _place(entry) for name, entry in header.items()}
            self._entries = {
                name: Stored(name, entry["dtype"], tuple(entry["shape"]), self.folder) for name, entry in header.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as error:
            raise UserError(f"{where}: cannot be read: {type(error).__name__}: {error}") from None
        begins, ends = (sorted(side) for side in zip(*self._places.values())) if self._places else ([0], [0])
        if [*begins, len(self._values)] != [0, *ends]:
            raise UserError(
                f"{where}: cannot be read: its {len(self._values)} bytes of values are not those of the header"
            )

    def _raw(self, name: str) -> Tensor:
        stored, (begin, end) = self[name], self._places[name]
        dtype = DTYPES[stored.dtype]
        if begin == end:
            return torch.empty(stored.shape, dtype=dtype)
        part = self._values[begin:end]
        if part.readonly or begin % dtype.itemsize:
            part = bytearray(part)
        return torch.frombuffer(part, dtype=dtype).view(stored.shape)


def _split(image: memoryview) -> tuple[dict[str, Any], memoryview]:
    """The entries of the header by name, and the values after it."""
    (length,) = struct.unpack_from("<Q", image)
    if length > len(image) - 8:
        raise ValueError(f"the header of {length} bytes is cut off")
    header = json.loads(bytes(image[8 : 8 + length]))
    header.pop("__metadata__", None)
    return header, image[8 + length :]


def _place(entry: dict[str, Any]) -> tuple[int, int]:
    """Where its values begin and end. ValueError unless that is as many bytes as format and shape need."""
    (begin, end), shape = entry["data_offsets"], entry["shape"]
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"the format {entry['dtype']} is not one of {', '.join(DTYPES)}")
    whole = all(type(number) is int and number >= 0 for number in (begin, end, *shape))
    if not whole or end - begin != math.prod(shape) * DTYPES[entry["dtype"]].itemsize:
        raise ValueError(f"{shape} values of {entry['dtype']} do not lie at {begin}..{end}")
    return begin, end
