"""Trajectories against the engine's record: what agrees is verified, and every way to differ is told by its place."""

from collections.abc import Sequence

import pytest

from arcforge.core.errors import UserError
from arcforge.core.trajectory import TokenSpan, Trajectory
from arcforge.rl.verify import verify
from arcforge.rollout.record import TrajectoryWriter
from arcforge.serve.record import EngineRecord

RUN = "0123456789ab"


def prompt(*ids: int, reason: str = "prompt") -> TokenSpan:
    return TokenSpan(ids=list(ids), source="prompt", mask_reason=reason)


def model(*ids: int, version: int = 1) -> TokenSpan:
    return TokenSpan(ids=list(ids), source="model", logprobs=[-0.5] * len(ids), version=version, trained=True)


# Two turns in one context, the second under two versions, then a fork that starts afresh.
SPANS = [
    prompt(1, 2, 3),
    model(4, 5),
    prompt(6),
    model(7, version=1),
    model(8, 9, version=2),
    prompt(1, 2, reason="context"),
    model(4, version=2),
]
REQUESTS = [
    ([1, 2, 3], [model(4, 5)]),
    ([1, 2, 3, 4, 5, 6], [model(7, version=1), model(8, 9, version=2)]),
    ([1, 2], [model(4, version=2)]),
]


class Run:
    """A run folder of one stage with an engine record, and one without."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        self.record = EngineRecord(folder / "stages" / "08-agentic_rl" / "engine-0.jsonl")
        self.other = EngineRecord(folder / "stages" / "08-agentic_rl" / "engine-1.jsonl")

    def consume(self, requests: Sequence, rollout: str = "swe-1", finish: str = "stop", record=None) -> None:
        for ids, spans in requests:
            (record or self.record).add(f"{rollout}-{RUN}-{self.count}", ids, spans, finish)
            self.count += 1

    def write(self, *spans: TokenSpan, rollout: str = "swe-1", stage: str = "agentic_rl") -> None:
        with TrajectoryWriter(self.folder / "trajectories" / f"{stage}-0.jsonl.zst") as writer:
            writer.append(Trajectory(rollout_id=rollout, family="swe", task_id="swe/1", spans=list(spans), reward=1.0))


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_what_the_engines_wrote_down_verifies_every_turn_of_every_fork(run):
    run.consume(REQUESTS[:2])
    run.consume(REQUESTS[2:], record=run.other)
    run.consume(REQUESTS, rollout="swe-10")  # a name that begins alike
    run.write(*SPANS)
    run.write(*SPANS, rollout="swe-10")
    run.write(rollout="swe-2")  # failed before its first turn
    run.write(*SPANS, stage="reasoning_rl")
    judged, other = verify(run.folder)
    assert (judged.stage, judged.trajectories, judged.verified, judged.unused) == ("agentic_rl", 3, 6, 0)
    assert not judged.faults and judged.recorded
    assert (other.stage, other.recorded, other.trajectories, other.verified) == ("reasoning_rl", False, 1, 0)
    assert [check.stage for check in verify(run.folder, "agentic_rl")] == ["agentic_rl"]


def changed(index, **update):
    return [span.model_copy(update=update) if i == index else span for i, span in enumerate(SPANS)]


@pytest.mark.parametrize(
    ("spans", "faults"),
    [
        # A sampled id that is another: this turn's output, and the prompts of those after it in the fork.
        (changed(1, ids=[4, 6]), [(1, "output of 2 ids, the engine's 2 are others"), (2, "prompt of 6 ids")]),
        # An id that the engine never saw, and one that is counted twice.
        (changed(2, ids=[6, 6]), [(2, "prompt of 7 ids, the engine's 6 are others")]),
        (changed(5, ids=[1, 3]), [(3, "prompt of 2 ids, the engine's 2 are others")]),
        # Weights that did not sample it, or another share of it.
        (changed(6, version=3), [(3, "weights v3[0:1], the engine's v2[0:1]")]),
        (
            [*SPANS[:3], model(7, 8), model(9, version=2)],
            [(2, "weights v1[0:2] v2[2:3], the engine's v1[0:1] v2[1:3]")],
        ),
    ],
)
def test_a_turn_that_differs_is_told_with_its_rollout_its_number_and_what(run, spans, faults):
    run.consume(REQUESTS)
    run.write(*spans)
    (found,) = verify(run.folder)
    assert found.differing == len(faults) and not found.missing
    for fault, (turn, what) in zip(found.faults, faults, strict=True):
        assert fault.rollout_id == "swe-1" and fault.turn == turn and fault.what.startswith(what)
        assert f"swe-1-{RUN}" in fault.what
    forks_checked = sum(span.mask_reason == "context" for span in spans) + 2
    assert found.verified == forks_checked - len(faults)


def test_a_turn_without_a_request_is_missing_and_a_request_without_a_turn_is_counted(run):
    run.consume([REQUESTS[0], ([1, 2, 3, 4, 5], [model(7)])])
    run.consume(REQUESTS[1:2], finish="abort")  # nobody had this answer
    run.write(*SPANS)
    (found,) = verify(run.folder)
    assert (found.verified, found.missing, found.differing, found.unused) == (1, 2, 0, 1)
    assert [(fault.turn, fault.missing) for fault in found.faults] == [(2, True), (3, True)]


def test_a_request_stands_for_one_turn_only(run):
    run.consume(REQUESTS)
    run.write(*SPANS, *SPANS[5:])
    (found,) = verify(run.folder)
    assert (found.verified, found.missing) == (3, 1) and found.faults[0].turn == 4


def test_several_trajectories_of_one_rollout_share_its_requests(run):
    run.consume(REQUESTS)
    run.write(*SPANS[:5])
    run.write(*SPANS[5:])
    (found,) = verify(run.folder)
    assert (found.verified, found.faults, found.unused) == (3, [], 0)


def test_a_line_that_a_killed_engine_left_torn_costs_nothing_but_itself(run):
    run.consume(REQUESTS[:1])
    path = run.folder / "stages" / "08-agentic_rl" / "engine-0.jsonl"
    with open(path, "ab") as file:
        file.write(b'{"rid": "swe-1-')
    run.consume(REQUESTS[1:], record=EngineRecord(path))
    run.write(*SPANS)
    (found,) = verify(run.folder)
    assert found.verified == 3 and not found.faults


def test_folders_without_trajectories_are_user_errors(run, tmp_path):
    with pytest.raises(UserError, match="no such run folder"):
        verify(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no trajectories"):
        verify(run.folder)
    with pytest.raises(UserError, match="cannot be written"):
        EngineRecord(run.folder)
