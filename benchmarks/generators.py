"""Ways to generate from the same weights, for benchmarks/engine.py: our engine, transformers' static batches, and vLLM in a
process of its own. Each takes requests (prompt ids, output tokens wanted) and a concurrency, and generates greedily.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from arcforge.core.messages import Sampling
from arcforge.infer.engine import Engine, EngineConfig
from arcforge.infer.sampler import Likeliest
from arcforge.model.checkpoint import save_checkpoint
from arcforge.model.config import ModelConfig
from arcforge.model.initialise import new_model
from model import COMMON

Request = tuple[list[int], int]
SHORTEST, LONGEST = 16, 128
"""Tokens of a prompt, and of an output."""
MAX_LENGTH = 2 * LONGEST
NEAR_TIE = 2e-3
"""Nats between the two likeliest tokens where rounding may choose either."""
PEER_START, PEER_ANSWER = 300.0, 600.0
"""Seconds to wait for a peer's start and for one of its answers."""


@dataclass
class Outcome:
    """Output ids per request, the seconds that all of them took; tops: the two likeliest ids at every place, where told."""

    seconds: float
    ids: list[list[int]]
    tops: list[list[Likeliest]] = field(default_factory=list)
    stats: dict[str, float] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return sum(map(len, self.ids))


Contenders = dict[str, Callable[..., Outcome]]


def mixed(count: int, vocabulary: int, seed: int) -> list[Request]:
    """Random prompts and outputs of SHORTEST to LONGEST tokens."""
    draw = random.Random(seed)
    lengths = [(draw.randint(SHORTEST, LONGEST), draw.randint(SHORTEST, LONGEST)) for _ in range(count)]
    return [([draw.randrange(1, vocabulary) for _ in range(prompt)], output) for prompt, output in lengths]


class Ours:
    """Our engine. A run has an engine of its own, made before the clock starts, so that no prefix is known."""

    def __init__(self, model: Any, **config: Any) -> None:
        self._model, self._config = model, config

    def __call__(self, requests: Sequence[Request], concurrency: int, **sampling: Any) -> Outcome:
        config = EngineConfig(max_running=concurrency, max_length=MAX_LENGTH, **self._config)
        engine, outputs = Engine(self._model, config), {}
        start = time.perf_counter()
        for number, (prompt, count) in enumerate(requests):
            asked = Sampling(**{"temperature": 0.0, "max_tokens": count, "seed": number, **sampling})
            engine.add(prompt, asked, str(number))
        while engine.has_work:
            outputs.update((name, engine.result(name)) for name in engine.step())
        seconds = time.perf_counter() - start
        ordered = [outputs[str(number)] for number in range(len(requests))]
        ids = [[i for span in output.spans for i in span.ids] for output in ordered]
        return Outcome(seconds, ids, [output.top_logprobs for output in ordered], engine.stats)


class Static:
    """transformers' generate: batches in order of arrival, padded on the left, each until its longest output is done."""

    def __init__(self, model: Any) -> None:
        model.generation_config.eos_token_id = None
        self._model = model

    @torch.no_grad()
    def __call__(self, requests: Sequence[Request], concurrency: int) -> Outcome:
        ids: list[list[int]] = []
        start = time.perf_counter()
        for first in range(0, len(requests), concurrency):
            batch = requests[first : first + concurrency]
            width, longest = max(len(prompt) for prompt, _ in batch), max(count for _, count in batch)
            padding = [width - len(prompt) for prompt, _ in batch]
            rows = self._model.generate(
                input_ids=torch.tensor([[0] * n + prompt for n, (prompt, _) in zip(padding, batch, strict=True)]),
                attention_mask=torch.tensor([[0] * n + [1] * (width - n) for n in padding]),
                max_new_tokens=longest,
                do_sample=False,
                pad_token_id=0,
            )
            ids += [row[width : width + count].tolist() for row, (_, count) in zip(rows, batch, strict=True)]
        return Outcome(time.perf_counter() - start, ids)


class Peer:
    """vLLM, run by benchmarks/vllm_peer.py in the interpreter of an environment that has it; use it as a context.

    Between answers all of its processes are stopped: they poll for some seconds before they sleep, on a core that others need.
    """

    def __init__(self, python: str, folder: Path, dtype: str, threads: int, most: int) -> None:
        driver = Path(__file__).with_name("vllm_peer.py")
        self._log = folder / "vllm.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [python, str(driver), str(folder), dtype, str(threads), str(most), str(MAX_LENGTH)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.about: dict[str, Any] = {}

    def __enter__(self) -> Peer:
        try:
            self.about = self._answer(PEER_START)
            self._send(signal.SIGSTOP)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._send(signal.SIGKILL)
        self._process.wait(30)

    def __call__(self, requests: Sequence[Request], concurrency: int) -> Outcome:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"requests": requests, "concurrency": concurrency}) + "\n")
        self._send(signal.SIGCONT)
        self._process.stdin.flush()
        outcome = Outcome(**self._answer(PEER_ANSWER))
        self._send(signal.SIGSTOP)
        return outcome

    def _send(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)

    def _answer(self, timeout: float) -> dict[str, Any]:
        """One line of JSON. SystemExit with the end of the log when none comes."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            raise SystemExit("vLLM gave no answer; the end of its log:\n" + self._log.read_text()[-3000:])
        return json.loads(line)


def as_glm4_moe_lite(source: Path, target: Path) -> None:
    """The checkpoint of `source` without its indexers as `glm4_moe_lite`: the same function while a context is no longer
    than index_topk."""
    data = json.loads((source / "config.json").read_text())
    kept = {name: value for name, value in data.items() if not name.startswith("index")}
    lite = {"architectures": ["Glm4MoeLiteForCausalLM"], "model_type": "glm4_moe_lite", "rope_interleave": True}
    target.mkdir()
    (target / "config.json").write_text(json.dumps({**kept, **lite}))
    for shard in sorted(source.glob("*.safetensors")):
        tensors = {name: tensor for name, tensor in load_file(shard).items() if ".indexer." not in name}
        save_file(tensors, target / shard.name, {"format": "pt"})


def shared(ours: Outcome, other: Outcome, who: str) -> float:
    """Share of equal tokens; ours was run with top_logprobs=2. SystemExit where a request parts from the other's at a place
    that is no near tie: what computes something else is not compared."""
    equal = 0
    for number, (mine, theirs) in enumerate(zip(ours.ids, other.ids, strict=True)):
        if len(mine) != len(theirs):
            raise SystemExit(f"{who}: request {number} has {len(theirs)} tokens, not {len(mine)}; nothing was timed")
        equal += sum(a == b for a, b in zip(mine, theirs, strict=True))
        place = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b), None)
        if place is not None:
            (_, best), (_, second) = ours.tops[number][place]
            if best - second > NEAR_TIE:
                raise SystemExit(
                    f"{who}: request {number} has {theirs[place]} and not {mine[place]} at {place}, which is {best - second:.4f} "
                    "nats likelier than the next; nothing was timed"
                )
    return equal / ours.tokens


def rates(contenders: Contenders, requests: list[Request], concurrency: int, repeats: int) -> dict[str, float]:
    """Output tokens per second, the median of interleaved repeats."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, generate in contenders.items():
            outcome = generate(requests, concurrency)
            found[name].append(outcome.tokens / outcome.seconds)
    return {name: statistics.median(values) for name, values in found.items()}


def compared(contenders: Contenders, requests: list[Request], concurrency: int) -> dict[str, float]:
    """Share of greedy tokens that each has in common with our engine's default mode; this warms all up, too."""
    ours = contenders["arcforge"](requests, concurrency, top_logprobs=2)
    others = {name: generate for name, generate in contenders.items() if name != "arcforge"}
    return {name: shared(ours, generate(requests, concurrency), name) for name, generate in others.items()}


def written(sizes: dict[str, int], folder: Path) -> ModelConfig:
    config = ModelConfig.model_validate({**COMMON, **sizes})
    save_checkpoint(new_model(config, seed=0), folder, "float32")
    return config
