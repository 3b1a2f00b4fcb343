"""Any causal language model of transformers as the policy: loaded from a folder, scored on packed rows, saved back.

    policy = Policy(TransformersPolicyModel.load(Path("Qwen3-0.6B")), lr=1e-6)

Legend: B rows, T positions, N masked tokens of all rows, K positions whose logits are computed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from arcforge.core.documents import PADDING, SHARED
from arcforge.core.errors import UserError
from arcforge.core.matrix import MatrixSpec
from arcforge.core.runs import atomic_write
from arcforge.data.packing import PackedRows, Tokens, blank, put
from arcforge.rl.micro_batches import separate
from arcforge.rl.policy_model import Scored, before, integers

TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.jinja")
PROBE = 12
"""Tokens of each part of a probe."""
TOLERANCE = 1e-3
"""Log-probs that differ by more saw other tokens: rounding makes 1e-6 in a small model, sight of another document 4e-2 even in
a random one."""


class TransformersPolicyModel:
    """A causal language model in float32, without dropout; every parameter trains, with AdamW.

    AdamW throughout: on weights that AdamW pre-trained, fine-tuning with Muon has no clear advantage (Moonlight, arXiv 2502.16982).

    packs: measured, not assumed. Models with full attention honour a mask of whole rows; those with windows, recurrent layers
    or their own idea of positions get one document a row and see no mask but the causal one.
    """

    topk: int | None = None

    def __init__(self, module: Any, source: Path) -> None:
        """module: a PreTrainedModel, made float32 in place. source: the folder whose tokenizer goes with it."""
        self._dtypes = {name: tensor.dtype for name, tensor in module.state_dict().items()}
        self._source = source
        self.module = module.float().eval().requires_grad_(True)
        self.specs: Mapping[str, MatrixSpec] = {name: MatrixSpec("vector") for name, _ in module.named_parameters()}
        self._selects_logits = "logits_to_keep" in signature(type(module).forward).parameters
        if not _is_causal(self):
            raise UserError(
                f"{source}: {type(module).__name__} lets tokens see later ones; give a causal language model"
            )
        self.packs = _full_attention(module.config) and _keeps_documents_apart(self)

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> TransformersPolicyModel:
        """From a Hugging Face folder; nothing is downloaded and no code of the folder runs.

        UserError when transformers is missing or the folder does not hold a causal language model of plain weights.
        """
        return cls(_read(folder).to(device), folder)

    def score(self, rows: PackedRows) -> Scored:
        device = self.module.device
        ids_BT, documents_BT, positions_BT = integers(rows, device)
        mask_BT = torch.from_numpy(rows.loss_mask).to(device)
        before_BT = before(mask_BT)
        inputs: dict[str, Any] = {"input_ids": ids_BT, "use_cache": False}
        if not _one_document_each(documents_BT):
            inputs |= {"attention_mask": attention_mask(documents_BT), "position_ids": positions_BT}
        if self._selects_logits:
            kept_K = before_BT.any(0).nonzero().squeeze(1)
            inputs["logits_to_keep"], before_BT = kept_K, before_BT[:, kept_K]
        logits_NV = self.module(**inputs).logits[before_BT].float()
        return Scored(-nn.functional.cross_entropy(logits_NV, ids_BT[mask_BT], reduction="none"))

    def save(self, folder: Path) -> None:
        """Each tensor in the dtype that it was loaded in, with the source folder's tokenizer."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as name:
                part = Path(name)
                self._write(part)
                for file in part.iterdir():
                    os.replace(file, folder / file.name)
        except (OSError, SafetensorError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise UserError(f"{folder}: the checkpoint cannot be written: {reason}; free space and run again") from None

    def _write(self, folder: Path) -> None:
        cast: dict[tuple[int, torch.Size], Tensor] = {}  # tied weights stay one tensor
        state = {
            name: cast.setdefault((tensor.data_ptr(), tensor.shape), tensor.to(self._dtypes[name]))
            for name, tensor in self.module.state_dict().items()
        }
        self.module.save_pretrained(folder, state_dict=state)
        config = json.loads((folder / "config.json").read_text())
        config["dtype"] = str(self._dtypes[next(iter(self.specs))]).removeprefix("torch.")
        atomic_write(folder / "config.json", json.dumps(config, indent=2))
        for pattern in TOKENIZER_FILES:
            for file in filter(Path.is_file, self._source.glob(pattern)):
                shutil.copyfile(file, folder / file.name)


def attention_mask(documents_BT: Tensor) -> Tensor:
    """Float32 [B, 1, T, T], 0 where a query (row) sees a key, else the lowest number: earlier tokens of the same document
    and of the prefix that its row shares. Padding sees padding, so that no query sees nothing."""
    owners_B1S = documents_BT[:, None, :]
    same_BTS = (documents_BT[:, :, None] == owners_B1S) | (owners_B1S == SHARED)
    hidden_BTS = ~same_BTS.tril()
    mask_BTS = torch.zeros(hidden_BTS.shape, device=documents_BT.device)
    return mask_BTS.masked_fill_(hidden_BTS, torch.finfo(mask_BTS.dtype).min)[:, None]


def _one_document_each(documents_BT: Tensor) -> bool:
    """Then padding at the end needs no mask: it comes later than everything."""
    other_BT = (documents_BT != documents_BT[:, :1]) & (documents_BT != PADDING)
    return not bool(other_BT.any()) and not bool((documents_BT[:, 0] == SHARED).any())


def _full_attention(config: Any) -> bool:
    """Every layer sees every earlier token, as far as the config tells: only then is the mask of a row the whole truth."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return set(kinds) == {"full_attention"}
    return getattr(config, "sliding_window", None) is None


@torch.no_grad()
def _is_causal(model: TransformersPolicyModel) -> bool:
    """Log-probs of the same tokens with one and with another continuation; the shapes are equal, so what is causal does not
    even round otherwise."""
    ids = _probe_ids(model)
    scores = []
    for later in (ids[PROBE : 2 * PROBE], ids[2 * PROBE :]):
        rows = blank(1, 2 * PROBE, 0)
        put(rows, 0, 0, 0, Tokens.of(ids[:PROBE] + later, [True] * PROBE + [False] * PROBE), 0)
        scores.append(model.score(rows).logprobs_N)
    return _gap(*scores) < TOLERANCE / 10


@torch.no_grad()
def _keeps_documents_apart(model: TransformersPolicyModel) -> bool:
    """Two documents behind a shared prefix, and padding, against each document in a row of its own. A model that does not
    take such a mask may say so by an exception."""
    ids = _probe_ids(model)
    rows = blank(1, 4 * PROBE, 0)
    put(rows, 0, 0, SHARED, Tokens.of(ids[:PROBE], [False] * PROBE), 0)
    for document in (1, 2):
        start = document * PROBE
        put(rows, 0, start, document, Tokens.of(ids[start : start + PROBE]), PROBE)
    try:
        packed = model.score(rows).logprobs_N
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False
    return _gap(packed, model.score(separate(rows)).logprobs_N) < TOLERANCE


def _gap(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())


def _probe_ids(model: TransformersPolicyModel) -> list[int]:
    """Ids all over the vocabulary, the same at every call."""
    size = model.module.get_input_embeddings().weight.shape[0]
    return torch.randint(size, (3 * PROBE,), generator=torch.Generator().manual_seed(0)).tolist()


def _read(folder: Path) -> Any:
    try:
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging
    except ImportError:
        raise UserError("a policy of this kind needs transformers; run pip install 'arcforge[hf]'") from None
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        raise UserError(f"{folder}: no readable config.json; give the folder of a Hugging Face checkpoint") from None
    if "quantization_config" in config:
        raise UserError(f"{folder}: quantised weights cannot be trained; give the BF16 or FP32 checkpoint")
    logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # whatever a stranger's folder makes the library raise
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{folder}: transformers reads no causal language model here: {reason}") from None
    model, report = loaded
    absent = sorted(report["missing_keys"]) + sorted(name for name, *_ in report["mismatched_keys"])
    if absent:
        raise UserError(f"{folder}: {absent[0]} is missing or misshaped; this is no {type(model).__name__}")
    return model
