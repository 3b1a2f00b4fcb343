"""Who was busy and who waited, from a stage's events (the asynchronous stages of GLM-5 report, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from arcforge.view.runs import Row

LONGEST_SILENCE = 60.0
MARKS = ("publish", "update", "failure")


@dataclass(frozen=True)
class Interval:
    """Seconds from the start of the timeline; `note` says what it waited for, where the event says so."""

    start: float
    end: float
    note: str = ""


@dataclass(frozen=True)
class Lane:
    """One component: alive from start to end, waiting in `waits`, busy otherwise; `marks` are (second, kind)."""

    who: str
    start: float
    end: float
    waits: list[Interval] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)

    @property
    def waiting_share(self) -> float:
        alive = self.end - self.start
        return sum(w.end - w.start for w in self.waits) / alive if alive > 0 else 0.0


def stages_with_waits(events: Sequence[Row]) -> list[str]:
    """Stages in which somebody waited for somebody, in order."""
    return list(dict.fromkeys(row["stage"] for row in events if row.get("kind") == "wait_start" and row.get("stage")))


def lanes(events: Sequence[Row], stage: str) -> tuple[list[Lane], int]:
    """Lanes of one stage and the number of sittings. A resumed stage has several sittings: the longest one is shown."""
    rows = [row for row in events if row.get("stage") == stage and "who" in row]
    sittings = _sittings(rows)
    if not sittings:
        return [], 0
    shown = max(sittings, key=lambda rows: rows[-1]["time"] - rows[0]["time"])
    first, last = shown[0]["time"], shown[-1]["time"]
    who = list(dict.fromkeys(row["who"] for row in shown))
    return [_lane(name, [row for row in shown if row["who"] == name], first, last) for name in who], len(sittings)


def _sittings(rows: list[Row]) -> list[list[Row]]:
    sittings: list[list[Row]] = []
    for row in rows:
        if not sittings or row["time"] - sittings[-1][-1]["time"] > LONGEST_SILENCE:
            sittings.append([])
        sittings[-1].append(row)
    return sittings


def _lane(who: str, rows: list[Row], first: float, last: float) -> Lane:
    ended = [row["time"] for row in rows if row["kind"] == "stage_end"]
    end = (ended[-1] if ended else last) - first
    lane = Lane(who, start=rows[0]["time"] - first, end=end)
    since: Row | None = None
    for row in rows:
        if row["kind"] == "wait_start" and since is None:
            since = row
        elif row["kind"] == "wait_end" and since is not None:
            lane.waits.append(Interval(since["time"] - first, row["time"] - first, _note(since)))
            since = None
        elif row["kind"] in MARKS:
            lane.marks.append((row["time"] - first, row["kind"]))
    if since is not None:
        lane.waits.append(Interval(since["time"] - first, max(end, since["time"] - first), _note(since)))
    return lane


def _note(row: Row) -> str:
    extra = {k: v for k, v in row.items() if k not in ("time", "who", "kind", "stage")}
    return ", ".join(f"{k} {v}" for k, v in extra.items())
