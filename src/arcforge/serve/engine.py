"""What the server needs of an engine, and how it says that it has none. `arcforge.infer.Engine` is one such engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from arcforge.core.errors import EngineError
from arcforge.core.messages import Sampling
from arcforge.core.trajectory import TokenSpan

PauseMode = Literal["keep", "wait", "abort"]


class Output(Protocol):
    """A finished request: model spans in order, split where the weight version changed; "stop", "length" or "abort"."""

    @property
    def spans(self) -> list[TokenSpan]: ...
    @property
    def finish_reason(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...


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
    def result(self, request_id: str) -> Output: ...
    def abort(self, request_id: str) -> None: ...
    def score(self, batch: Sequence[Sequence[int]]) -> list[list[float]]: ...
    def reward(self, batch: Sequence[Sequence[int]]) -> list[float]: ...
    def update_weights(self, folder: Path, version: int) -> None: ...


class EngineFailed(EngineError):
    """The engine raised; its state is unknown and the process has to be restarted."""


class EnginePaused(EngineError):
    """New requests are refused while the engine is paused with "wait" or "abort"."""


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
