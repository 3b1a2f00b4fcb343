"""The engine: requests in, tokens out, batched over one paged latent cache (GLM-5 report, sections 2.1 and 3.6).

    engine.add(prompt_ids, sampling, "r1"); finished = engine.step(); output = engine.result("r1")

Every sampled token carries its log-probability and the weight version that sampled it; running requests continue across
a weight update. Not thread-safe: one thread owns an engine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from arcforge.core.config import Config
from arcforge.core.errors import UserError
from arcforge.core.messages import Sampling
from arcforge.infer.blocks import BlockPool
from arcforge.infer.output import Output
from arcforge.infer.request import Request
from arcforge.infer.runner import Runner, at_last, by_length, pad
from arcforge.infer.sampler import Likeliest, RequestSampler, sample
from arcforge.infer.scheduler import Scheduler
from arcforge.infer.speculative import Speculator, Verified
from arcforge.model.cache import PagedCache
from arcforge.model.checkpoint import fill, load_checkpoint, load_reward_model
from arcforge.model.reward import RewardModel
from arcforge.model.shared import weights
from arcforge.model.trunk import GlmMoeDsa


class EngineConfig(Config):
    """max_running: requests decoded at once. max_length: tokens of a request, prompt included. cache_tokens: tokens that the
    cache holds, of running requests and of prefixes; 0 is max_running * max_length. prefill_tokens: prompt tokens per step.
    drafts: MTP tokens per step (0 = off). stale_prefix: weight versions that a cached prefix may lag behind when a new
    request starts from it; 0 computes every prefix anew after an update. Behaviour log-probs stay exact either way: they are
    those of the sampled distribution. deterministic: tokens and log-probabilities are bit for bit the same whatever else is
    in the batch, and whether a prefix was cached; slower (benchmarks/engine.py). values: weights as stored, or rounded to
    bfloat16 or to FP8 blocks of 128x128 when they are loaded and at every update; products are computed in float32."""

    max_running: int = Field(default=64, ge=1)
    max_length: int = Field(default=1024, ge=8)
    cache_tokens: int = Field(default=0, ge=0)
    prefill_tokens: int = Field(default=8192, ge=16)
    drafts: int = Field(default=0, ge=0, le=8)
    stale_prefix: int = Field(default=0, ge=0)
    deterministic: bool = False
    values: Literal["", "bfloat16", "fp8"] = ""

    @property
    def blocks(self) -> int:
        one = PagedCache.blocks_for(self.max_length)
        return max(one, PagedCache.blocks_for(self.cache_tokens)) if self.cache_tokens else one * self.max_running


class Engine:
    """Continuous batching over paged blocks; see the module's docstring for its use."""

    def __init__(self, model: GlmMoeDsa, config: EngineConfig, reward: RewardModel | None = None) -> None:
        self.model, self.config, self.version = model.eval(), config, 0
        model.compute_alone(config.deterministic)
        self.runner = Runner(self.model, PagedCache(model.config, config.blocks))
        self.blocks = BlockPool(config.blocks, config.stale_prefix)
        drafts = config.drafts if model.mtp is not None else 0
        self._scheduler = Scheduler(self.blocks, config.max_running, config.prefill_tokens, drafts, config.max_length)
        self.speculator = Speculator(self.runner, drafts, config.max_length) if drafts else None
        self._finished: dict[str, tuple[Request, str]] = {}
        self._reward = reward
        self._totals: dict[str, float] = dict.fromkeys(
            ("steps", "tokens", "prompt_tokens", "cached_tokens", "seconds"), 0.0
        )

    @property
    def has_work(self) -> bool:
        return bool(self._scheduler.waiting or self._scheduler.running)

    @property
    def running(self) -> int:
        return len(self._scheduler.running)

    @property
    def waiting(self) -> int:
        return len(self._scheduler.waiting)

    @property
    def stats(self) -> dict[str, float]:
        """Totals since the start, and how much of the cache has readers."""
        of_cache = {"preemptions": self._scheduler.preemptions, "cache_used": 1 - self.blocks.free / self.blocks.count}
        return {**self._totals, **of_cache, **(self.speculator.stats if self.speculator else {})}

    def add(self, prompt_ids: Sequence[int], sampling: Sampling, request_id: str) -> None:
        """Queue a request. UserError when the prompt is empty, has unknown ids or leaves no room in the cache."""
        prompt, vocabulary = [int(i) for i in prompt_ids], self.model.config.vocab_size
        if not prompt or min(prompt) < 0 or max(prompt) >= vocabulary:
            raise UserError(f"request {request_id}: the prompt is empty or has ids outside the vocabulary")
        if len(prompt) >= self.config.max_length:
            raise UserError(f"request {request_id}: {len(prompt)} prompt tokens do not fit {self.config.max_length}")
        for token in sampling.logit_bias:
            if not 0 <= token < vocabulary:
                raise UserError(f"request {request_id}: logit_bias: id {token} is outside the vocabulary")
        salt = sampling.cache_salt.encode()
        self._scheduler.waiting.append(Request(request_id, prompt, RequestSampler(sampling), salt))

    @torch.inference_mode()
    def step(self) -> list[str]:
        """Prefill what fits, then advance every decoding request by at least one token; ids of finished requests."""
        start = time.perf_counter()
        before = set(self._finished)
        plan = self._scheduler.schedule(self.version)
        for part in by_length([count for _, count in plan.prefill]):
            self._prefill([plan.prefill[i] for i in part])
        if plain := [r for r in plan.decode if self.speculator is None or r.sampling.replay]:
            self._decode(plain)
        if self.speculator is not None and (drafting := [r for r in plan.decode if not r.sampling.replay]):
            for request, tokens in self.speculator.advance(drafting):
                self._append_all(request, tokens)
        self._totals["steps"] += 1
        self._totals["seconds"] += time.perf_counter() - start
        return [request_id for request_id in self._finished if request_id not in before]

    def result(self, request_id: str, start: int = 0) -> Output:
        """Of a finished request, from its token number `start` on; it is forgotten."""
        request, reason = self._finished.pop(request_id)
        return request.output(reason, start)

    def partial(self, request_id: str, start: int) -> Output | None:
        """The tokens so far of a running request from number `start` on; None when there are none."""
        request = self._scheduler.running.get(request_id)
        return request.output("", start) if request is not None and request.sampled > start else None

    def sampled(self, request_id: str) -> list[int]:
        """The tokens so far of a request that was added; empty while it waits, all of them once it has finished."""
        if request_id in self._finished:
            return self._finished[request_id][0].ids
        request = self._find(request_id)
        return request.ids if request is not None else []

    def discard(self, request_id: str) -> None:
        """Forget a result that nobody will ask for."""
        self._finished.pop(request_id, None)

    def abort(self, request_id: str) -> None:
        """End a request now; its tokens so far are its result."""
        request = self._find(request_id)
        if request is not None:
            self._finish(request, "abort")

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

    def update_weights(self, source: Path | str, version: int) -> None:
        """Load new weights in place from a checkpoint folder or from shared memory, "shm:NAME" (`model.shared`). Running
        requests continue; see `stale_prefix` for what is cached. UserError: nothing has changed."""
        fill(self.model, weights(source), at_once=True, values=self.config.values)
        self.set_version(version)

    def set_version(self, version: int) -> None:
        """Declare that the model's weights changed (an in-process trainer updated them)."""
        if version <= self.version:  # a number used before does not tell old contents from new ones
            self.flush()
        self.version = version

    def flush(self) -> None:
        """Nothing cached so far starts another request."""
        self._scheduler.forget()

    def _find(self, request_id: str) -> Request | None:
        waiting = (r for r in self._scheduler.waiting if r.request_id == request_id)
        return self._scheduler.running.get(request_id) or next(waiting, None)

    def _prefill(self, planned: list[tuple[Request, int]]) -> None:
        rows, counts = [r for r, _ in planned], [count for _, count in planned]
        starts = [r.computed for r in rows]
        pieces = [r.tokens[start : start + n] for r, start, n in zip(rows, starts, counts, strict=True)]
        hidden_BTD = self._advance(rows, pieces)
        for request, start, piece, hidden_TD in zip(rows, starts, pieces, hidden_BTD, strict=True):
            self._scheduler.advance(request, len(piece))
            request.hidden_D = hidden_TD[len(piece) - 1]
            self._totals["prompt_tokens"] += len(piece)
            if self.speculator is not None:
                following = request.tokens[start + 1 : start + 1 + len(piece)]
                request.pending += [(token, hidden_TD[j]) for j, token in enumerate(following)]
            if request.sampling.prompt_logprobs:
                self._tell_prompt(request, start, hidden_TD[: len(piece)])
        ready = [i for i, r in enumerate(rows) if r.left == 0]
        self._totals["cached_tokens"] += sum(rows[i].cached_tokens for i in ready if not rows[i].sampled)
        last_BD = at_last(hidden_BTD, pieces)
        for i in [i for i in ready if rows[i].sampling.max_tokens == 0]:
            self._finish(rows[i], "length")
        ready = [i for i in ready if rows[i].sampling.max_tokens]
        if ready:
            self._sample([rows[i] for i in ready], last_BD[ready])

    def _decode(self, rows: list[Request]) -> None:
        hidden_BTD = self._advance(rows, [r.tokens[-1:] for r in rows])
        for request, hidden_TD in zip(rows, hidden_BTD, strict=True):
            self._scheduler.advance(request, 1)
            request.hidden_D = hidden_TD[0]
        self._sample(rows, hidden_BTD[:, 0])

    def _advance(self, rows: list[Request], pieces: list[list[int]]) -> Tensor:
        """Hidden [B, T, D] of the next tokens of each row, whose replay is kept where it was asked for."""
        tables, starts = [r.table for r in rows], [r.computed for r in rows]
        if not any(r.sampling.replay for r in rows):
            return self.runner.advance(tables, starts, pieces)
        hidden_BTD, replays = self.runner.recorded(tables, starts, pieces)
        for request, replay, start in zip(rows, replays, starts, strict=True):
            if request.sampling.replay:
                request.replay = replay if request.replay is None else request.replay.extended(replay, start)
        return hidden_BTD

    def _tell_prompt(self, request: Request, start: int, hidden_TD: Tensor) -> None:
        """Log-probabilities of the prompt's tokens after those just computed; each is told once."""
        known = len(request.prompt_logprobs)
        targets = request.prompt[max(start, known) + 1 : start + 1 + len(hidden_TD)]
        if targets:
            first = max(start, known) - start
            hidden_ND = hidden_TD[first : first + len(targets)]
            request.prompt_logprobs += self.model.token_logprobs(hidden_ND, torch.tensor(targets)).tolist()

    def _sample(self, rows: list[Request], hidden_BD: Tensor) -> None:
        ids, logprobs, tops = sample(self.runner.logits(hidden_BD), [r.sampler for r in rows])
        for request, token, logprob, top in zip(rows, ids, logprobs, tops, strict=True):
            self._append(request, token, logprob, top)

    def _append_all(self, request: Request, tokens: list[Verified]) -> None:
        """What speculation verified, until the request ends; each token is paired with the hidden state that it came from."""
        for number, verified in enumerate(tokens):
            self._scheduler.advance(request, 1)
            request.hidden_D = verified.hidden_D
            if self._append(request, verified.token, verified.logprob, verified.top_logprobs):
                return
            if number < len(tokens) - 1:
                request.pending.append((verified.token, verified.hidden_D))

    def _append(self, request: Request, token: int, logprob: float, top: Likeliest) -> bool:
        """Record one sampled token; True when it ended the request."""
        request.first_token = request.first_token or time.monotonic()
        request.tokens.append(token)
        request.logprobs.append(logprob)
        request.versions.append(self.version)
        if request.sampling.top_logprobs:
            request.top_logprobs.append(top)
        self._totals["tokens"] += 1
        if token in request.sampling.stop_ids:
            self._finish(request, "stop")
        elif request.sampled >= request.sampling.max_tokens or len(request.tokens) >= self.config.max_length:
            self._finish(request, "length")
        else:
            return False
        return True

    def _finish(self, request: Request, reason: str) -> None:
        self._scheduler.release(request)
        self._finished[request.request_id] = (request, reason)


def load_engine(folder: Path, config: EngineConfig) -> Engine:
    """An engine on a checkpoint folder, with its scalar head when it has one."""
    return Engine(load_checkpoint(folder, values=config.values), config, load_reward_model(folder))


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
