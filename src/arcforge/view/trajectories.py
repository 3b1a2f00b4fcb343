"""Trajectories of a run: scan them all for their outlines, pick a mix worth looking at, load the picked ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import zstandard
from pydantic import ValidationError

from arcforge.core.errors import UserError
from arcforge.core.trajectory import Trajectory

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
CHUNK = 1 << 16


@dataclass(frozen=True)
class Outline:
    """One line of a trajectory file in short. `tokens`: all ids, `sampled`: the model's, `turns`: its stretches."""

    file: Path
    line: int
    stage: str
    rollout_id: str
    task_id: str
    reward: float | None
    boundary: str
    stop_reason: str
    tokens: int
    sampled: int
    turns: int
    versions: tuple[int, ...]


def read_lines(path: Path) -> Iterator[bytes]:
    """Lines of a file of appended zstd frames. A frame torn by a kill is skipped and hides no later frame."""
    data, position = path.read_bytes(), 0
    while 0 <= position < len(data):
        decoder, parts, fed = zstandard.ZstdDecompressor().decompressobj(), [], position
        try:
            while not decoder.eof and fed < len(data):
                parts.append(decoder.decompress(data[fed : fed + CHUNK]))
                fed = min(fed + CHUNK, len(data))
        except zstandard.ZstdError:
            parts = []
        if decoder.eof:
            yield from b"".join(parts).splitlines()
            position = fed - len(decoder.unused_data)
        else:
            position = data.find(ZSTD_MAGIC, position + 1)


def scan(run: Path, stage: str = "") -> list[Outline]:
    """Outlines of every trajectory (of one stage, if named) in file order; lines torn by a kill are left out."""
    found = []
    for file in sorted((run / "trajectories").glob("*.jsonl.zst")):
        name = file.name.removesuffix(".jsonl.zst").rpartition("-")[0]
        if stage and name != stage:
            continue
        for number, line in enumerate(read_lines(file)):
            try:
                row = json.loads(line)
            except ValueError:
                continue
            found.append(_outline(file, number, name, row))
    return found


def choose(outlines: Sequence[Outline], limit: int) -> list[Outline]:
    """At most `limit` of one stage: up to a fifth failed, the rest half best, half worst; ties fall the same way."""
    failed = sorted((o for o in outlines if o.reward is None), key=_shuffled)[: max(1, limit // 5)]
    graded = sorted((o for o in outlines if o.reward is not None), key=lambda o: (-(o.reward or 0.0), _shuffled(o)))
    room = limit - len(failed)
    picked = graded if len(graded) <= room else graded[: room - room // 2] + graded[len(graded) - room // 2 :]
    return sorted([*failed, *picked], key=lambda o: (o.file, o.line))


def load(outlines: Sequence[Outline]) -> list[Trajectory]:
    """The whole trajectories of the outlines, in the same order. UserError names a line that is not a trajectory."""
    lines: dict[tuple[Path, int], bytes] = {}
    for file in dict.fromkeys(o.file for o in outlines):
        wanted = {o.line for o in outlines if o.file == file}
        lines |= {(file, number): line for number, line in enumerate(read_lines(file)) if number in wanted}
    try:
        return [Trajectory.model_validate_json(lines[o.file, o.line]) for o in outlines]
    except ValidationError as error:
        raise UserError(f"{outlines[0].file.parent}: not a trajectory: {error.errors()[0]['msg']}") from None


def _outline(file: Path, number: int, stage: str, row: dict) -> Outline:
    spans = row.get("spans", [])
    sources = ["prompt"] + [span["source"] for span in spans]
    return Outline(
        file=file,
        line=number,
        stage=stage,
        rollout_id=row["rollout_id"],
        task_id=row["task_id"],
        reward=row.get("reward"),
        boundary=(row.get("failure") or {}).get("boundary", ""),
        stop_reason=row.get("stop_reason", ""),
        tokens=sum(len(span["ids"]) for span in spans),
        sampled=sum(len(span["ids"]) for span in spans if span["source"] == "model"),
        turns=sum(a == "prompt" and b == "model" for a, b in zip(sources, sources[1:])),
        versions=tuple(dict.fromkeys(span["version"] for span in spans if span["source"] == "model")),
    )


def _shuffled(outline: Outline) -> bytes:
    return hashlib.blake2b(f"{outline.file.name}:{outline.line}".encode(), digest_size=8).digest()
