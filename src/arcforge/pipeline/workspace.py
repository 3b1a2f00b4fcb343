"""What the stages of one run share: recipe, run folder, tokenizer, corpus, families, metrics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.metrics import JsonLines
from arcforge.core.runs import RunFolder
from arcforge.core.sinks import SinkName, open_sink
from arcforge.core.tasks import Family
from arcforge.data.corpus import Corpus, load_corpus
from arcforge.envs.registry import family
from arcforge.pipeline.recipe import Recipe
from arcforge.train.context import Context

STAGES = (
    "tokenizer",
    "pretrain",
    "midtrain",
    "sparse",
    "sft",
    "reasoning_rl",
    "agentic_rl",
    "general_rl",
    "distill",
    "evaluate",
    "export",
)


class Workspace:
    """Lazily built, so that a resumed run loads only what its remaining stages need."""

    def __init__(self, recipe: Recipe, run: RunFolder, also: Sequence[SinkName] = ()) -> None:
        """also: where metrics go beside metrics.jsonl; for the one process that trains."""
        self.recipe, self.run = recipe, run
        self.sink, self.events = open_sink(run.metrics, also), JsonLines(run.events)

    def folder(self, stage: str) -> Path:
        return self.run.stage(STAGES.index(stage) + 1, stage)

    def checkpoint(self, stage: str) -> Path:
        return self.folder(stage) / "checkpoint"

    def seed(self, stage: str) -> int:
        """Stages draw from streams of their own."""
        return self.recipe.run.seed * 1000 + STAGES.index(stage)

    def context(self, stage: str) -> Context:
        return Context(self.folder(stage), self.tokenizer, self.sink, self.seed(stage), self.recipe.run.save_seconds)

    @cached_property
    def corpus(self) -> Corpus:
        return load_corpus(self.recipe.data)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.checkpoint("tokenizer"))

    def families(self) -> list[Family]:
        """The capabilities, in the order of `sft.weights`."""
        return [family(name, self.recipe.run.seed) for name in ("swe", "reason", "chat", "recall")]
