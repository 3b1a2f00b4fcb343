"""What the server needs of an engine, and how it says that it has none. `arcforge.infer.Engine` is one such engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from arcforge.core.errors import EngineError
from arcforge.core.messages import Sampling
from arcforge.core.trajectory import TokenSpan

PauseMode = Literal["keep", "wait", "abort"]


class Replay(Protocol):
    """What every token but the last read: experts [T, M, E], selected keys [T, L, K] (-1: none)."""

    @property
    def experts(self) -> np.ndarray: ...
    @property
    def selected(self) -> np.ndarray: ...


class Output(Protocol):
    """A request, or a piece of one: model spans in order, split where the weight version changed.

    finish_reason: "stop", "length" or "abort"; "" for a piece of a request that goes on. top_logprobs: per token, where they
    were asked for. seconds: from the request's arrival to its end; first_seconds: to its first token.
    """

    @property
    def spans(self) -> list[TokenSpan]: ...
    @property
    def finish_reason(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def top_logprobs(self) -> list[list[tuple[int, float]]]: ...
    @property
    def prompt_logprobs(self) -> list[float] | None: ...
    @property
    def replay(self) -> Replay | None: ...
    @property
    def seconds(self) -> float: ...
    @property
    def first_seconds(self) -> float: ...


class Engine(Protocol):
    """Continuous batching over token ids. Not thread-safe: one thread owns it. UserError is a caller's mistake."""

    @property
    def version(self) -> int: ...
    @property
    def has_work(self) -> bool: ...
    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def stats(self) -> Mapping[str, float]: ...

    def add(self, prompt_ids: Sequence[int], sampling: Sampling, request_id: str) -> None: ...
    def step(self) -> list[str]: ...
    def result(self, request_id: str, start: int = 0) -> Output: ...
    def partial(self, request_id: str, start: int) -> Output | None: ...
    def flush(self) -> None: ...
    def abort(self, request_id: str) -> None: ...
    def score(self, batch: Sequence[Sequence[int]]) -> list[list[float]]: ...
    def reward(self, batch: Sequence[Sequence[int]]) -> list[float]: ...
    def update_weights(self, source: Path | str, version: int) -> None: ...
    def set_version(self, version: int) -> None: ...


class EngineFailed(EngineError):
    """The engine raised; its state is unknown and the process has to be restarted."""


class EnginePaused(EngineError):
    """A pause came between: the request was aborted, or another pause or a resume took the place of this one."""


class EngineTimeout(EngineError):
    """No answer within the time allowed; the request was aborted."""


@dataclass(frozen=True)
class Health:
    """One beat. `problem` is "" when requests can be answered; `paused` is "" | "keep" | "wait" | "abort"."""

    problem: str
    paused: str
    version: int
    running: int
    waiting: int
    seconds_since_step: float
