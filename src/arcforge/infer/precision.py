"""What rounding the weights costs: the same tokens under two roundings of one checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from arcforge.core.messages import Sampling
from arcforge.infer.engine import Engine, EngineConfig
from arcforge.model.checkpoint import load_checkpoint

START = 0
SEED = 0


@dataclass(frozen=True)
class Gap:
    """Absolute differences of log-probabilities over `tokens` tokens."""

    mean: float
    largest: float
    tokens: int

    def __str__(self) -> str:
        return f"log-probabilities differ by {self.mean:.2g} on average, {self.largest:.2g} at most, over {self.tokens} tokens"


def rounding_gap(folder: Path, values: str = "fp8", reference: str = "bfloat16", tokens: int = 256) -> Gap:
    """Both models read what the reference samples at temperature 1 after its first id."""
    config = EngineConfig(max_running=1, max_length=tokens + 2)
    engine = Engine(load_checkpoint(folder, values=reference), config)
    engine.add([START], Sampling(max_tokens=tokens, seed=SEED), "gap")
    while engine.has_work:
        engine.step()
    ids = [START, *(i for span in engine.result("gap").spans for i in span.ids)]
    (exact,), (other,) = (one.score([ids]) for one in (engine, Engine(load_checkpoint(folder, values=values), config)))
    apart = [abs(a - b) for a, b in zip(exact, other, strict=True)]
    return Gap(sum(apart) / len(apart), max(apart), len(apart))
