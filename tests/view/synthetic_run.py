"""A run folder with made-up numbers in the real formats, for looking at the report without training anything.

python tests/view/synthetic_run.py FOLDER
"""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path

import zstandard

from arcforge.core.errors import Failure
from arcforge.core.metrics import JsonLines
from arcforge.core.trajectory import TokenSpan, Trajectory
from arcforge.view.pieces import byte_of_character

NAMES = [
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
]
SECONDS = (4.1, 310.5, 120.2, 64.0, 171.3, 83.0, 118.4, 41.9, 40.2, 101.0, 3.3)
CAPABILITIES = {"reasoning": (0.02, 0.41, 0.62, 0.6), "agentic": (0.0, 0.18, 0.2, 0.56), "chat": (0.1, 0.55, 0.5, 0.61)}
WORDS = ["ant", "bee", "cow", "return", " ", "\n", "a", "b", "+", "-", "(", ")", ":", "def", "test", "ok", "</script>"]
CONTROL = ["<|user|>", "<|assistant|>", "<think>", "</think>", "<tool_call>", "</tool_call>", "<|observation|>"]
HALF_CHARACTER = b"\xe2\x82"


def write_run(folder: Path, seed: int = 0, trajectories: int = 60) -> Path:
    dice = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text('[run]\nname = "synthetic"\nseed = 0\n\n[pretrain]\nsteps = 400\n')
    for number, (name, wall) in enumerate(zip(NAMES, SECONDS), start=1):
        stage = folder / "stages" / f"{number:02d}-{name}"
        stage.mkdir(parents=True)
        metrics = (
            {"loss": 2.1 - number / 10, "pass_rate": 0.3, "beyond_topk_share": 0.41} if number > 4 else {"loss": 2.9}
        )
        write_json(stage / "done.json", {"wall_seconds": wall, "cpu_seconds": wall * 1.9, "metrics": metrics})
    write_tokenizer(folder / "stages" / "05-sft" / "checkpoint")
    write_json(folder / "stages" / "10-evaluate" / "results.json", results())
    write_json(folder / "stages" / "07-agentic_rl" / "histograms.json", histograms())
    write_metrics(folder / "metrics.jsonl", dice)
    write_events(folder / "events.jsonl", dice)
    for stage in ("reasoning_rl", "agentic_rl"):
        rows = [trajectory(dice, stage, index) for index in range(trajectories)]
        append(folder / "trajectories" / f"{stage}-0.jsonl.zst", rows[: trajectories // 2])
        append(folder / "trajectories" / f"{stage}-0.jsonl.zst", rows[trajectories // 2 :])
    return folder


def write_json(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_tokenizer(folder: Path) -> None:
    character = {byte: c for c, byte in byte_of_character().items()}
    pieces = [word.encode() for word in WORDS] + [HALF_CHARACTER]
    vocabulary = {"".join(character[b] for b in piece): i for i, piece in enumerate(pieces)}
    added = [{"id": len(pieces) + i, "content": text, "special": True} for i, text in enumerate(CONTROL)]
    write_json(folder / "tokenizer.json", {"model": {"type": "BPE", "vocab": vocabulary}, "added_tokens": added})


def results() -> dict:
    cells = []
    for position, checkpoint in enumerate(("midtrain", "sft", "reasoning_rl", "agentic_rl")):
        for capability, values in CAPABILITIES.items():
            value, total = values[position], 128
            half = 1.96 * math.sqrt(value * (1 - value) / total) + 0.01
            low, high = max(0.0, value - half), min(1.0, value + half)
            row = {"checkpoint": checkpoint, "capability": capability, "correct": round(value * total), "total": total}
            cells.append({**row, "value": value, "low": low, "high": high})
    retrieval = []
    for attention, drop in (("dense", 0.005), ("dsa", 0.02)):
        for length, value in ((256, 0.99), (512, 0.99 - drop), (1024, 0.98 - drop), (2048, 0.98 - 2 * drop)):
            row = {"checkpoint": "sparse", "attention": attention, "length": length, "total": 128}
            retrieval.append({**row, "value": value, "low": value - 0.04, "high": value + 0.01})
    return {
        "cells": cells,
        "lm": [{"checkpoint": "pretrain", "bits_per_byte": 1.62, "order2_bits_per_byte": 2.71}],
        "retrieval": retrieval,
        "mtp": [{"checkpoint": "pretrain", "acceptance_length": 1.71, "per_position": [0.52, 0.27, 0.12]}],
    }


def histograms() -> dict:
    edges = [2.0 ** (i / 4) for i in range(-16, 17)]
    counts = [round(9000 * math.exp(-abs(i) * 1.1)) for i in range(-16, 16)]
    staleness = {"edges": list(range(17)), "counts": [210, 340, 95, 12] + [0] * 12}
    return {"staleness": staleness, "ratio": {"edges": edges, "counts": counts}}


def write_metrics(path: Path, dice: random.Random) -> None:
    log = JsonLines(path)
    for stage, steps, start, end in (("pretrain", 400, 7.4, 2.4), ("midtrain", 120, 2.6, 2.1), ("sft", 150, 1.9, 0.4)):
        for step in [*range(steps // 2), *range(steps // 2 - 10, steps)]:  # resumed once: ten steps are repeated
            loss = end + (start - end) * math.exp(-6 * step / steps) + dice.gauss(0, 0.06)
            log.write(
                {
                    "stage": stage,
                    "step": step,
                    "loss": loss,
                    "mtp_loss": 1.2 * loss,
                    "lr": 1e-3,
                    "tokens_per_second": 9000.0,
                }
            )
    for stage, steps, low, high in (("reasoning_rl", 60, 0.4, 0.6), ("agentic_rl", 80, 0.2, 0.55)):
        for step in range(steps):
            rate = low + (high - low) * step / steps + dice.gauss(0, 0.04)
            log.write(
                {"stage": stage, "step": step, "reward": rate, "pass_rate": rate, "entropy": 1.1 - 0.5 * step / steps}
            )
    log.close()


def write_events(path: Path, dice: random.Random) -> None:
    rows = [{"who": who, "kind": "stage_start", "time": 1000.0} for who in ("orchestrator", "engine", "trainer")]
    for step in range(25):
        start = 1000.0 + 4.0 * step
        rows.append({"who": "trainer", "kind": "wait_start", "for": "samples", "time": start})
        rows.append({"who": "trainer", "kind": "wait_end", "time": start + 0.4 + dice.random()})
        rows.append({"who": "trainer", "kind": "publish", "version": step + 1, "time": start + 3.6})
        rows.append({"who": "engine", "kind": "wait_start", "for": "weights", "time": start + 3.7})
        rows.append({"who": "engine", "kind": "wait_end", "time": start + 3.8})
        rows.append({"who": "engine", "kind": "update", "version": step + 1, "time": start + 3.8})
        rows.append({"who": "orchestrator", "kind": "wait_start", "for": "rollouts", "time": start + 0.1})
        rows.append({"who": "orchestrator", "kind": "wait_end", "time": start + 3.2})
    rows += [{"who": "orchestrator", "kind": "failure", "reason": "sandbox", "time": 1047.0}]
    rows += [{"who": who, "kind": "stage_end", "time": 1100.0} for who in ("orchestrator", "engine", "trainer")]
    log = JsonLines(path)
    for row in sorted(rows, key=lambda row: row["time"]):
        log.write({**row, "stage": "agentic_rl"})
    log.close()


def trajectory(dice: random.Random, stage: str, index: int) -> Trajectory:
    first = len(WORDS) + 1

    def words(count: int) -> list[int]:
        return [dice.randrange(len(WORDS) + (index % 5 == 0)) for _ in range(count)]

    spans = [TokenSpan(ids=[first, *words(60), first + 1, first + 2], source="prompt")]
    for turn in range(dice.randint(1, 5)):
        ids = [*words(dice.randint(6, 30)), first + 3, first + 4, *words(8), first + 5, first + 6]
        logprobs = [-dice.expovariate(2.0) for _ in ids]
        fate = {"trained": True} if turn or index % 4 else {"trained": False, "mask_reason": "error"}
        spans.append(TokenSpan(ids=ids, source="model", logprobs=logprobs, version=index // 8 + turn // 2, **fate))
        spans.append(TokenSpan(ids=words(20), source="prompt"))
    failed = index % 17 == 3
    return Trajectory(
        rollout_id=f"{stage}-{index:04d}",
        family="swe" if stage == "agentic_rl" else "reason",
        task_id=f"{'repair' if stage == 'agentic_rl' else 'sum'}-train-{index // 8}",
        attempt=index % 8,
        spans=spans,
        reward=None if failed else float(dice.random() < 0.4),
        failure=Failure(boundary="sandbox", reason="SandboxError: the child was killed") if failed else None,
        stop_reason="" if failed else dice.choice(["submitted", "max_turns"]),
        started=1000.0 + index,
        finished=1002.5 + index,
    )


def append(path: Path, rows: list[Trajectory]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(row.model_dump_json() + "\n" for row in rows).encode()
    with path.open("ab") as file:
        file.write(zstandard.ZstdCompressor().compress(text))


if __name__ == "__main__":
    print(write_run(Path(sys.argv[1])))
