"""A prompt's cache blocks, from the engine that computed them to another one (GLM-5 report, section 3.6: prefill and decode on
different servers, so that long prefills stall no decoding).

    parts = pack(export_prefix(prefiller, prompt_ids)); import_prefix(decoder, unpack(buffer_of(parts)))

The next `add` of that prompt to the decoder starts from them. Legend: L layers (trunk, then MTP), S = N * BLOCK positions, C
latent + rope, D index_head_dim.

The format: MAGIC, the header's length (uint64), blake2b of all that follows (DIGEST bytes), a JSON header with spaces up to a
multiple of ALIGNED bytes, then the keys and the indexer keys as they lie in memory, little-endian.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from arcforge.core.errors import EngineError
from arcforge.core.messages import Value
from arcforge.infer.blocks import extend_keys
from arcforge.infer.engine import Engine
from arcforge.model.cache import BLOCK, PagedCache
from arcforge.model.config import ModelConfig

MAGIC = b"arcfkv01"
DIGEST, ALIGNED = 32, 64
START = struct.Struct(f"<{len(MAGIC)}sQ{DIGEST}s")
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}
WITHOUT_MEANING = {"max_position_embeddings"}
"""Fields of a model's config that change nothing in its cache."""
Size = Annotated[int, Field(ge=0)]
Shape = tuple[Size, Size, Size]


class Header(Value):
    """What the contents are. tokens: N * block; version: of the oldest weights that the contents depend on; shapes: of keys and
    of indexer keys; model: see `fingerprint`."""

    tokens: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...]
    keys: tuple[str, ...]
    salt: str
    version: int
    block: int
    model: str
    deterministic: bool
    dtype: str
    shapes: tuple[Shape, Shape]


@dataclass(frozen=True, eq=False)
class Blocks:
    """The first N blocks of a prompt: keys_LSC and indexer_keys_LSD, contiguous, of one dtype."""

    header: Header
    keys_LSC: Tensor
    indexer_keys_LSD: Tensor

    @property
    def tokens(self) -> int:
        return len(self.header.tokens)


def fingerprint(config: ModelConfig, values: str = "") -> str:
    """Equal for models whose caches can hold each other's contents, if their weights are the same. values: as in EngineConfig."""
    fields = {**config.model_dump(mode="json", exclude=WITHOUT_MEANING), "values": values}
    return blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=16).hexdigest()


def export_prefix(engine: Engine, prompt_ids: Sequence[int], salt: str = "") -> Blocks:
    """The full blocks of the prompt that the engine's cache holds from its beginning on, copied; perhaps none.

    They are there once a request with this prompt has been prefilled (max_tokens 0 is enough), until their room is needed.
    """
    cache, keys = engine.runner.cache, _keys(prompt_ids, salt)
    known = engine.blocks.known(keys, engine.version)
    contents = [_taken(store, known, cache) for store in (cache.keys, cache.indexer_keys)]
    header = Header(
        tokens=tuple(int(i) for i in prompt_ids[: len(known) * BLOCK]),
        keys=tuple(key.hex() for key in keys[: len(known)]),
        salt=salt,
        version=engine.blocks.version(known) if known else engine.version,
        block=BLOCK,
        model=fingerprint(engine.model.config, engine.config.values),
        deterministic=engine.config.deterministic,
        dtype=str(cache.keys.dtype).removeprefix("torch."),
        shapes=(_shape(contents[0]), _shape(contents[1])),
    )
    return Blocks(header, *contents)


def import_prefix(engine: Engine, blocks: Blocks) -> int:
    """Make the blocks a cached prefix of this engine; how many of the prompt's first tokens it then has.

    Blocks that it has already are left alone, and as many of the first ones are taken as find room without touching a block in
    use. EngineError, and nothing has changed, for blocks of another model, format, weight version or prompt.
    """
    refusal = _refusal(engine, blocks)
    if refusal:
        raise EngineError(f"a prefix of {blocks.tokens} tokens is refused: {refusal}")
    pool, keys, version = engine.blocks, _keys(blocks.header.tokens, blocks.header.salt), engine.version
    held = {key: block for key in keys for block in pool.known([key], version)}
    pool.share(list(held.values()))  # so that making room for the others does not take them
    new: dict[int, int] = {}
    for number in (number for number, key in enumerate(keys) if key not in held):
        block = pool.take()
        if block is None:
            break
        new[number] = block
    try:
        _write(engine.runner.cache, blocks, new)
        for number, block in new.items():
            pool.publish(block, keys[number], blocks.header.version)
    finally:
        held |= {keys[number]: block for number, block in new.items()}
        pool.release([held[key] for key in keys if key in held])
    return len(pool.known(keys, version)) * BLOCK


def pack(blocks: Blocks) -> list[bytes | memoryview]:
    """The wire format in parts, whose contents are not copied."""
    header = blocks.header.model_dump_json().encode()
    header += b" " * (-(START.size + len(header)) % ALIGNED)
    contents = [_bytes(blocks.keys_LSC), _bytes(blocks.indexer_keys_LSD)]
    return [START.pack(MAGIC, len(header), _digest([header, *contents])), header, *contents]


def unpack(buffer: bytes | bytearray | memoryview) -> Blocks:
    """What was packed; the contents are views of the buffer where it is writable. EngineError unless every bit is as it was."""
    view = memoryview(buffer)
    if len(view) < START.size:
        raise EngineError(f"a handed-over prefix is cut off: {len(view)} bytes")
    magic, length, digest = START.unpack_from(view)
    if magic != MAGIC or _digest([view[START.size :]]) != digest:
        raise EngineError("a handed-over prefix is damaged: its checksum is not that of its contents")
    try:
        header = Header.model_validate_json(bytes(view[START.size : START.size + length]))
        keys_LSC, indexer_keys_LSD = _contents(view[START.size + length :], header)
    except (ValidationError, ValueError, KeyError) as error:
        raise EngineError(f"a handed-over prefix has no such format: {str(error).splitlines()[0]}") from None
    return Blocks(header, keys_LSC, indexer_keys_LSD)


def _refusal(engine: Engine, blocks: Blocks) -> str:
    """Why these are none of the engine's blocks; empty if they are."""
    header, cache = blocks.header, engine.runner.cache
    oldest, tokens = max(engine.version - engine.config.stale_prefix, 0), len(header.tokens)
    expected = tuple((store.shape[0], tokens, store.shape[2]) for store in (cache.keys, cache.indexer_keys))
    if header.block != BLOCK:
        return f"its blocks hold {header.block} tokens, here {BLOCK}"
    shapes = tuple(tuple(contents.shape) for contents in (blocks.keys_LSC, blocks.indexer_keys_LSD))
    if shapes != expected:
        return f"its keys are {shapes[0]} and {shapes[1]}, not {expected[0]} and {expected[1]}"
    if not blocks.keys_LSC.dtype == blocks.indexer_keys_LSD.dtype == cache.keys.dtype:
        return f"it holds {blocks.keys_LSC.dtype}, this cache {cache.keys.dtype}"
    model = fingerprint(engine.model.config, engine.config.values)
    if header.model != model:
        return f"it comes from model {header.model}, this one is {model}"
    if engine.config.deterministic and not header.deterministic:
        return "it was not computed deterministically, as this engine promises"
    if not oldest <= header.version <= engine.version:
        return f"it depends on weights {header.version}, this engine takes {oldest}..{engine.version}"
    if tokens % BLOCK or [key.hex() for key in _keys(header.tokens, header.salt)] != list(header.keys):
        return "its keys are not those of its tokens"
    if not all(bool(layer.isfinite().all()) for layer in (*blocks.keys_LSC, *blocks.indexer_keys_LSD)):
        return "it holds values that are not finite"
    return ""


def _keys(tokens: Sequence[int], salt: str) -> list[bytes]:
    keys: list[bytes] = []
    extend_keys(keys, tokens, salt.encode())
    return keys


def _taken(store: Tensor, blocks: list[int], cache: PagedCache) -> Tensor:
    """[L, S, width] of these blocks."""
    rows = store.view(len(store), cache.blocks, -1).index_select(1, torch.tensor(blocks, dtype=torch.int64))
    return rows.view(len(store), len(blocks) * BLOCK, store.shape[-1])


def _write(cache: PagedCache, blocks: Blocks, places: dict[int, int]) -> None:
    """Blocks number `places` of the prompt to where they map, layer by layer: no second copy of everything."""
    numbers, targets = (
        torch.tensor(list(places), dtype=torch.int64),
        torch.tensor(list(places.values()), dtype=torch.int64),
    )
    for store, contents in ((cache.keys, blocks.keys_LSC), (cache.indexer_keys, blocks.indexer_keys_LSD)):
        for layer, values in zip(store, contents, strict=True):
            rows = values.view(-1, BLOCK * values.shape[-1])
            layer.view(cache.blocks, -1).index_copy_(0, targets, rows.index_select(0, numbers))


def _shape(contents: Tensor) -> tuple[int, int, int]:
    L, S, width = contents.shape
    return L, S, width


def _bytes(contents: Tensor) -> memoryview:
    return contents.contiguous().flatten().view(torch.uint8).numpy().data


def _digest(parts: Iterable[bytes | memoryview]) -> bytes:
    digest = blake2b(digest_size=DIGEST)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _contents(view: memoryview, header: Header) -> list[Tensor]:
    """Keys and indexer keys. ValueError, KeyError: not what the header tells."""
    dtype = DTYPES[header.dtype]
    sizes = [math.prod(shape) for shape in header.shapes]
    if len(view) != sum(sizes) * dtype.itemsize:
        raise ValueError(f"{len(view)} bytes cannot be {header.shapes} of {header.dtype}")
    writable = memoryview(bytearray(view)) if view.readonly else view
    values = torch.frombuffer(writable, dtype=dtype) if sum(sizes) else torch.empty(0, dtype=dtype)
    return [part.view(shape) for part, shape in zip(values.split(sizes), header.shapes, strict=True)]
