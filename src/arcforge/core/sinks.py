"""Metrics to TensorBoard and Weights & Biases beside `metrics.jsonl`, which stays the truth.

TensorBoard files are written by the `tensorboard` package's own writer: whoever wants to look at them has it anyway, and
unlike `torch.utils.tensorboard` and tensorboardX it never loads torch. Neither package is a dependency; both are imported
when they are asked for.
"""

from __future__ import annotations

import importlib
import math
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from arcforge.core.errors import UserError
from arcforge.core.metrics import JsonLines, MetricSink
from arcforge.core.runs import atomic_write

SinkName = Literal["tensorboard", "wandb"]
FLUSH_SECONDS = 5


def open_sink(path: Path, also: Sequence[SinkName] = ()) -> MetricSink:
    """The metrics of a run, `path` being its `metrics.jsonl`; others write into folders of their names beside it.

    UserError when one is asked for whose package or account is missing.
    """
    kinds: dict[str, type[TensorBoard | WandB]] = {"tensorboard": TensorBoard, "wandb": WandB}
    unknown = [name for name in also if name not in kinds]
    if unknown:
        raise UserError(f"metrics sink {unknown[0]!r} is unknown; choose from {', '.join(kinds)}")
    others = {name: kinds[name](path.parent) for name in also}
    return Fanout(JsonLines(path), others) if others else JsonLines(path)


def configured_sinks() -> list[SinkName]:
    """Those that this machine is made for: TensorBoard where it is installed, W&B where it is and has an account, or is to
    write files only."""
    found: list[SinkName] = ["tensorboard"] if find_spec("tensorboard") else []
    return [*found, "wandb"] if find_spec("wandb") and _wandb_account() else found


class Fanout:
    """The JSON lines first, then the others. One of those that breaks is given up with a line on stderr: a chart is
    no reason to end a run."""

    def __init__(self, truth: JsonLines, others: dict[str, TensorBoard | WandB]) -> None:
        self.truth, self.others = truth, dict(others)

    def write(self, row: dict[str, Any]) -> None:
        self.truth.write(row)
        if "stage" in row and "step" in row:
            values = scalars(row)
            for name in list(self.others):
                self._try(name, lambda sink: sink.add(str(row["stage"]), int(row["step"]), values))

    def close(self) -> None:
        self.truth.close()
        for name in list(self.others):
            self._try(name, lambda sink: sink.close())

    def _try(self, name: str, call: Callable[[TensorBoard | WandB], None]) -> None:
        try:
            call(self.others[name])
        except Exception as error:
            del self.others[name]
            text = f"{type(error).__name__}: {error}"
            print(f"{name}: no longer written ({text}); metrics.jsonl has every row", file=sys.stderr, flush=True)


def scalars(row: dict[str, Any]) -> dict[str, float]:
    """The finite numbers of a row, its time and step left out."""
    return {
        name: float(value)
        for name, value in row.items()
        if name not in ("time", "step")
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


class TensorBoard:
    """One TensorBoard run per stage, `<run>/tensorboard/<stage>`. A stage that was resumed tells TensorBoard to forget what
    an earlier sitting wrote from its first step on."""

    def __init__(self, run: Path) -> None:
        how = "pip install arcforge[tensorboard]"
        writer = _package("tensorboard.summary.writer.event_file_writer", "tensorboard", how)
        self._open = writer.EventFileWriter
        self._events = importlib.import_module("tensorboard.compat.proto.event_pb2")
        self._summary = importlib.import_module("tensorboard.compat.proto.summary_pb2").Summary
        self._folder, self._writers = run / "tensorboard", {}

    def add(self, stage: str, step: int, values: dict[str, float]) -> None:
        if stage not in self._writers:
            self._writers[stage] = self._open(str(self._folder / stage), flush_secs=FLUSH_SECONDS)
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._add(stage, step, session_log=start)
        summary = self._summary(value=[self._summary.Value(tag=k, simple_value=v) for k, v in values.items()])
        self._add(stage, step, summary=summary)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _add(self, stage: str, step: int, **content: Any) -> None:
        self._writers[stage].add_event(self._events.Event(wall_time=time.time(), step=step, **content))


class WandB:
    """One W&B run per run folder, continued when the folder is; every stage has an axis of its own, `<stage>/step`."""

    def __init__(self, run: Path) -> None:
        wandb = _package("wandb", "wandb", "pip install arcforge[wandb]")
        if not _wandb_account():
            raise UserError("metrics sink wandb: set WANDB_API_KEY, or WANDB_MODE=offline to write files only")
        folder = run / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        self._stages: set[str] = set()
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "arcforge"),
            name=run.resolve().name,
            id=_run_id(folder / "arcforge-run-id"),
            dir=str(run),
            resume="allow",
            settings=wandb.Settings(console="off", silent=True),
        )

    def add(self, stage: str, step: int, values: dict[str, float]) -> None:
        if stage not in self._stages:
            self._stages.add(stage)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self._run.log({f"{stage}/step": step, **{f"{stage}/{name}": value for name, value in values.items()}})

    def close(self) -> None:
        self._run.finish()


def _wandb_account() -> bool:
    mode = os.environ.get("WANDB_MODE", "")
    return mode == "offline" or (mode != "disabled" and bool(os.environ.get("WANDB_API_KEY")))


def _run_id(file: Path) -> str:
    if not file.exists():
        atomic_write(file, secrets.token_hex(8))
    return file.read_text()


def _package(module: str, name: str, how: str) -> ModuleType:
    """An optional package. A bare folder of its name, which a run leaves behind, would import too, without content."""
    try:
        package = importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"metrics sink {name}: {error}; {how}") from None
    if package.__file__ is None:
        raise UserError(f"metrics sink {name}: the package is not installed; {how}")
    return package
