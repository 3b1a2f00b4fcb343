"""A checkpoint in another number format; the tokenizer's files come along unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from arcforge.core.errors import UserError
from arcforge.core.runs import atomic_write
from arcforge.model.checkpoint import CONTROL, DTYPES, load_checkpoint, load_reward_model, save_checkpoint

FORMATS = (*DTYPES, "fp8")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


def convert(source: Path, target: Path, dtype: str) -> None:
    """Write the checkpoint of `source` to the folder `target` as "float32", "bfloat16" or "fp8" (128x128 blocks).

    FP8 weights are dequantised on reading. UserError for another format or when `target` holds something already.
    """
    if dtype not in FORMATS:
        raise UserError(f"--dtype {dtype}: choose one of {', '.join(FORMATS)}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: exists and is not empty; name another folder")
    model = load_reward_model(source) or load_checkpoint(source)
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            atomic_write(target / name, (source / name).read_bytes())
    save_checkpoint(model, target, dtype, _control(source))


def _control(folder: Path) -> dict[str, Any]:
    """Ids of the tokens that begin, end and pad, as the folder's config.json has them."""
    config = json.loads((folder / "config.json").read_text())
    return {name: config.get(name, default) for name, default in CONTROL.items()}
