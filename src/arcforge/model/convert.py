"""A checkpoint in another number format; the tokenizer's files come along unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from arcforge.core.errors import UserError
from arcforge.core.runs import atomic_write
from arcforge.model.checkpoint import (
    CONTROL,
    DTYPES,
    REWARD_HEAD,
    check,
    config_files,
    expected_shapes,
    formatted,
    plans,
)
from arcforge.model.hf_config import read_config
from arcforge.model.stored import SHARD_BYTES, StoredTensors, write_tensors

FORMATS = (*DTYPES, "fp8")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


def convert(source: Path, target: Path, dtype: str, shard_bytes: int = SHARD_BYTES) -> None:
    """Write the checkpoint of `source` to the folder `target` as "float32", "bfloat16" or "fp8" (128x128 blocks).

    One tensor is in memory at a time. FP8 weights are dequantised on reading. UserError for another format, when `target`
    holds something already, and for a source that is no whole checkpoint: nothing is then written.
    """
    if dtype not in FORMATS:
        raise UserError(f"--dtype {dtype}: choose one of {', '.join(FORMATS)}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: exists and is not empty; name another folder")
    config, stored = read_config(source), StoredTensors(source)
    shapes = expected_shapes(config)
    check(stored, shapes, config)
    if REWARD_HEAD in stored:
        shapes[REWARD_HEAD] = stored[REWARD_HEAD].shape
    made = not target.exists()
    try:
        coming = (part for name in shapes for part in formatted(name, stored.read(name), dtype))
        write_tensors(target, plans(shapes, dtype), coming, shard_bytes)
        for name, data in config_files(config, _control(source), dtype).items():
            atomic_write(target / name, json.dumps(data, indent=2))
        for name in TOKENIZER_FILES:
            if (source / name).exists():
                atomic_write(target / name, (source / name).read_bytes())
    except OSError as error:
        raise UserError(f"{target}: cannot be written: {error.strerror}; free space and run again") from None
    finally:
        if made and target.exists() and not any(target.iterdir()):
            target.rmdir()


def _control(folder: Path) -> dict[str, Any]:
    """Ids of the tokens that begin, end and pad, as the folder's config.json has them."""
    config = json.loads((folder / "config.json").read_text())
    return {name: config.get(name, default) for name, default in CONTROL.items()}
