"""The matrix of stages by capabilities as text, each entry with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from arcforge.evals.run import Cell
from arcforge.evals.stats import Interval

EMPTY = "-"


def entry(cell: Cell | None) -> str:
    """`39.8 [31.8, 48.5]` in percent; `-` where nothing was graded; `!3` marks excluded failures."""
    if cell is None:
        return EMPTY
    failed = f" !{sum(cell.failures.values())}" if cell.failures else ""
    if cell.value is None or cell.low is None or cell.high is None:
        return f"{EMPTY}{failed}"
    return f"{100 * cell.value:.1f} [{100 * cell.low:.1f}, {100 * cell.high:.1f}]{failed}"


def difference(interval: Interval) -> str:
    """`+15.2 [+8.1, +22.0]` in percentage points."""
    return f"{100 * interval.value:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def matrix(rows: Mapping[str, Mapping[str, Cell]], corner: str = "checkpoint") -> str:
    """Rows are checkpoints, columns capabilities in order of first appearance; a footnote where failures were excluded."""
    columns = list(dict.fromkeys(capability for cells in rows.values() for capability in cells))
    lines = [[corner, *columns]]
    lines += [[name, *(entry(cells.get(capability)) for capability in columns)] for name, cells in rows.items()]
    excluded = sum(sum(cell.failures.values()) for cells in rows.values() for cell in cells.values())
    note = f"\n!n: n attempts failed outside the model and are excluded ({excluded} in all)" if excluded else ""
    return f"{aligned(lines)}{note}"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns padded to one width: the first to the left, the others to the right; a rule under the head."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    padded = [
        "  ".join(
            [line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:]))]
        ).rstrip()
        for line in lines
    ]
    return "\n".join([padded[0], "-" * len(padded[0]), *padded[1:]])
