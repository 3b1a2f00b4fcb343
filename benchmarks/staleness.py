"""Learning under staleness: final reward of three losses when the rollouts' weights lag behind the trainer's by 0, 2, 8 or 16 updates.

    python benchmarks/staleness.py --checkpoint runs/laptop/stages/06-reasoning_rl/checkpoint [--minutes 60] [--out FOLDER]

A synchronous harness with a lagged sampler: step w is trained on rollouts of the weights after step w - s, which are kept, so
that the old policy of a rollout is one set of weights and its log-probabilities are exact: the engine's own. (An asynchronous
rollout has no such policy, which is why agentic RL refuses losses that need one.) Task, advantages (r - mean), optimizer and
schedule are those of the recipe's agentic stage; the losses are

    double_sided   direct double-sided importance sampling, eps 0.8 / 3.0 (GLM-5 report, section 4.1.2)
    grpo_icepop    GRPO with the IcePop mask, beta 2, clip 0.8 / 1.28 (section 3.2)
    ppo_clip       PPO's clip, 0.8 / 1.2

One run is timed first; if all of them would take longer than --minutes, all get fewer steps alike. --jobs runs go on side by
side, each in a process of one thread, which small models use better than two threads of one. The final reward is that of the last
weights on held-out tasks: what is sampled in training lags behind. Writes runs.jsonl (one line per run, as they end; a killed
study continues), result.json, table.md and curves.svg to --out.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import random
import statistics
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.metrics import JsonLines
from arcforge.core.runs import atomic_write, read_jsonl
from arcforge.core.trajectory import Trajectory
from arcforge.envs.registry import family
from arcforge.evals.run import evaluate
from arcforge.infer.engine import Engine, EngineConfig
from arcforge.optim.schedule import linear
from arcforge.rl import advantages
from arcforge.rl.baselines import ppo_clip
from arcforge.rl.diagnostics import TrainedTokens, token_metrics
from arcforge.rl.gateway import Gateway
from arcforge.rl.local_engine import LocalTokenEngine
from arcforge.rl.losses import LossOutput, double_sided, grpo_icepop
from arcforge.rl.orchestrator import choose_index
from arcforge.rl.policy import LAST_LR, ROW_TOKENS, Policy
from arcforge.rl.samples import Sample, build_batch, group_samples
from arcforge.rollout.attempt import attempt
from arcforge.train.context import read_checkpoint
from arcforge.view.charts import Line, line_chart
from arcforge.view.table import table

LR, CONTEXT, TIMEOUT = 1e-3, 512, 120.0
STALENESS, SEEDS = (0, 2, 8, 16), (0, 1, 2)
HELD_OUT = 128
FEWEST_STEPS = 20
"""Below, a lag of 16 would be most of a run."""


def _with_old(loss: Callable[..., LossOutput], *tensors: torch.Tensor) -> LossOutput:
    train_BT, rollout_BT, advantages_BT, mask_BT, weights_BT = tensors
    return loss(train_BT, rollout_BT, advantages_BT, mask_BT, old_BT=rollout_BT, weights_BT=weights_BT)


def _double_sided(*tensors: torch.Tensor) -> LossOutput:
    *four, weights_BT = tensors
    return double_sided(*four, eps_low=0.8, eps_high=3.0, weights_BT=weights_BT)


LOSSES: dict[str, Callable[..., LossOutput]] = {
    "double_sided": _double_sided,
    "grpo_icepop": partial(_with_old, grpo_icepop),
    "ppo_clip": partial(_with_old, ppo_clip),
}


Row = dict[str, float]
Key = tuple[str, int, int]
"""Loss, staleness, seed."""


@dataclass
class Study:
    """Runs of one size from one checkpoint."""

    checkpoint: Path
    steps: int
    groups: int
    group_size: int

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.checkpoint)

    def run(self, loss: str, staleness: int, seed: int, until: int | None = None) -> tuple[list[Row], float]:
        """Rows of the steps, up to step `until`, and the reward of the last weights."""
        torch.manual_seed(seed)
        policy, sampler = Policy(read_checkpoint(self.checkpoint), LR), read_checkpoint(self.checkpoint).eval()
        engine = Engine(sampler, EngineConfig(max_running=self.groups * self.group_size, max_length=CONTEXT))
        made, rows = family("swe", seed), []
        kept = deque([copy.deepcopy(policy.model.state_dict())], maxlen=staleness + 1)
        with asyncio.Runner() as runner:
            for step in range(self.steps if until is None else until):
                sampler.load_state_dict(kept[0])
                engine.set_version(max(0, step - staleness))
                start = time.monotonic()
                groups = runner.run(self._rollouts(engine, made, step, seed))
                batch = build_batch(_samples(groups), max(CONTEXT, ROW_TOKENS), self.tokenizer.pad_id, "token_mean")
                scale = linear(step, self.steps, 1.0, LAST_LR)
                update = policy.update(batch, batch.advantages, LOSSES[loss], scale)
                kept.append(copy.deepcopy(policy.model.state_dict()))
                rewards = [t.reward for group in groups for t in group if t.reward is not None]
                told = token_metrics(TrainedTokens.of(batch, update, engine.version))
                seconds = time.monotonic() - start
                rows.append({"step": step + 1, "reward": statistics.fmean(rewards), "seconds": seconds, **told})
            sampler.load_state_dict(policy.model.state_dict())
            engine.set_version(self.steps)
            tasks = [made.task("dev", index) for index in range(HELD_OUT)]
            gateway = Gateway(LocalTokenEngine(engine), self.tokenizer, CONTEXT)
            done = runner.run(evaluate(tasks, gateway, concurrency=HELD_OUT, timeout=TIMEOUT, seed=seed))
            runner.run(made.close())
        return rows, statistics.fmean(t.reward for t in done if t.reward is not None)

    async def _rollouts(self, engine: Engine, made: Any, step: int, seed: int) -> list[list[Trajectory]]:
        gateway, pending = Gateway(LocalTokenEngine(engine), self.tokenizer, CONTEXT), []
        for number in range(step * self.groups, (step + 1) * self.groups):
            task = made.task("train", choose_index(seed, made.name, number, range(1 << 31)))
            for member in range(self.group_size):
                rollout_id = f"{number}-{member}"
                draw = random.Random(f"{seed}/{rollout_id}").getrandbits(31)
                names = {"rollout_id": rollout_id, "group_id": str(number), "attempt": member, "seed": draw}
                pending.append(attempt(task, gateway, timeout=TIMEOUT, **names))
        done = await asyncio.gather(*pending)
        return [list(done[i : i + self.group_size]) for i in range(0, len(done), self.group_size)]


def _samples(groups: list[list[Trajectory]]) -> list[Sample]:
    """As the agentic stage makes them: groups repaired, r - mean, flat groups left out unless all are."""
    repaired = [advantages.repair([t for t in group if t.valid], len(group)) for group in groups]
    kept = [members for members in repaired if members is not None]
    scored = [(members, [a or 0.0 for a in advantages.agentic([t.reward for t in members])]) for members in kept]
    taught = [pair for pair in scored if any(pair[1])] or scored[:1]
    return [sample for members, scores in taught for sample in group_samples(members, scores, len(kept))]


def fitted(study: Study, pool: ProcessPoolExecutor, runs: int, jobs: int, minutes: float) -> int:
    """Steps of every run, so that all of them end in time. Prints what one costs beside the others."""
    timed = [pool.submit(study.run, "double_sided", 0, seed, 3) for seed in range(jobs)]
    seconds = statistics.fmean(row["seconds"] for run in timed for row in run.result()[0][1:])
    whole, each = seconds * study.steps, runs / jobs / 60
    print(f"one run of {study.steps} steps: {whole:.0f} s; all {runs}: {each * whole:.0f} min", flush=True)
    if each * whole <= minutes:
        return study.steps
    steps = max(FEWEST_STEPS, int(minutes / each / seconds))
    print(f"all runs are shortened to {steps} steps: {each * steps * seconds:.0f} min", flush=True)
    return steps


def measure(study: Study, wanted: list[Key], pool: ProcessPoolExecutor, log: Path) -> None:
    """Every run, written to `log` as it ends."""
    with closing(JsonLines(log)) as sink:
        running = {pool.submit(study.run, *key): key for key in wanted}
        for ended in as_completed(running):
            (loss, lag, seed), (rows, final) = running[ended], ended.result()
            sink.write({"loss": loss, "staleness": lag, "seed": seed, "final": final, "rows": rows})
            seconds = sum(row["seconds"] for row in rows)
            print(f"{loss} staleness {lag} seed {seed}: final reward {final:.3f} in {seconds:.0f} s", flush=True)


def result_table(runs: list[dict[str, Any]], lags: list[int], losses: list[str]) -> str:
    lines = []
    for loss in losses:
        cells = []
        for lag in lags:
            values = [r["final"] for r in runs if (r["loss"], r["staleness"]) == (loss, lag)]
            spread = f" ({min(values):.3f} to {max(values):.3f})" if values else ""
            cells.append(f"{statistics.fmean(values):.3f}{spread}" if values else "")
        lines.append([loss, *cells])
    return table(["final reward at staleness", *map(str, lags)], lines)


def curves(runs: list[dict[str, Any]], losses: list[str], lags: list[int]) -> str:
    """Final reward by staleness, one line per loss, with the range over seeds."""
    lines = []
    for colour, loss in enumerate(losses, start=1):
        by_lag = [[r["final"] for r in runs if (r["loss"], r["staleness"]) == (loss, lag)] or [0.0] for lag in lags]
        points = [(float(lag), statistics.fmean(values)) for lag, values in zip(lags, by_lag)]
        lines.append(Line(loss, points, colour, [min(v) for v in by_lag], [max(v) for v in by_lag]))
    return line_chart(lines, "updates that the sampler lags behind", categories=True, share=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="the checkpoint that agentic RL starts from")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--staleness", nargs="+", type=int, default=list(STALENESS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--groups", type=int, default=12)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=60.0, help="for all runs together")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, of one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/staleness"))
    arguments = parser.parse_args()
    study = Study(arguments.checkpoint, arguments.steps, arguments.groups, arguments.group_size)
    wanted = [(loss, lag, seed) for seed in arguments.seeds for lag in arguments.staleness for loss in arguments.losses]
    log, jobs = arguments.out / "runs.jsonl", arguments.jobs
    done = read_jsonl(log)
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        study.steps = len(done[0]["rows"]) if done else fitted(study, pool, len(wanted), jobs, arguments.minutes)
        known = {(r["loss"], r["staleness"], r["seed"]) for r in done}
        measure(study, [key for key in wanted if key not in known], pool, log)
    done = read_jsonl(log)
    text = result_table(done, arguments.staleness, arguments.losses)
    print(f"\n{study.steps} steps of {study.groups} groups of {study.group_size}, mean over seeds (range)\n\n{text}")
    atomic_write(arguments.out / "table.md", text + "\n")
    atomic_write(arguments.out / "curves.svg", curves(done, arguments.losses, arguments.staleness))
    settings = {name: str(value) for name, value in vars(arguments).items()}
    atomic_write(arguments.out / "result.json", json.dumps({"settings": settings, "steps": study.steps}, indent=1))


if __name__ == "__main__":
    main()
