"""Trajectories: append-only lists of token spans. Text is derived from tokens, never the other way round."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from arcforge.core.errors import Failure

SpanSource = Literal["prompt", "model"]


class TokenSpan(BaseModel):
    """Consecutive tokens with one origin.

    ids: token ids. source: "model" for sampled tokens, "prompt" for everything else. logprobs: natural log, one per id,
    of the sampled distribution (model spans only). version: the weight version that sampled them (-1 for prompt spans).
    trained: whether the loss may touch them; mask_reason says why not ("prompt", "error", "drift", "truncated").
    """

    model_config = ConfigDict(extra="forbid")
    ids: list[int]
    source: SpanSource
    logprobs: list[float] = []
    version: int = -1
    trained: bool = False
    mask_reason: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> TokenSpan:
        if self.source == "model" and len(self.logprobs) != len(self.ids):
            raise ValueError(f"a model span of {len(self.ids)} ids has {len(self.logprobs)} logprobs")
        if self.source == "prompt" and (self.trained or self.logprobs):
            raise ValueError("a prompt span carries no logprobs and is never trained")
        return self


class Trajectory(BaseModel):
    """One finished attempt at one task.

    reward is None when the infrastructure failed (then `failure` says how): a failure never becomes a score.
    forked_from: index of the span at which this trajectory left an earlier one of the same rollout (drift), else -1.
    """

    model_config = ConfigDict(extra="forbid")
    rollout_id: str
    family: str
    task_id: str
    group_id: str = ""
    attempt: int = 0
    seed: int = 0
    spans: list[TokenSpan] = []
    reward: float | None = None
    failure: Failure | None = None
    stop_reason: str = ""
    forked_from: int = -1
    dispatched_version: int = -1
    started: float = 0.0
    finished: float = 0.0
    metrics: dict[str, float] = {}
    info: dict[str, Any] = {}

    @property
    def ids(self) -> list[int]:
        return [i for span in self.spans for i in span.ids]

    @property
    def versions(self) -> list[int]:
        """Weight versions that sampled any token, in order of first use."""
        return list(dict.fromkeys(span.version for span in self.spans if span.source == "model"))

    @property
    def valid(self) -> bool:
        return self.failure is None and self.reward is not None
