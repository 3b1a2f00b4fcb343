"""The engine: requests in, tokens out, batched over one latent cache (GLM-5 report, sections 2.1 and 3.6).

    engine.add(prompt_ids, sampling, "r1"); finished = engine.step(); output = engine.result("r1")

Every sampled token carries its log-probability and the weight version that sampled it; running requests continue across
a weight update. Not thread-safe: one thread owns an engine.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from arcforge.core.config import Config
from arcforge.core.errors import UserError
from arcforge.core.messages import Sampling
from arcforge.core.trajectory import TokenSpan
from arcforge.infer.runner import Runner, at_last, by_length, pad
from arcforge.infer.sampler import RequestSampler, chosen_logprobs, distribution, draw
from arcforge.infer.slots import Slot, SlotTable
from arcforge.infer.speculative import speculate
from arcforge.model.cache import LatentCache
from arcforge.model.checkpoint import fill, load_checkpoint, load_reward_model
from arcforge.model.reward import RewardModel
from arcforge.model.stored import StoredTensors
from arcforge.model.trunk import GlmMoeDsa


class EngineConfig(Config):
    """slots: requests decoded at once. capacity: tokens per request, prompt included. drafts: MTP tokens per step (0 = off).
    stale_prefix: weight versions that a cached prefix may lag behind when a new request starts from it; 0 computes every
    prefix anew after an update. Behaviour log-probs stay exact either way: they are those of the sampled distribution."""

    slots: int = Field(default=64, ge=1)
    capacity: int = Field(default=1024, ge=8)
    drafts: int = Field(default=0, ge=0, le=8)
    prefill_tokens: int = Field(default=8192, ge=64)
    stale_prefix: int = Field(default=0, ge=0)


@dataclass
class Output:
    """spans: model spans in order, split where the weight version changed. finish_reason: "stop" | "length" | "abort"."""

    spans: list[TokenSpan]
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int


@dataclass
class Running:
    """One request in a slot. The last sampled id is not in the cache yet; hidden_D is that of the token before it."""

    request_id: str
    prompt: list[int]
    sampler: RequestSampler
    slot: Slot
    cached_tokens: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    hidden_D: Tensor | None = None
    drafted_to: int = 0
    pending: list[tuple[int, Tensor]] = field(default_factory=list)

    @property
    def sampling(self) -> Sampling:
        return self.sampler.sampling


class Engine:
    """Continuous batching over fixed slots; see the module's docstring for its use."""

    def __init__(self, model: GlmMoeDsa, config: EngineConfig, reward: RewardModel | None = None) -> None:
        self.model, self.config, self.version = model.eval(), config, 0
        self._cache = LatentCache(model.config, config.slots, config.capacity)
        self.runner = Runner(self.model, self._cache)
        self._slots = SlotTable(self._cache, config.stale_prefix)
        self._waiting: deque[tuple[str, list[int], Sampling]] = deque()
        self._running: dict[str, Running] = {}
        self._finished: dict[str, Output] = {}
        self._reward = reward
        self.stats: dict[str, float] = dict.fromkeys(
            ("steps", "tokens", "prompt_tokens", "cached_tokens", "seconds"), 0.0
        )
        self.accepted = [0] * config.drafts
        self.drafts = 0

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def add(self, prompt_ids: Sequence[int], sampling: Sampling, request_id: str) -> None:
        """Queue a request. UserError when the prompt is empty, has unknown ids or leaves no room in the cache."""
        prompt = [int(i) for i in prompt_ids]
        if not prompt or min(prompt) < 0 or max(prompt) >= self.model.config.vocab_size:
            raise UserError(f"request {request_id}: the prompt is empty or has ids outside the vocabulary")
        if len(prompt) >= self.config.capacity:
            raise UserError(f"request {request_id}: {len(prompt)} prompt tokens do not fit {self.config.capacity}")
        self._waiting.append((request_id, prompt, sampling))

    @torch.inference_mode()
    def step(self) -> list[str]:
        """Prefill what fits, then advance every running request by at least one token; ids of finished requests."""
        start = time.perf_counter()
        before = set(self._finished)
        admitted = self._admit()
        if admitted:
            for part in by_length([len(r.prompt) - r.slot.length for r in admitted]):
                self._prefill([admitted[i] for i in part])
        rows = [r for r in self._running.values() if r not in admitted]
        if rows and self.config.drafts and self.model.mtp is not None:
            speculate(self, rows)
        elif rows:
            self._decode(rows)
        self.stats["steps"] += 1
        self.stats["seconds"] += time.perf_counter() - start
        return [request_id for request_id in self._finished if request_id not in before]

    def result(self, request_id: str) -> Output:
        return self._finished.pop(request_id)

    def sampled(self, request_id: str) -> list[int]:
        """The tokens so far of a request that was added; empty while it waits, all of them once it has finished."""
        if request_id in self._finished:
            return [i for span in self._finished[request_id].spans for i in span.ids]
        return list(self._running[request_id].ids) if request_id in self._running else []

    def discard(self, request_id: str) -> None:
        """Forget a result that nobody will ask for."""
        self._finished.pop(request_id, None)

    def abort(self, request_id: str) -> None:
        """End a request now; its tokens so far are its result."""
        if request_id in self._running:
            self._finish(self._running[request_id], "abort")
            return
        for item in self._waiting:
            if item[0] == request_id:
                self._waiting.remove(item)
                self._finished[request_id] = Output([], "abort", len(item[1]), 0)
                return

    @torch.inference_mode()
    def score(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probabilities of ids[1:] of each sequence under the current weights, as the trainer computes them.

        A sequence of one token or none has no second one: [].
        """
        scored = iter(self._scored([list(ids) for ids in batch if len(ids) > 1]))
        return [next(scored) if len(ids) > 1 else [] for ids in batch]

    def _scored(self, batch: list[list[int]]) -> list[list[float]]:
        results: list[list[float]] = []
        for rows in _chunks(batch, self.config.prefill_tokens):
            ids_BT, _ = pad(rows, [0] * len(rows))
            hidden_BTD = self.model(ids_BT, self.model.layout(torch.zeros_like(ids_BT), sparse=True)).hidden_BTD
            values = self.model.token_logprobs(hidden_BTD[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten())
            table = values.view(len(rows), -1).tolist()
            results += [line[: len(row) - 1] for line, row in zip(table, rows, strict=True)]
        return results

    @torch.inference_mode()
    def reward(self, batch: Sequence[Sequence[int]]) -> list[float]:
        """Scalar reward of each sequence. UserError when the checkpoint has no scalar head."""
        if self._reward is None:
            raise UserError("this checkpoint has no scalar head; serve a reward model to score")
        results: list[float] = []
        for rows in _chunks([list(ids) for ids in batch], self.config.prefill_tokens):
            ids_BT, _ = pad(rows, [0] * len(rows))
            results += self._reward(ids_BT, torch.tensor([len(row) for row in rows])).tolist()
        return results

    def update_weights(self, folder: Path, version: int) -> None:
        """Load new weights in place. Running requests continue; see `stale_prefix` for what is cached."""
        fill(self.model, StoredTensors(folder), at_once=True)
        self.set_version(version)

    def set_version(self, version: int) -> None:
        """Declare that the model's weights changed (an in-process trainer updated them)."""
        if version <= self.version:  # a number used before does not tell old contents from new ones
            self._slots.forget()
        self.version = version

    def _admit(self) -> list[Running]:
        admitted, tokens = [], 0
        while self._waiting and self._slots.free:
            request_id, prompt, sampling = self._waiting[0]
            if admitted and tokens + len(prompt) > self.config.prefill_tokens:
                break
            self._waiting.popleft()
            slot = self._slots.take(np.asarray(prompt, dtype=np.int32), self.version)
            request = Running(request_id, prompt, RequestSampler(sampling), slot, slot.length)
            self._running[request_id] = request
            admitted.append(request)
            tokens += len(prompt) - slot.length
            if self.config.slots > 1 and self._shares_prefix_with_next(prompt):
                break
        return admitted

    def _shares_prefix_with_next(self, prompt: list[int]) -> bool:
        """The next request wants this very prompt: prefill this one first, then copy."""
        return bool(self._waiting) and self._waiting[0][1][: len(prompt) - 1] == prompt[:-1] and len(prompt) > 32

    def _prefill(self, rows: list[Running]) -> None:
        pieces = [r.prompt[r.slot.length :] for r in rows]
        starts = [r.slot.length for r in rows]
        hidden_BTD = self.runner.advance([r.slot.index for r in rows], starts, pieces)
        for i, (request, piece) in enumerate(zip(rows, pieces, strict=True)):
            request.slot.extend(piece)
            self.stats["prompt_tokens"] += len(piece)
            self.stats["cached_tokens"] += request.cached_tokens
            if self.config.drafts:
                request.drafted_to = starts[i]
                request.pending = [(token, hidden_BTD[i, j]) for j, token in enumerate(piece[1:])]
        self._sample(rows, at_last(hidden_BTD, pieces))

    def _decode(self, rows: list[Running]) -> None:
        pieces = [[r.ids[-1]] for r in rows]
        hidden_BTD = self.runner.advance([r.slot.index for r in rows], [r.slot.length for r in rows], pieces)
        for request, piece in zip(rows, pieces, strict=True):
            request.slot.extend(piece)
        self._sample(rows, hidden_BTD[:, 0])

    def _sample(self, rows: list[Running], hidden_BD: Tensor) -> None:
        logits_BV = self.runner.logits(hidden_BD)
        samplings = [r.sampling for r in rows]
        probs_BV = distribution(logits_BV, samplings)
        ids_B = draw(probs_BV, [r.sampler.uniform() for r in rows])
        logprobs = chosen_logprobs(logits_BV, probs_BV, ids_B, samplings)
        for request, token, logprob, hidden_D in zip(rows, ids_B.tolist(), logprobs, hidden_BD, strict=True):
            request.hidden_D = hidden_D
            self.append(request, token, logprob)

    def append(self, request: Running, token: int, logprob: float) -> bool:
        """Record one sampled token; True when it ended the request."""
        request.ids.append(token)
        request.logprobs.append(logprob)
        request.versions.append(self.version)
        self.stats["tokens"] += 1
        if token in request.sampling.stop_ids:
            self._finish(request, "stop")
        elif len(request.ids) >= request.sampling.max_tokens or request.slot.length + 1 >= self.config.capacity:
            self._finish(request, "length")
        else:
            return False
        return True

    def _finish(self, request: Running, reason: str) -> None:
        del self._running[request.request_id]
        self._slots.release(request.slot)
        spans = _spans(request.ids, request.logprobs, request.versions)
        self._finished[request.request_id] = Output(spans, reason, len(request.prompt), request.cached_tokens)


def load_engine(folder: Path, config: EngineConfig) -> Engine:
    """An engine on a checkpoint folder, with its scalar head when it has one."""
    return Engine(load_checkpoint(folder), config, load_reward_model(folder))


def _spans(ids: list[int], logprobs: list[float], versions: list[int]) -> list[TokenSpan]:
    spans: list[TokenSpan] = []
    for token, logprob, version in zip(ids, logprobs, versions, strict=True):
        if not spans or spans[-1].version != version:
            spans.append(TokenSpan(ids=[], source="model", logprobs=[], version=version, trained=True))
        spans[-1].ids.append(token)
        spans[-1].logprobs.append(logprob)
    return spans


def _chunks(rows: list[list[int]], budget: int) -> list[list[list[int]]]:
    """Consecutive rows whose padded size stays within the token budget."""
    chunks: list[list[list[int]]] = []
    longest = 0
    for row in rows:
        longest = max(longest, len(row)) if chunks else len(row)
        if not chunks or longest * (len(chunks[-1]) + 1) > budget:
            chunks.append([])
            longest = len(row)
        chunks[-1].append(row)
    return chunks
