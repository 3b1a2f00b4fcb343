"""Trajectory files under kills."""

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from arcforge.core.errors import Failure, UserError
from arcforge.core.trajectory import TokenSpan, Trajectory
from arcforge.rollout.record import TrajectoryTail, TrajectoryWriter, read_trajectories


def trajectory(number, tokens=5):
    spans = [
        TokenSpan(ids=list(range(tokens)), source="prompt"),
        TokenSpan(ids=[7], source="model", logprobs=[-0.25], version=number, trained=True),
    ]
    failure = Failure(boundary="sandbox", reason="gone") if number % 3 == 0 else None
    return Trajectory(rollout_id=f"g/{number}", family="swe", task_id="t", spans=spans, reward=None, failure=failure)


def write(path, *batches):
    with TrajectoryWriter(path) as writer:
        for batch in batches:
            writer.append(*batch)


def names(path):
    return [t.rollout_id for t in read_trajectories(path)]


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "trajectories" / "rl-0.jsonl.zst"
    assert list(read_trajectories(path)) == []
    write(path, [trajectory(0), trajectory(1, tokens=100_000)], [], [trajectory(2)])
    write(path, [trajectory(3)])
    assert list(read_trajectories(path)) == [trajectory(0), trajectory(1, tokens=100_000), trajectory(2), trajectory(3)]


def test_each_append_is_one_whole_frame(tmp_path):
    path = tmp_path / "a.zst"
    write(path, [trajectory(0)])
    first = path.read_bytes()
    write(path, [trajectory(1)])
    data = path.read_bytes()
    assert data.startswith(first)
    lines = zstandard.ZstdDecompressor().decompress(data[len(first) :]).splitlines()
    assert [Trajectory.model_validate_json(line) for line in lines] == [trajectory(1)]


@settings(max_examples=40)
@given(cut=st.integers(0, 400), damaged=st.booleans())
def test_a_torn_tail_is_left_out_and_writing_goes_on(tmp_path_factory, cut, damaged):
    path = tmp_path_factory.mktemp("torn") / "a.zst"
    write(path, [trajectory(0)], [trajectory(1)])
    whole = path.stat().st_size
    write(path, [trajectory(2)])
    tail = path.read_bytes()[whole:]
    cut = min(cut, len(tail) - 1)
    torn = tail[:cut] + (bytes([tail[cut] ^ 0xFF]) + tail[cut + 1 :] if damaged else b"")
    path.write_bytes(path.read_bytes()[:whole] + torn)
    assert names(path) == ["g/0", "g/1"]
    write(path, [trajectory(3)])
    assert names(path) == ["g/0", "g/1", "g/3"]
    kept = path.with_name("a.zst.torn")
    assert (kept.read_bytes() if kept.exists() else b"") == torn


def test_a_tail_gives_each_trajectory_once(tmp_path):
    path = tmp_path / "a.zst"
    tail = TrajectoryTail(path)
    assert tail.poll() == []
    write(path, [trajectory(0), trajectory(1)])
    assert tail.poll() == [trajectory(0), trajectory(1)] and tail.poll() == []
    whole = path.stat().st_size
    write(path, [trajectory(2)], [trajectory(4)])
    data = path.read_bytes()
    path.write_bytes(data[: whole + 20])
    assert tail.poll() == []
    path.write_bytes(data)
    assert tail.poll() == [trajectory(2), trajectory(4)] and tail.poll() == []


def test_one_writer_at_a_time(tmp_path):
    path = tmp_path / "a.zst"
    with TrajectoryWriter(path), pytest.raises(UserError, match="another process"):
        TrajectoryWriter(path)
    write(path, [trajectory(0)])
