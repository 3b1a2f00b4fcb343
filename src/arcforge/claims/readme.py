"""The record as Markdown, from its raw numbers alone."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from arcforge import __version__
from arcforge.claims import attention, multi_token, teachers
from arcforge.claims.markdown import Result, points, table, verdict
from arcforge.view.charts import number
from arcforge.view.table import matrix, per_cent

SECTIONS: dict[str, tuple[str, Callable[[Mapping[str, Result]], str]]] = {
    "attention": ("Cheaper attention against DSA", attention.markdown),
    "multi_token": ("Three shared MTP steps against one", multi_token.markdown),
    "teachers": ("Distillation against its teachers", teachers.markdown),
}
Seeds = Mapping[str, Any]
"""Seed -> what `record.seed_results` collects."""


def machine() -> dict[str, Any]:
    """What a reader needs to know of the machine to read seconds."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": cpu_model(Path("/proc/cpuinfo")) or platform.processor() or platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "arcforge": __version__,
    }


def cpu_model(cpuinfo: Path) -> str:
    """Its name as Linux tells it; empty elsewhere."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def render(raw: Mapping[str, Any]) -> str:
    """README.md of a record; raw: what results.json holds."""
    seeds: Seeds = raw["seeds"]
    parts = [
        "# Record",
        f"Command: `{raw['command']}`",
        "The resolved recipe is `config.toml`, every number is in `results.json`. Intervals are of 95%; differences are "
        "paired: the same tasks with the same seeds.",
        _machine(raw["machine"]),
        f"## Claims\n\n{_claims(seeds)}",
        f"## What the RL stages gained\n\n{_gains(seeds)}",
    ]
    for name, (title, markdown) in SECTIONS.items():
        if results := compared(seeds, name):
            parts.append(f"## {title}\n\n{markdown(results)}")
    for title, make in (
        ("Every stage on every capability, per cent", _matrix),
        ("Retrieval by length, per cent", lambda results: attention.by_length(results["retrieval"])),
        ("Bits per byte, held out", _bits),
        ("MTP drafts by stage", _drafts),
    ):
        tables = [f"Seed {seed}\n\n{make(found['results'])}" for seed, found in seeds.items()]
        parts.append("\n\n".join([f"## {title}", *tables]))
    parts.append(f"## Seconds\n\n{_seconds(seeds)}")
    return "\n\n".join(parts) + "\n"


def compared(seeds: Seeds, name: str) -> dict[str, Result]:
    """The results of one comparison by the seeds that it was made with."""
    return {seed: found["comparisons"][name] for seed, found in seeds.items() if name in found["comparisons"]}


def _machine(told: Mapping[str, Any]) -> str:
    return (
        f"Machine: {told['cores']} cores of {told['cpu']}, {told['system']}, Python {told['python']}, "
        f"torch {told['torch']}, arcforge {told['arcforge']}."
    )


def _claims(seeds: Seeds) -> str:
    rows = []
    for name, (title, _) in SECTIONS.items():
        results = compared(seeds, name)
        if results:
            held = (verdict(results[seed]["held"]) if seed in results else "" for seed in seeds)
            rows.append([title, next(iter(results.values()))["target"], *held])
    return table(["comparison", "target", *(f"seed {seed}" for seed in seeds)], rows)


def _gains(seeds: Seeds) -> str:
    rows = [
        [
            f"{seed} {row['first']} to {row['second']}",
            row["capability"],
            row["tasks"],
            f"{100 * row['before']:.1f}",
            f"{100 * row['after']:.1f}",
            points(row),
        ]
        for seed, found in seeds.items()
        for row in found["gains"]
    ]
    return table(["seed, stages", "capability", "tasks", "before, per cent", "after, per cent", "gain, points"], rows)


def _matrix(results: Mapping[str, Any]) -> str:
    stages, capabilities, at = matrix([cell for cell in results["cells"] if "/" not in cell["capability"]])
    rows = [[stage, *(per_cent(at.get((stage, name))) for name in capabilities)] for stage in stages]
    return table(["checkpoint", *capabilities], rows)


def _bits(results: Mapping[str, Any]) -> str:
    rows = [[r["checkpoint"], number(r["bits_per_byte"]), number(r["order2_bits_per_byte"])] for r in results["lm"]]
    return table(["checkpoint", "model", "order-2 bytes"], rows)


def _drafts(results: Mapping[str, Any]) -> str:
    rows = [
        [row["checkpoint"], number(row["acceptance_length"]), *(number(share) for share in row["per_position"])]
        for row in results["mtp"]
    ]
    drafts = [f"draft {place + 1}" for place in range(len(rows[0]) - 2)]
    return table(["checkpoint", "acceptance length", *drafts], rows)


def _seconds(seeds: Seeds) -> str:
    """Wall and CPU seconds of every stage and comparison, and of each seed in all."""
    columns = []
    for found in seeds.values():
        timed = [*found["stages"], *({"stage": name, **result} for name, result in found["comparisons"].items())]
        column = {row["stage"]: (row["wall_seconds"], row["cpu_seconds"]) for row in timed}
        columns.append({**column, "all": tuple(sum(pair[i] for pair in column.values()) for i in (0, 1))})
    head = [f"seed {seed} {kind} s" for seed in seeds for kind in ("wall", "CPU")]
    names = dict.fromkeys(name for column in columns for name in column if name != "all")
    rows = [
        [name, *(f"{column[name][i]:,.0f}" if name in column else "" for column in columns for i in (0, 1))]
        for name in (*names, "all")
    ]
    return table(["stage", *head], rows)
