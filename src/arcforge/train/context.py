"""What every stage gets: where it writes, what it reads, and the seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.metrics import MetricSink
from arcforge.model.checkpoint import load_checkpoint, save_checkpoint
from arcforge.model.trunk import GlmMoeDsa


@dataclass
class Context:
    """folder: the stage's own. sink: the run's metrics. seed: of this stage. save_seconds: between two saved states."""

    folder: Path
    tokenizer: Tokenizer
    sink: MetricSink
    seed: int
    save_seconds: float = 20.0

    def state_file(self, phase: str = "all") -> Path:
        """Where a phase of the stage keeps what it needs to resume; removed when the stage is done."""
        return self.folder / "trainer" / f"{phase}.pt"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    def finish(self, model: GlmMoeDsa) -> None:
        """Write the stage's checkpoint (float32, with the tokenizer)."""
        write_checkpoint(model, self.tokenizer, self.checkpoint)


def write_checkpoint(model: GlmMoeDsa, tokenizer: Tokenizer, folder: Path, dtype: str = "float32") -> None:
    """A Hugging Face folder with model and tokenizer."""
    tokenizer.save(folder)
    save_checkpoint(model, folder, dtype, control_ids(tokenizer))


def control_ids(tokenizer: Tokenizer) -> dict[str, object]:
    return {"bos_token_id": None, "eos_token_id": list(tokenizer.stop_ids), "pad_token_id": tokenizer.pad_id}


def read_checkpoint(folder: Path) -> GlmMoeDsa:
    return load_checkpoint(folder).train()
