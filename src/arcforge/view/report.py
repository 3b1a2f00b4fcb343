"""report.html of a run: one self-contained page that works offline, built from the run folder's files alone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from arcforge.core.runs import atomic_write
from arcforge.core.trajectory import TokenSpan, Trajectory
from arcforge.view.charts import Line, histogram, lane_chart, line_chart, number
from arcforge.view.pieces import Pieces
from arcforge.view.runs import Row, Run, load_run, metric_names, series
from arcforge.view.table import key_metrics, matrix, topk_share
from arcforge.view.timeline import lanes, stages_with_waits
from arcforge.view.trajectories import Outline, choose, load, scan

TRAJECTORIES_PER_STAGE = 40
TOKENS_PER_TRAJECTORY = 16_384
LOSSES = ("loss", "mtp_loss")
REWARDS = ("reward", "pass_rate")
Figure = dict[str, Any]


def write_report(run: Path) -> Path:
    """Write `run`/report.html and return its path. UserError when `run` is no run folder or a file of it is broken."""
    loaded = load_run(run)
    order = {stage.name: stage.number for stage in loaded.stages}
    outlines = sorted(scan(run), key=lambda outline: order.get(outline.stage, 0))
    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    page = environment.get_template("report.html.j2").render(
        title=run.resolve().name,
        style=Markup((here / "report.css").read_text()),
        script=Markup((here / "report.js").read_text()),
        data=_script_json(_browser(run, outlines)),
        **_sections(loaded, outlines),
    )
    atomic_write(run / "report.html", page)
    return run / "report.html"


def _sections(run: Run, outlines: list[Outline]) -> dict[str, Any]:
    return {
        "tiles": _tiles(run, outlines),
        "stages": _stage_rows(run),
        "matrix": _matrix(run.results.get("cells", [])),
        "bits": run.results.get("lm", []),
        "losses": _curves(run, LOSSES, share=False),
        "rewards": _curves(run, REWARDS, share=True),
        "others": _other_curves(run),
        "retrieval": _retrieval(run.results.get("retrieval", [])),
        "mtp": _mtp(run.results.get("mtp", [])),
        "timelines": [_timeline(run, stage) for stage in stages_with_waits(run.events)],
        "histograms": _histograms(run),
        "rollouts": _rollouts(outlines),
        "config": run.config_text,
    }


def _tiles(run: Run, outlines: list[Outline]) -> list[tuple[str, str]]:
    done = [stage for stage in run.stages if stage.wall_seconds is not None]
    wall, cpu = sum(s.wall_seconds or 0 for s in done), sum(s.cpu_seconds or 0 for s in done)
    tiles = [("stages done", f"{len(done)} of {len(run.stages)}")]
    tiles += [("wall time", _duration(wall)), ("CPU time", _duration(cpu))]
    tasks = sorted({cell["total"] for cell in run.results.get("cells", [])})
    if tasks:
        tiles.append(("test tasks per cell", " / ".join(map(str, tasks))))
    return [*tiles, ("trajectories recorded", f"{len(outlines):,}")] if outlines else tiles


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s"


def _stage_rows(run: Run) -> list[Row]:
    longest = max((stage.wall_seconds or 0.0 for stage in run.stages), default=0.0) or 1.0
    return [
        {
            "number": stage.number,
            "name": stage.name,
            "wall": stage.wall_seconds,
            "cpu": stage.cpu_seconds,
            "bar": 100 * (stage.wall_seconds or 0.0) / longest,
            "topk": topk_share(stage),
            "metrics": key_metrics(stage),
        }
        for stage in run.stages
    ]


def _matrix(cells: list[Row]) -> Row:
    checkpoints, capabilities, at = matrix(cells)
    rows = [(name, [at.get((name, capability)) for capability in capabilities]) for name in checkpoints]
    return {"capabilities": capabilities, "rows": rows}


def _curves(run: Run, names: tuple[str, ...], share: bool) -> list[Figure]:
    figures = []
    for stage, rows in run.curves.items():
        lines = [Line(name.replace("_", " "), series(rows, name), i + 1) for i, name in enumerate(names)]
        values = [y for line in lines for _, y in line.points]
        if values:
            unit = share and min(values) >= 0 and max(values) <= 1
            figures.append({"title": stage, "chart": Markup(line_chart(lines, "step", share=unit))})
    return figures


def _other_curves(run: Run) -> list[Figure]:
    figures = []
    for stage, rows in run.curves.items():
        for name in metric_names(rows):
            points = series(rows, name)
            if "/" not in name and name not in LOSSES + REWARDS and len(points) > 1:
                title = f"{stage}: {name.replace('_', ' ')}"
                figures.append({"title": title, "chart": Markup(line_chart([Line(name, points)], "step"))})
    return figures


def _retrieval(rows: list[Row]) -> list[Figure]:
    attentions = list(dict.fromkeys(row["attention"] for row in rows))
    figures = []
    for checkpoint in dict.fromkeys(row["checkpoint"] for row in rows):
        lines = []
        for colour, attention in enumerate(attentions, start=1):
            mine = [r for r in rows if (r["checkpoint"], r["attention"]) == (checkpoint, attention)]
            mine.sort(key=lambda row: row["length"])
            points = [(float(row["length"]), row["value"]) for row in mine]
            lines.append(Line(attention, points, colour, [r["low"] for r in mine], [r["high"] for r in mine]))
        chart = line_chart(lines, "tokens of context", categories=True, share=True)
        figures.append({"title": checkpoint, "chart": Markup(chart)})
    return figures


def _mtp(rows: list[Row]) -> Row:
    lines = [
        Line(row["checkpoint"], [(float(i + 1), value) for i, value in enumerate(row["per_position"])], index % 8 + 1)
        for index, row in enumerate(rows)
    ]
    return {"rows": rows, "chart": Markup(line_chart(lines, "draft position", categories=True, share=True))}


def _timeline(run: Run, stage: str) -> Figure:
    shown, sittings = lanes(run.events, stage)
    return {"title": stage, "lanes": shown, "sittings": sittings, "chart": Markup(lane_chart(shown))}


def _histograms(run: Run) -> list[Figure]:
    return [
        {
            "title": f"{stage.name}: {name.replace('_', ' ')}",
            "chart": Markup(histogram(bars["edges"], bars["counts"], name.replace("_", " "))),
        }
        for stage in run.stages
        for name, bars in stage.histograms.items()
        if "/" not in name  # those by family and by age are for tools
    ]


def _rollouts(outlines: list[Outline]) -> list[Row]:
    rows = []
    for stage in dict.fromkeys(o.stage for o in outlines):
        mine = [o for o in outlines if o.stage == stage]
        graded = [o.reward for o in mine if o.reward is not None]
        rows.append(
            {
                "stage": stage,
                "total": len(mine),
                "reward": sum(graded) / len(graded) if graded else None,
                "turns": sum(o.turns for o in mine) / len(mine),
                "tokens": sum(o.tokens for o in mine) / len(mine),
                "versions": sum(len(o.versions) > 1 for o in mine) / len(mine),
                "failures": dict(Counter(o.boundary for o in mine if o.boundary)),
                "stops": dict(Counter(o.stop_reason for o in mine if o.stop_reason and not o.boundary).most_common(4)),
            }
        )
    return rows


def _browser(run: Path, outlines: list[Outline]) -> Row:
    """What the trajectory browser needs: the picked trajectories and the pieces of the token ids in them."""
    pieces = Pieces.of_run(run)
    shown, used = [], set()
    for stage in dict.fromkeys(o.stage for o in outlines):
        for trajectory in load(choose([o for o in outlines if o.stage == stage], TRAJECTORIES_PER_STAGE)):
            shown.append(_trajectory(trajectory, stage))
            used.update(i for span in shown[-1]["spans"] for i in span["ids"])
    return {
        "pieces": {i: pieces.text(i) for i in sorted(used)},
        "control": sorted(used & pieces.control),
        "trajectories": shown,
    }


def _trajectory(trajectory: Trajectory, stage: str) -> Row:
    row = trajectory.model_dump(exclude={"spans"})
    spans, room = [], TOKENS_PER_TRAJECTORY
    for span in trajectory.spans:
        if room > 0:
            spans.append(_span(span, room))
            room -= len(span.ids)
    return {**row, "stage": stage, "tokens": len(trajectory.ids), "spans": spans}


def _span(span: TokenSpan, room: int) -> Row:
    row = span.model_dump()
    return {**row, "ids": span.ids[:room], "logprobs": [round(value, 3) for value in span.logprobs[:room]]}


def _script_json(value: Row) -> Markup:
    """JSON for a script element: `<` is escaped, so that no token text can end the element."""
    return Markup(json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))
