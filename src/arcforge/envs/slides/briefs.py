"""What is asked for: a topic, an audience, and for every slide its heading, the points it must make, and a table to chart."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal, NamedTuple

from arcforge.core.messages import Value
from arcforge.core.words import NAMES
from arcforge.envs.slides.emblems import emblem

Kind = Literal["title", "points", "chart", "table", "closing"]
DOMAINS = ("page", "chart", "deck")
EMBLEM = "emblem.svg"


class Point(Value):
    """A point to make, and the facts that a reader must find on the slide word for word."""

    text: str
    facts: tuple[str, ...]


class Table(Value):
    """Values by name, with what they measure."""

    measure: str
    unit: str
    rows: tuple[tuple[str, int], ...]

    @property
    def highest(self) -> tuple[str, int]:
        return max(self.rows, key=lambda row: row[1])

    @property
    def lowest(self) -> tuple[str, int]:
        return min(self.rows, key=lambda row: row[1])


class SlideBrief(Value):
    """One slide. table: to be drawn as bars (kind "chart") or set as a table (kind "table"). image: a file to show."""

    kind: Kind
    heading: str
    points: tuple[Point, ...] = ()
    table: Table | None = None
    image: str = ""


class Brief(Value):
    """The whole request. files: relative path -> text of the pictures there are."""

    topic: str
    audience: str
    slides: tuple[SlideBrief, ...]
    files: dict[str, str] = {}

    @property
    def key(self) -> str:
        """What makes two briefs the same, for the splits."""
        return f"slides:{self.topic}:{'|'.join(slide.heading for slide in self.slides)}"

    @property
    def request(self) -> str:
        """The brief as the model reads it."""
        count = len(self.slides)
        lines = [f"Make {'one slide' if count == 1 else f'{count} slides'} on {self.topic} for {self.audience}."]
        for number, slide in enumerate(self.slides, 1):
            lines += ["", f"Slide {number} ({slide.kind}): {slide.heading}"]
            lines += [f"- {point.text}" for point in slide.points]
            if slide.table is not None:
                form = (
                    "as a bar chart, bars in proportion, each with its name and value"
                    if slide.kind == "chart"
                    else "as a table"
                )
                values = ", ".join(f"{name} {value:,}" for name, value in slide.table.rows)
                lines.append(f"- {form}: {slide.table.measure} in {slide.table.unit}: {values}")
            if slide.image:
                lines.append(f"- show the picture {slide.image}")
        if not self.files:
            lines += ["", "There are no picture files."]
        return "\n".join(lines)


class Subject(NamedTuple):
    """A world to report on. `plans` have one place for a number and one for a name."""

    topic: str
    audiences: tuple[str, ...]
    measure: str
    unit: str
    scale: int
    parts: tuple[str, ...]
    causes: tuple[str, ...]
    plans: tuple[str, ...]


SUBJECTS = (
    Subject(
        "the {name} bicycle scheme",
        ("the city council", "new volunteers"),
        "Trips per month",
        "trips",
        100,
        ("Centre", "Harbour", "Station", "University", "Old Town", "Airport"),
        ("new docking stations", "protected lanes", "cheaper day passes", "longer opening hours"),
        (
            "Open {n} docking stations near {name}",
            "Repair every bicycle within {n} hours",
            "Train {n} mechanics by autumn",
        ),
    ),
    Subject(
        "water quality in the {name} river",
        ("the regional assembly", "local schools"),
        "Nitrate load",
        "kg per day",
        10,
        ("Upper reach", "Mill dam", "Market bridge", "Estuary", "Side canal", "Reservoir"),
        ("fewer field drains", "a rebuilt treatment plant", "wider buffer strips", "a dry spring"),
        (
            "Sample {n} more points every week",
            "Plant {n} km of buffer strips at {name}",
            "Publish results within {n} days",
        ),
    ),
    Subject(
        "the {name} bakery's year",
        ("its owners", "the staff meeting"),
        "Loaves sold per week",
        "loaves",
        10,
        ("Rye", "Wheat", "Spelt", "Oat", "Sourdough", "Corn"),
        ("earlier opening", "the market stall", "school deliveries", "a second oven"),
        ("Hire {n} apprentices before spring", "Deliver to {n} more schools", "Bake {n} percent less surplus"),
    ),
    Subject(
        "energy use at {name} hospital",
        ("the facilities team", "the hospital's board"),
        "Electricity per month",
        "MWh",
        5,
        ("Theatres", "Wards", "Laundry", "Kitchen", "Imaging", "Laboratory"),
        ("sensors on the lights", "heat recovery", "newer pumps", "a cooler summer"),
        ("Replace {n} pumps in wing {name}", "Cut standby power by {n} percent", "Meter {n} departments one by one"),
    ),
    Subject(
        "reading in the {name} libraries",
        ("the friends of the library", "head librarians"),
        "Loans per month",
        "loans",
        50,
        ("Novels", "Comics", "Science", "History", "Cookery", "Travel"),
        ("evening hours", "school visits", "no late fees", "a book bus"),
        ("Open {n} evenings a week", "Visit {n} schools with the book bus", "Buy {n} copies of every wanted book"),
    ),
    Subject(
        "software delivery at {name} systems",
        ("engineering leads", "the steering group"),
        "Changes released",
        "changes",
        5,
        ("Payments", "Search", "Mobile", "Reports", "Identity", "Billing"),
        ("smaller changes", "faster tests", "one release train", "shared reviews"),
        (
            "Bring the test time below {n} minutes",
            "Release team {name} every {n} days",
            "Review each change within {n} hours",
        ),
    ),
)


def make(domain: str, rng: random.Random) -> Brief:
    """A brief of the domain: one slide of points, one with a chart, or a deck of five."""
    subject = rng.choice(SUBJECTS)
    name = rng.choice(NAMES).capitalize()
    topic = subject.topic.format(name=name)
    table, makers = _table(subject, rng), _MAKERS[domain]
    slides = tuple(maker(subject, topic, table, rng) for maker in makers)
    files = {EMBLEM: emblem(rng)} if any(slide.image for slide in slides) else {}
    return Brief(topic=topic, audience=rng.choice(subject.audiences), slides=slides, files=files)


Maker = Callable[[Subject, str, Table, random.Random], SlideBrief]


def _table(subject: Subject, rng: random.Random) -> Table:
    """Four or five rows of different values; the largest is at most four times the smallest."""
    parts = rng.sample(subject.parts, rng.randint(4, 5))
    values = rng.sample(range(20, 80), len(parts))
    rows = tuple((part, value * subject.scale) for part, value in zip(parts, values, strict=True))
    return Table(measure=subject.measure, unit=subject.unit, rows=rows)


def _title(subject: Subject, topic: str, table: Table, rng: random.Random) -> SlideBrief:
    year = rng.randint(2019, 2031)
    subtitle = Point(text=f"{subject.measure}, causes and plans for {year}", facts=(str(year), subject.measure))
    return SlideBrief(kind="title", heading=_capital(topic), points=(subtitle,), image=EMBLEM)


def _points(subject: Subject, topic: str, table: Table, rng: random.Random) -> SlideBrief:
    causes = rng.sample(subject.causes, 3)
    shares = sorted(rng.sample(range(8, 34), 3), reverse=True)
    points = [
        Point(text=f"{share}% of the change came from {cause}", facts=(cause, f"{share}%"))
        for cause, share in zip(causes, shares, strict=True)
    ]
    best, worst = table.highest[0], table.lowest[0]
    points.append(Point(text=f"{best} moved most and {worst} least", facts=(best, worst)))
    return SlideBrief(kind="points", heading=f"What changed {_where(topic)}", points=tuple(points))


def _chart(subject: Subject, topic: str, table: Table, rng: random.Random) -> SlideBrief:
    name, value = table.highest
    low, least = table.lowest
    points = (
        Point(text=f"{name} leads with {value:,} {table.unit}", facts=(name, f"{value:,}")),
        Point(text=f"{low} has {least:,}, {value / least:.1f} times less", facts=(low, f"{value / least:.1f} times")),
    )
    return SlideBrief(kind="chart", heading=f"{subject.measure} by part", points=points, table=table)


def _tabled(subject: Subject, topic: str, table: Table, rng: random.Random) -> SlideBrief:
    total = sum(value for _, value in table.rows)
    point = Point(text=f"Together {total:,} {table.unit}", facts=(f"{total:,}",))
    return SlideBrief(kind="table", heading=f"{subject.measure} in figures", points=(point,), table=table)


def _closing(subject: Subject, topic: str, table: Table, rng: random.Random) -> SlideBrief:
    points = []
    for plan in rng.sample(subject.plans, 3):
        number, name = rng.randint(2, 24), rng.choice(NAMES).capitalize()
        # With the word that it counts: a number alone would be met by that of a step or a page.
        counted = plan[plan.index("{n}") :].split()[:2]
        facts = (" ".join(counted).format(n=number), *([name] if "{name}" in plan else []))
        points.append(Point(text=plan.format(n=number, name=name), facts=facts))
    return SlideBrief(kind="closing", heading="What we do next", points=tuple(points))


_MAKERS: dict[str, tuple[Maker, ...]] = {
    "page": (_points,),
    "chart": (_chart,),
    "deck": (_title, _points, _chart, _tabled, _closing),
}


def _where(topic: str) -> str:
    return f"in {topic}" if topic.startswith("the ") else f"for {topic}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
