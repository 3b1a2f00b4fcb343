"""Plain-text tables for the terminal: a run's stages, its stage-by-capability matrix, and what else was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from arcforge.view.charts import number
from arcforge.view.runs import Row, Run, Stage, load_run

SHOWN_METRICS = 4
FIRST_METRICS = ("loss", "bits_per_byte", "order2_bits_per_byte", "pass_rate", "reward", "retrieval", "accuracy")
TOPK_SHARE = "beyond_topk_share"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell; the first column is left-aligned, the others right-aligned."""
    widths = [max(len(row[i]) for row in [headers, *rows]) for i in range(len(headers))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths))]
        return "  ".join(padded).rstrip()

    return "\n".join([line(headers), "  ".join("-" * w for w in widths), *(line(row) for row in rows)])


def summary(run: Path) -> str:
    """What a finished run prints: its stages, then the matrix. UserError when `run` is no run folder."""
    loaded = load_run(run)
    parts = [stage_table(loaded)]
    results = loaded.results
    if results.get("cells"):
        parts.append(matrix_table([cell for cell in results["cells"] if "/" not in cell["capability"]]))
    parts += [make(results[key]) for key, make in _MORE.items() if results.get(key)]
    return "\n\n".join(parts)


def stage_table(run: Run) -> str:
    rows = [
        [
            f"{stage.number} {stage.name}",
            number(stage.wall_seconds),
            number(stage.cpu_seconds),
            topk_share(stage),
            "  ".join(f"{name} {value}" for name, value in key_metrics(stage)),
        ]
        for stage in run.stages
    ]
    done = [stage for stage in run.stages if stage.wall_seconds is not None]
    walls, cpus = sum(s.wall_seconds or 0 for s in done), sum(s.cpu_seconds or 0 for s in done)
    rows.append(["all", number(walls), number(cpus), "", ""])
    return table(["stage", "wall s", "CPU s", "beyond top-k", "metrics"], rows)


def matrix_table(cells: Sequence[Row]) -> str:
    """One row per checkpoint, one column per capability: value in per cent and its 95% interval."""
    checkpoints, capabilities, at = matrix(cells)

    rows = [[name, *(per_cent(at.get((name, capability))) for capability in capabilities)] for name in checkpoints]
    return table(["per cent, 95% interval", *capabilities], rows)


def lm_table(rows: Sequence[Row]) -> str:
    """Bits per byte on held-out modules, beside a byte model's that knows the two bytes before."""
    cells = [[r["checkpoint"], number(r["bits_per_byte"]), number(r["order2_bits_per_byte"])] for r in rows]
    return table(["bits per byte, held out", "model", "order-2 bytes"], cells)


def retrieval_table(rows: Sequence[Row]) -> str:
    """Share of needles found by length, in per cent with its 95% interval."""
    lengths = sorted({r["length"] for r in rows})
    lines = list(dict.fromkeys((r["checkpoint"], r["attention"]) for r in rows))
    at = {(r["checkpoint"], r["attention"], r["length"]): r for r in rows}
    cells = [[f"{name} {kind}", *(per_cent(at.get((name, kind, n))) for n in lengths)] for name, kind in lines]
    return table(["retrieval by length", *map(str, lengths)], cells)


def mtp_table(rows: Sequence[Row]) -> str:
    """Mean acceptance length (1 + accepted / drafts) and acceptance per draft position."""
    most = max(len(r["per_position"]) for r in rows)
    places = [[number(p) for p in r["per_position"]] + [""] * (most - len(r["per_position"])) for r in rows]
    cells = [[r["checkpoint"], number(r["acceptance_length"]), *p] for r, p in zip(rows, places, strict=True)]
    return table(["MTP drafts", "acceptance length", *(f"draft {i + 1}" for i in range(most))], cells)


_MORE = {"lm": lm_table, "retrieval": retrieval_table, "mtp": mtp_table}


def per_cent(cell: Row | None) -> str:
    """`39.8 [31.8, 48.5]`: value and interval of a share."""
    if cell is None or cell["value"] is None:
        return "–"
    return f"{100 * cell['value']:.1f} [{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]"


def matrix(cells: Sequence[Row]) -> tuple[list[str], list[str], dict[tuple[str, str], Row]]:
    """Checkpoints and capabilities in order of first appearance, and the cells by (checkpoint, capability)."""
    checkpoints = list(dict.fromkeys(cell["checkpoint"] for cell in cells))
    capabilities = list(dict.fromkeys(cell["capability"] for cell in cells))
    return checkpoints, capabilities, {(cell["checkpoint"], cell["capability"]): cell for cell in cells}


def key_metrics(stage: Stage) -> list[tuple[str, str]]:
    """The few numbers that say most about a stage, best known names first."""
    names = [n for n, v in stage.metrics.items() if isinstance(v, int | float) and n != TOPK_SHARE]
    names.sort(key=lambda name: FIRST_METRICS.index(name) if name in FIRST_METRICS else len(FIRST_METRICS))
    return [(name.replace("_", " "), number(stage.metrics[name])) for name in names[:SHOWN_METRICS]]


def topk_share(stage: Stage) -> str:
    """Share of the trained positions that have more than topk candidates, where the stage reports it."""
    share = stage.metrics.get(TOPK_SHARE)
    return "" if share is None else f"{share:.0%}"
