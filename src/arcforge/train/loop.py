"""The one training loop: batch -> objective -> backward -> optimizer -> record, resumable at any kill.

State (weights, optimizer momenta, position in the data, step) is written every `save_seconds` under a temporary name and
renamed; a resumed run takes the same batches and ends with the same bits.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from arcforge.core.errors import UserError
from arcforge.core.metrics import MetricSink, Progress
from arcforge.core.runs import atomic_write
from arcforge.data.batches import Batch
from arcforge.data.mixing import Mixture
from arcforge.optim.muon import MuonAdamW

Objective = Callable[[Batch], dict[str, Tensor]]
"""Batch -> named scalars; "loss" is what is minimised, the rest is recorded."""


@dataclass
class Plan:
    """steps of batch_rows rows each; lr_scale(step) multiplies the optimizer's rate; after_step runs after each update."""

    title: str
    steps: int
    batch_rows: int
    lr_scale: Callable[[int], float]
    after_step: Callable[[], None] = lambda: None


def run(
    plan: Plan,
    model: nn.Module,
    objective: Objective,
    optimizer: MuonAdamW,
    rows: Mixture,
    state_file: Path,
    sink: MetricSink,
    save_seconds: float = 20.0,
) -> None:
    """Train to the end of the plan, from `state_file` when it exists; its last state stays until the stage is done."""
    step = restore(state_file, model, optimizer, rows)
    progress = Progress(plan.title, plan.steps, done=step)
    saved, device = time.monotonic(), next(model.parameters()).device
    while step < plan.steps:
        start, cpu = time.monotonic(), time.process_time()
        batch = Batch.of(rows.batch(plan.batch_rows), device)
        scalars = objective(batch)
        scalars["loss"].backward()
        norm = optimizer.step(plan.lr_scale(step))
        plan.after_step()
        step += 1
        values = {name: float(value.detach()) for name, value in scalars.items()}
        if values["loss"] != values["loss"]:
            raise UserError(f"{plan.title}: the loss is not a number at step {step}; lower the stage's lr")
        rate = batch.ids_BT.numel() / (time.monotonic() - start)
        speed = {"tokens_per_second": rate, "cpu_seconds": time.process_time() - cpu}
        sink.write({"stage": plan.title, "step": step, **values, "grad_norm": norm, **speed})
        progress.update(1, loss=values["loss"])
        if time.monotonic() - saved >= save_seconds or step == plan.steps:
            save(state_file, step, model, optimizer, rows)
            saved = time.monotonic()
    progress.close()


def save(state_file: Path, step: int, model: nn.Module, optimizer: MuonAdamW, rows: Mixture) -> None:
    buffer = io.BytesIO()
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "rows": rows.state()}
    torch.save(state, buffer)
    atomic_write(state_file, buffer.getvalue())


def restore(state_file: Path, model: nn.Module, optimizer: MuonAdamW, rows: Mixture) -> int:
    """The step to go on from; 0 without a state file."""
    if not state_file.exists():
        return 0
    state = torch.load(state_file, weights_only=True, map_location="cpu")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    rows.restore(state["rows"])
    return state["step"]
