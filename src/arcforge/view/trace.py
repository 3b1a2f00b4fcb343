"""A trajectory in the terminal: its spans with their origin, or one line per token."""

from __future__ import annotations

import math
from pathlib import Path

from arcforge.core.errors import UserError
from arcforge.core.trajectory import TokenSpan, Trajectory
from arcforge.view.charts import number
from arcforge.view.pieces import Pieces
from arcforge.view.table import table
from arcforge.view.trajectories import Outline, load, scan

GREEN, YELLOW, RED, DIM, BOLD, END = "\033[32m", "\033[33m", "\033[31m", "\033[2m", "\033[1m", "\033[0m"
LIKELY, DOUBTFUL = math.log(0.5), math.log(0.1)


def listing(run: Path, stage: str = "", limit: int = 20) -> str:
    """A table of trajectories, the newest last. UserError when there are none."""
    outlines = _scan(run, stage)
    rows = [
        [o.rollout_id, o.stage, o.task_id, number(o.reward), o.boundary or o.stop_reason, str(o.turns), str(o.tokens)]
        for o in outlines[-limit:]
    ]
    shown = table(["rollout", "stage", "task", "reward", "ended", "turns", "tokens"], rows)
    return f"{shown}\n{len(rows)} of {len(outlines)} trajectories"


def trace(run: Path, rollout_id: str, *, tokens: bool = False, colour: bool = True) -> str:
    """The trajectories of one rollout (several where its history forked) as text. UserError when there are none."""
    found = [o for o in _scan(run, "") if o.rollout_id == rollout_id]
    if not found:
        raise UserError(f"{run}: no trajectory of rollout {rollout_id!r}; `arcforge trace {run}` lists them")
    pieces = Pieces.of_run(run)
    texts = [_trajectory(t, pieces, tokens, colour) for t in load(found)]
    return "\n\n".join(texts)


def _scan(run: Path, stage: str) -> list[Outline]:
    if not run.is_dir():
        raise UserError(f"{run}: no such run folder")
    outlines = scan(run, stage)
    if not outlines:
        raise UserError(f"{run}: no trajectories{f' of stage {stage}' if stage else ''} here")
    return outlines


def _trajectory(trajectory: Trajectory, pieces: Pieces, tokens: bool, colour: bool) -> str:
    failure = trajectory.failure
    ended = f"failed at {failure.boundary}: {failure.reason}" if failure else trajectory.stop_reason
    head = f"{trajectory.rollout_id}  task {trajectory.task_id}  reward {number(trajectory.reward)}  {ended}"
    if trajectory.forked_from >= 0:
        head += f"  (forked from span {trajectory.forked_from})"
    draw = _token_lines if tokens else _span_text
    return "\n".join([_paint(head, BOLD, colour), *(draw(span, pieces, colour) for span in trajectory.spans)])


def _span_head(span: TokenSpan) -> str:
    if span.source == "prompt":
        return f"── prompt, {len(span.ids)} tokens"
    mean = sum(span.logprobs) / max(len(span.logprobs), 1)
    use = "trained" if span.trained else f"masked: {span.mask_reason or 'no reason given'}"
    return f"── model v{span.version}, {len(span.ids)} tokens, mean logprob {mean:.2f}, {use}"


def _span_text(span: TokenSpan, pieces: Pieces, colour: bool) -> str:
    logprobs = span.logprobs or [None] * len(span.ids)
    text = "".join(_paint(pieces.text(i), _tint(span, logprob), colour) for i, logprob in zip(span.ids, logprobs))
    return f"{_paint(_span_head(span), DIM, colour)}\n{text}"


def _token_lines(span: TokenSpan, pieces: Pieces, colour: bool) -> str:
    logprobs = span.logprobs or [None] * len(span.ids)
    lines = [_paint(_span_head(span), DIM, colour)]
    for index, logprob in zip(span.ids, logprobs):
        piece = _paint(repr(pieces.text(index)), _tint(span, logprob), colour)
        lines.append(f"{index:>7}  {'' if logprob is None else f'{logprob:.3f}':>8}  {piece}")
    return "\n".join(lines)


def _tint(span: TokenSpan, logprob: float | None) -> str:
    """Sampled tokens by how sure the model was; the context stays dim."""
    if logprob is None or span.source == "prompt":
        return DIM
    return GREEN if logprob >= LIKELY else YELLOW if logprob >= DOUBTFUL else RED


def _paint(text: str, code: str, colour: bool) -> str:
    return f"{code}{text}{END}" if colour else text
