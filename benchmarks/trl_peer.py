"""TRL's GRPOTrainer as a contender of benchmarks/async_rl.py, run by the interpreter of an environment that has both:

    python3.11 -m venv v; v/bin/pip install torch==2.13.0 -e . transformers trl
    v/bin/python benchmarks/trl_peer.py CELL.json RESULT.json

The same checkpoint as GlmMoeDsa of transformers, its indexer mended as in benchmarks/model.py, which makes it faster; the same
tasks, prompts, tools and latencies. Rollouts are a `rollout_func` around our own agent loop: all rollouts of a batch take a turn
in one call of `generate`, then call their tools at once. TRL's own loop (`environment_factory`) also generates turn by turn, but
calls the tools of a batch one after another, so that their latencies add up; what is measured is the faster way.

The clock starts with the first step and stops with the last update.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
import trl  # pyright: ignore[reportMissingImports]
from cell import Cell, Clock, Result
from datasets import Dataset  # pyright: ignore[reportMissingImports]
from latency import slowed
from transformers import AutoTokenizer, GlmMoeDsaForCausalLM, TrainerCallback

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.errors import EngineError
from arcforge.core.messages import Sampling
from arcforge.core.runs import atomic_write
from arcforge.core.tasks import Task
from arcforge.core.trajectory import TokenSpan, Trajectory
from arcforge.envs.registry import family
from arcforge.rl.gateway import Gateway
from arcforge.rl.orchestrator import choose_index
from arcforge.rollout.attempt import attempt
from model import mend

LR = 5e-4
"""A rate at which AdamW is stable on these tasks; Muon's 1e-3 is too high for it."""
CONTEXT = 512
TIMEOUT = 600.0
TASKS = range(1 << 31)


class LockStep:
    """A `TokenEngine` over `generate`: waits until every running rollout has asked, then answers all in one batch."""

    def __init__(self, model: Any, pad_id: int) -> None:
        self._model, self._pad_id = model, pad_id
        self._asked: list[tuple[list[int], Sampling, asyncio.Future[list[int]]]] = []
        self.running = 0

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, session: str = ""
    ) -> tuple[list[TokenSpan], str]:
        future = asyncio.get_running_loop().create_future()
        self._asked.append((list(prompt_ids), sampling, future))
        self.turn()
        ids = await future
        finish = "stop" if ids[-1] in sampling.stop_ids else "length"
        return [TokenSpan(ids=ids, source="model", logprobs=[0.0] * len(ids), version=0)], finish

    async def score(self, ids: Sequence[int]) -> list[float]:
        raise EngineError("nothing of this benchmark asks for scores")

    def turn(self) -> None:
        """Generate for all if nobody is missing."""
        if self._asked and len(self._asked) == self.running:
            asked, self._asked = self._asked, []
            longest = max(sampling.max_tokens for _, sampling, _ in asked)
            rows = self._batch([ids for ids, _, _ in asked], asked[0][1].stop_ids, longest)
            for (_, sampling, future), ids in zip(asked, rows, strict=True):
                future.set_result(_until_stop(ids[: sampling.max_tokens], sampling.stop_ids))

    @torch.no_grad()
    def _batch(self, prompts: list[list[int]], stop_ids: Sequence[int], longest: int) -> list[list[int]]:
        width = max(map(len, prompts))
        padding = [width - len(prompt) for prompt in prompts]
        training = self._model.training
        self._model.eval()
        rows = self._model.generate(
            input_ids=torch.tensor([[self._pad_id] * n + prompt for n, prompt in zip(padding, prompts, strict=True)]),
            attention_mask=torch.tensor([[0] * n + [1] * (width - n) for n in padding]),
            max_new_tokens=longest,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            eos_token_id=list(stop_ids),
            pad_token_id=self._pad_id,
            use_cache=True,
        )
        self._model.train(training)
        return rows[:, width:].tolist()


class Rollouts:
    """TRL's `rollout_func`. Prompts are the numbers of tasks, each as often as its group is large."""

    def __init__(self, cell: Cell, tokenizer: Tokenizer) -> None:
        self._cell, self._tokenizer = cell, tokenizer
        self.family, self._attempt = family("swe", cell.seed), slowed(attempt, cell.latency)
        self.runner = asyncio.Runner()
        self.finished: list[Trajectory] = []

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        engine = LockStep(trainer.accelerator.unwrap_model(trainer.model), self._tokenizer.pad_id)
        done = self.runner.run(self._run([int(prompt) for prompt in prompts], engine))
        self.finished += done
        parts = [_parts(trajectory) for trajectory in done]
        names = ("prompt_ids", "completion_ids", "env_mask")
        found: dict[str, list[Any]] = {name: [part[i] for part in parts] for i, name in enumerate(names)}
        return {**found, "logprobs": None, "reward": [trajectory.reward for trajectory in done]}  # type: ignore[dict-item]

    async def _run(self, indices: list[int], engine: LockStep) -> list[Trajectory]:
        gateway, start = Gateway(engine, self._tokenizer, CONTEXT), len(self.finished)
        engine.running = len(indices)
        tasks = [self.family.task("train", index) for index in indices]

        async def one(number: int, task: Task) -> Trajectory:
            try:
                return await self._attempt(
                    task,
                    gateway,
                    rollout_id=str(start + number),
                    attempt=number % self._cell.group_size,
                    timeout=TIMEOUT,
                )
            finally:
                engine.running -= 1
                engine.turn()

        done = await asyncio.gather(*(one(number, task) for number, task in enumerate(tasks)))
        if failed := [t.failure.reason for t in done if t.failure]:
            raise SystemExit(f"{len(failed)} rollouts failed: {failed[0]}")
        return list(done)


def _until_stop(ids: list[int], stop_ids: Sequence[int]) -> list[int]:
    place = next((i for i, token in enumerate(ids) if token in stop_ids), len(ids) - 1)
    return ids[: place + 1]


def _parts(trajectory: Trajectory) -> tuple[list[int], list[int], list[int]]:
    """Ids of the prompt, ids of what followed, and which of those were sampled."""
    first, *others = trajectory.spans
    ids = [i for span in others for i in span.ids]
    return first.ids, ids, [int(span.trained) for span in others for _ in span.ids]


class Timer(TrainerCallback):
    """Reads the clock at the end of every step; the last reading counts."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.clock = Clock()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds, self.cpu_seconds = self.clock.read()


def rewarded(completions: list[Any], reward: list[float], **_: Any) -> list[float]:
    return reward


def grpo_config(cell: Cell) -> trl.GRPOConfig:
    return trl.GRPOConfig(
        output_dir=str(cell.folder),
        max_steps=cell.steps,
        per_device_train_batch_size=cell.groups * cell.group_size,
        gradient_accumulation_steps=1,
        num_generations=cell.group_size,
        max_completion_length=CONTEXT,
        learning_rate=LR,
        beta=0.0,
        temperature=1.0,
        shuffle_dataset=False,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        seed=cell.seed,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def measure(cell: Cell) -> Result:
    torch.set_num_threads(cell.trl_threads)
    model = GlmMoeDsaForCausalLM.from_pretrained(cell.checkpoint, dtype=torch.float32)
    mend(model)
    indices = [choose_index(cell.seed, "swe", n, TASKS) for n in range(cell.steps * cell.groups)]
    rollouts, timer = Rollouts(cell, Tokenizer.load(cell.checkpoint)), Timer()
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=rewarded,
        args=grpo_config(cell),
        train_dataset=Dataset.from_dict({"prompt": [str(index) for index in indices]}),
        processing_class=AutoTokenizer.from_pretrained(cell.checkpoint),
        rollout_func=rollouts,
        callbacks=[timer],
    )
    trainer.train()
    rollouts.runner.run(rollouts.family.close())
    return Result(seconds=timer.seconds, cpu_seconds=timer.cpu_seconds, **_account(cell, rollouts.finished, indices))


def _account(cell: Cell, finished: list[Trajectory], indices: list[int]) -> dict[str, Any]:
    expected = [f"swe/train/{index}" for index in indices for _ in range(cell.group_size)]
    if [t.task_id for t in finished] != expected:
        raise SystemExit("TRL did not train the tasks in their order")
    batch = cell.groups * cell.group_size
    rewards = [t.reward or 0.0 for t in finished]
    calls = [int(t.metrics["tool_calls"]) for t in finished]
    return {
        "trained": len(finished),
        "rewards": tuple(statistics.fmean(rewards[at : at + batch]) for at in range(0, len(rewards), batch)),
        "calls": statistics.fmean(calls),
        "latency": statistics.fmean(cell.latency.total(t.task_id, t.attempt, n) for t, n in zip(finished, calls)),
        "about": f"TRL {trl.__version__}, transformers {transformers.__version__}",
    }


def main(cell: str, result: str) -> None:
    atomic_write(Path(result), measure(Cell.model_validate_json(Path(cell).read_text())).model_dump_json())


if __name__ == "__main__":
    main(*sys.argv[1:])
