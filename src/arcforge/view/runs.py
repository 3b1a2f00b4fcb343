"""A run folder as plain values, for the report and the tables. A run that is still going reads as far as it is."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arcforge.core.errors import UserError
from arcforge.core.runs import read_jsonl

Row = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One stage. Seconds are None until it is done; `metrics` is what it reported, `histograms` edges and counts."""

    number: int
    name: str
    wall_seconds: float | None = None
    cpu_seconds: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    histograms: dict[str, Row] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """Everything a run left behind but its trajectories. `curves`: the metric rows of each stage, one per step."""

    path: Path
    config_text: str
    stages: list[Stage]
    curves: dict[str, list[Row]]
    events: list[Row]
    results: dict[str, list[Row]]

    @property
    def config(self) -> dict[str, Any]:
        return tomllib.loads(self.config_text)


def load_run(path: Path) -> Run:
    """Read the folder. UserError when it is not a run folder or one of its files cannot be read."""
    if not (path / "config.toml").exists() and not (path / "stages").is_dir():
        raise UserError(f"{path}: not a run folder (no config.toml, no stages/)")
    config = path / "config.toml"
    return Run(
        path=path,
        config_text=config.read_text() if config.exists() else "",
        stages=[_stage(folder) for folder in sorted((path / "stages").glob("[0-9][0-9]-*"))],
        curves=_curves(read_jsonl(path / "metrics.jsonl")),
        events=sorted(read_jsonl(path / "events.jsonl"), key=lambda row: row.get("time", 0.0)),
        results=_results(path),
    )


def series(rows: list[Row], key: str) -> list[tuple[float, float]]:
    """(step, value) of one metric, steps without it left out."""
    return [(float(row["step"]), float(row[key])) for row in rows if isinstance(row.get(key), int | float)]


def metric_names(rows: list[Row]) -> list[str]:
    """Numeric metrics of the rows, in order of first appearance."""
    names = {k: None for row in rows for k, v in row.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return [name for name in names if name not in ("time", "step")]


def _stage(folder: Path) -> Stage:
    number, _, name = folder.name.partition("-")
    done = _read_json(folder / "done.json")
    return Stage(
        number=int(number),
        name=name,
        wall_seconds=done.get("wall_seconds"),
        cpu_seconds=done.get("cpu_seconds"),
        metrics=done.get("metrics", {}),
        histograms=_read_json(folder / "histograms.json"),
    )


def _curves(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows by stage. A resumed stage repeats steps: the last row of a step is the one that counted."""
    stages: dict[str, dict[int, Row]] = {}
    for row in rows:
        if "stage" in row and "step" in row:
            steps = stages.setdefault(row["stage"], {})
            steps[row["step"]] = {**steps.get(row["step"], {}), **row}
    return {stage: [steps[step] for step in sorted(steps)] for stage, steps in stages.items()}


def _results(path: Path) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for file in sorted((path / "stages").glob("[0-9][0-9]-*/results.json")):
        for key, rows in _read_json(file).items():
            if isinstance(rows, list):
                found.setdefault(key, []).extend(rows)
    return found


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object")
    return value
