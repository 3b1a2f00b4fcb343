"""Tensors as a checkpoint folder stores them: names and shapes from the files' headers, values one at a time, and written again
in shards. Whatever is wrong is one line that names the file and the tensor."""

from __future__ import annotations

import json
import math
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from arcforge.core.errors import UserError
from arcforge.core.runs import atomic_write
from arcforge.model.fp8 import dequantise

SCALE = "_scale_inv"
SHARD_BYTES = 5_000_000_000
CODES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float8_e4m3fn: "F8_E4M3",
}
"""How safetensors calls the formats."""


@dataclass(frozen=True)
class Stored:
    """One tensor as its file's header tells it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


class StoredTensors(Mapping[str, Stored]):
    """The headers of a folder's `model*.safetensors`; `read` brings one tensor into memory and no other.

    UserError for a folder without such files and for a file that is no whole safetensors file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        files = sorted(folder.glob("model*.safetensors"))
        if not files:
            raise UserError(f"{folder}: no model*.safetensors here; a checkpoint folder holds them")
        self._entries: dict[str, Stored] = {}
        for file in files:
            try:
                with safe_open(file, framework="pt") as opened:
                    for name in opened.keys():  # noqa: SIM118 - not a mapping
                        part = opened.get_slice(name)
                        self._entries[name] = Stored(name, str(part.get_dtype()), tuple(part.get_shape()), file)
            except (OSError, SafetensorError) as error:
                raise UserError(f"{file}: cannot be read: {error}") from None

    def __getitem__(self, name: str) -> Stored:
        if name not in self._entries:
            raise UserError(f"{self.folder}: tensor {name} is missing")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def weights(self) -> Iterator[str]:
        """Names without the multipliers of FP8 blocks."""
        return (name for name in self if not name.endswith(SCALE))

    def read(self, name: str) -> Tensor:
        """The tensor, dequantised to float32 where it is FP8. UserError for values that are not finite."""
        tensor = self._raw(name)
        if tensor.dtype == torch.float8_e4m3fn:
            if f"{name}{SCALE}" not in self:
                raise UserError(f"{self.folder}: {name} is FP8 and its tensor {name}{SCALE} is missing")
            tensor = dequantise(tensor, self._raw(f"{name}{SCALE}"))
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{self[name].file}: {name} holds values that are not finite")
        return tensor

    def _raw(self, name: str) -> Tensor:
        file = self[name].file
        try:
            with safe_open(file, framework="pt") as opened:
                return opened.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{file}: {name} cannot be read: {error}") from None


@dataclass(frozen=True)
class Plan:
    """A tensor to be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(
    folder: Path, plans: Sequence[Plan], tensors: Iterable[tuple[str, Tensor]], shard_bytes: int = SHARD_BYTES
) -> None:
    """`model-*.safetensors` and their index from tensors that come in the order of the plans; one is in memory at a time.

    Shards are written under temporary names and appear when all are whole. An exception from `tensors` leaves nothing.
    ValueError when a tensor is not as planned.
    """
    shards = _shards(plans, shard_bytes)
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    coming = iter(tensors)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as temporary:
        for name, shard in zip(names, shards, strict=True):
            write_shard(Path(temporary) / name, shard, coming)
        index = {plan.name: name for name, shard in zip(names, shards, strict=True) for plan in shard}
        total = {"total_size": sum(plan.bytes for plan in plans)}
        for name in names:
            os.replace(Path(temporary) / name, folder / name)
    atomic_write(
        folder / "model.safetensors.index.json",
        json.dumps({"metadata": total, "weight_map": dict(sorted(index.items()))}, indent=1),
    )
    for old in set(folder.glob("model*.safetensors")) - {folder / name for name in names}:
        old.unlink()  # shards of what stood here before


def _shards(plans: Sequence[Plan], most: int) -> list[list[Plan]]:
    """Consecutive plans whose bytes stay within `most`; a larger tensor has a shard of its own."""
    shards: list[list[Plan]] = [[]]
    size = 0
    for plan in plans:
        if shards[-1] and size + plan.bytes > most:
            shards.append([])
            size = 0
        shards[-1].append(plan)
        size += plan.bytes
    return shards


def write_shard(path: Path, plans: Sequence[Plan], coming: Iterator[tuple[str, Tensor]]) -> None:
    """One file in the format of safetensors: the header's length, the header, the values one after the other. ValueError when a
    tensor is not as planned."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for plan in plans:
        place = [offset, offset + plan.bytes]
        header[plan.name] = {"dtype": CODES[plan.dtype], "shape": list(plan.shape), "data_offsets": place}
        offset = place[1]
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for plan in plans:
            name, tensor = next(coming)
            if (name, tensor.dtype, tuple(tensor.shape)) != (plan.name, plan.dtype, plan.shape):
                raise ValueError(f"{name} {tensor.dtype} {tuple(tensor.shape)} came for {plan}")
            file.write(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
            del tensor  # before the next one is read
        file.flush()
        os.fsync(file.fileno())
