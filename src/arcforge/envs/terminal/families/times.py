"""Schedules and dates."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from arcforge.envs.terminal.draft import Draft
from arcforge.envs.terminal.families.pools import SERVICES, WORDS, moment
from arcforge.envs.terminal.families.tables import PYTHON

_FIELDS = ["minute", "hour", "day", "month", "weekday"]
_RANGES = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]


@cache
def _expand(field: str, low: int, high: int) -> frozenset[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, last = (low, high) if span == "*" else map(int, (span.split("-") * 2)[:2])
        found.update(range(first, last + 1, int(step or 1)))
    return frozenset(found)


def _due(line: str, when: datetime) -> bool:
    minute, hour, day, month, weekday = (_expand(f, *r) for f, r in zip(line.split(), _RANGES))
    now = (
        when.minute in minute,
        when.hour in hour,
        when.day in day,
        when.month in month,
        (when.weekday() + 1) % 7 in weekday,
    )
    return all(now)


_SOLVE = """import datetime
R = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]
def expand(field, low, high):
    out = set()
    for part in field.split(','):
        span, _, step = part.partition('/')
        a, b = (low, high) if span == '*' else [int(x) for x in (span.split('-') * 2)[:2]]
        out |= set(range(a, b + 1, int(step or 1)))
    return out
jobs = []
for line in open('crontab.txt'):
    if line.strip() and not line.startswith('#'):
        *fields, name = line.split()
        jobs.append((name, [expand(f, *r) for f, r in zip(fields, R)]))
def due(sets, t):
    return all(v in s for v, s in zip((t.minute, t.hour, t.day, t.month, t.isoweekday() % 7), sets))
start = datetime.datetime(*{start})
"""


def schedule(rng: random.Random, level: int) -> Draft:
    """A crontab: the next time of each job, how often each runs in a window, which run together."""
    jobs = [f"{_field(rng, level)} {rng.choice(SERVICES)}-{rng.choice(WORDS)}{n}" for n in range(3 + 2 * level)]
    start = moment(rng).replace(second=0, tzinfo=None)
    hours = rng.choice([24, 48]) * level
    window = [start + timedelta(minutes=m) for m in range(hours * 60)]
    runs = {job.split()[-1]: [t for t in window if _due(job, t)] for job in jobs}
    told = [
        "/app/crontab.txt has lines `minute hour day month weekday name` with numbers, `*`, ranges `a-b`, lists and steps `/n`, weekday 0 "
        "being Sunday; a job runs when all five fields match (also where both day and weekday are restricted). Lines that begin with # are comments.",
        f"Consider the {hours} hours from {start:%Y-%m-%d %H:%M} on, that minute included and the last one excluded.",
        "Write /app/counts.txt: `name count` with the number of runs of each job in that time, in the order of the file.",
    ]
    solve = (
        _SOLVE.format(start=tuple(start.timetuple()[:5]))
        + f"""window = [start + datetime.timedelta(minutes=m) for m in range({hours} * 60)]
runs = {{n: [t for t in window if due(s, t)] for n, s in jobs}}
open('counts.txt', 'w').writelines(f'{{n}} {{len(r)}}\\n' for n, r in runs.items())
"""
    )
    checks: list[dict[str, Any]] = [
        {
            "kind": "text",
            "path": "counts.txt",
            "text": "".join(f"{name} {len(times)}\n" for name, times in runs.items()),
        }
    ]
    if level > 1:
        told.append(
            "Write /app/first.txt: `name YYYY-MM-DDTHH:MM` with the first run of each job in that time, or `name never`, in the order of the file."
        )
        solve += "open('first.txt', 'w').writelines(f\"{n} {r[0].strftime('%Y-%m-%dT%H:%M') if r else 'never'}\\n\" for n, r in runs.items())\n"
        text = "".join(
            f"{name} {times[0]:%Y-%m-%dT%H:%M}\n" if times else f"{name} never\n" for name, times in runs.items()
        )
        checks.append({"kind": "text", "path": "first.txt", "text": text})
    if level > 2:
        most = max(sum(t in times for times in map(set, runs.values())) for t in window)
        told.append(
            "Write the largest number of jobs that run in one and the same minute of that time to /app/most.txt."
        )
        solve += "sets = [set(r) for r in runs.values()]\nprint(max(sum(t in s for s in sets) for t in window), file=open('most.txt', 'w'))\n"
        checks.append({"kind": "text", "path": "most.txt", "text": f"{most}\n"})
    lines = ["# jobs of the night and the day", *jobs]
    return Draft("\n".join(told), PYTHON.format(solve), checks, {"crontab.txt": "\n".join(lines) + "\n"})


def _field(rng: random.Random, level: int) -> str:
    minute = rng.choice(
        [str(rng.randint(0, 59)), f"*/{rng.choice([5, 10, 15, 20, 30])}", f"{rng.randint(0, 20)},{rng.randint(21, 59)}"]
    )
    hour = rng.choice(
        ["*", str(rng.randint(0, 23)), f"{rng.randint(0, 10)}-{rng.randint(11, 23)}", f"*/{rng.choice([2, 3, 4, 6])}"]
    )
    day = rng.choice(["*", "*", f"{rng.randint(1, 10)}-{rng.randint(11, 31)}"]) if level > 1 else "*"
    weekday = rng.choice(["*", "1-5", "0,6", str(rng.randint(0, 6))])
    return f"{minute} {hour} {day} * {weekday}"


_FORMATS = {
    "%d.%m.%Y %H:%M": "DD.MM.YYYY HH:MM",
    "%m/%d/%Y %I:%M %p": "MM/DD/YYYY hh:mm AM|PM",
    "%Y%m%dT%H%M": "YYYYMMDDTHHMM",
    "%d %b %Y, %H:%M": "DD Mon YYYY, HH:MM (English months)",
}


def dates(rng: random.Random, level: int) -> Draft:
    """Times in several notations and offsets from UTC, to be written in one, sorted, with the gaps between them."""
    formats = rng.sample(list(_FORMATS), 1 + level)
    offset = rng.choice([-8, -5, -3, 1, 2, 9]) if level > 1 else 0
    events = []
    for number in range(8 * level):
        when = moment(rng).replace(second=0)
        events.append((when, f"event{number}", (when + timedelta(hours=offset)).strftime(rng.choice(formats))))
    events_sorted = sorted(events)
    sign = f"UTC{offset:+d}" if offset else "UTC"
    told = [
        f"/app/events.txt has lines `name<tab>time`. Times are {sign}, in one of these notations: {'; '.join(_FORMATS[f] for f in formats)}.",
        "Write /app/timeline.txt: `YYYY-MM-DDTHH:MMZ name` in UTC, in order of time, equal times by name.",
    ]
    solve = f"""from datetime import datetime, timedelta
events = []
for line in open('events.txt'):
    name, text = line.rstrip('\\n').split('\\t')
    for form in {formats!r}:
        try: when = datetime.strptime(text, form) - timedelta(hours={offset})
        except ValueError: continue
        events.append((when, name)); break
events.sort()
open('timeline.txt', 'w').writelines(f"{{t.strftime('%Y-%m-%dT%H:%MZ')}} {{n}}\\n" for t, n in events)
"""
    text = "".join(f"{when:%Y-%m-%dT%H:%MZ} {name}\n" for when, name, _ in events_sorted)
    checks: list[dict[str, Any]] = [{"kind": "text", "path": "timeline.txt", "text": text}]
    if level > 1:
        first, last = events_sorted[0][0], events_sorted[-1][0]
        told.append(
            "Write /app/weekdays.txt: `Monday count` and so on to Sunday, the number of events on each day of the week in UTC, with 0 where there are none."
        )
        names = [datetime(2024, 1, 1 + d, tzinfo=UTC).strftime("%A") for d in range(7)]
        counted = [sum(when.weekday() == d for when, _, _ in events) for d in range(7)]
        solve += f"open('weekdays.txt', 'w').writelines(f'{{d}} {{sum(t.weekday() == i for t, _ in events)}}\\n' for i, d in enumerate({names!r}))\n"
        text = "".join(f"{name} {number}\n" for name, number in zip(names, counted))
        checks.append({"kind": "text", "path": "weekdays.txt", "text": text})
        if level > 2:
            told.append(
                "Write the whole number of days (24 hours each, rounded down) between the first and the last event to /app/span.txt."
            )
            solve += "print((events[-1][0] - events[0][0]).days, file=open('span.txt', 'w'))\n"
            checks.append({"kind": "text", "path": "span.txt", "text": f"{(last - first).days}\n"})
    files = {"events.txt": "".join(f"{name}\t{shown}\n" for _, name, shown in events)}
    return Draft("\n".join(told), PYTHON.format(solve), checks, files)
