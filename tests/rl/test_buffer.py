"""The buffer keeps its books under real `kill -9`, torn files, resumes and two sides that poll each other."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard

from arcforge.core.errors import Failure, UserError
from arcforge.core.trajectory import TokenSpan, Trajectory
from arcforge.rl.buffer import BufferFiles, BufferReader, BufferWriter, read_ledger
from arcforge.rl.ledger import Dispatch, LedgerError
from arcforge.rollout.record import read_trajectories


def dispatch(counter, size=2, version=0):
    ids = tuple(f"g{counter}-{i}" for i in range(size))
    return Dispatch(
        counter=counter, group_id=f"g{counter}", family="reason", index=counter, rollout_ids=ids, version=version
    )


def trajectory(rollout_id, reward=1.0, boundary=None, versions=(0,)):
    spans = [TokenSpan(ids=[1, 2], source="prompt")]
    spans += [TokenSpan(ids=[3], source="model", logprobs=[-0.5], version=v, trained=True) for v in versions]
    return Trajectory(
        rollout_id=rollout_id,
        group_id=rollout_id.partition("-")[0],
        family="reason",
        task_id="t",
        spans=spans,
        reward=None if boundary else reward,
        failure=Failure(boundary=boundary, reason="broken") if boundary else None,
    )


def fill(writer, counter, size=2, **kwargs):
    writer.dispatch(dispatch(counter, size))
    for rollout_id in dispatch(counter, size).rollout_ids:
        writer.finish(trajectory(rollout_id, **kwargs))


def ids(groups):
    return [t.rollout_id for group in groups for t in group.members]


def test_groups_come_in_order_of_finishing_and_are_given_once(tmp_path):
    writer, reader = BufferWriter(tmp_path, "rl"), BufferReader(tmp_path, "rl")
    for counter in range(3):
        writer.dispatch(dispatch(counter))
    for rollout_id in ("g1-0", "g0-0", "g1-1"):
        writer.finish(trajectory(rollout_id))
    assert reader.take(2, version=0) == []
    assert ids(reader.take(1, version=0)) == ["g1-0", "g1-1"]
    assert reader.take(1, version=0) == []
    writer.finish(trajectory("g0-1"))
    assert ids(reader.take(1, version=0)) == ["g0-0", "g0-1"]
    reader.commit(1, ["g1-0", "g1-1", "g0-0", "g0-1"])
    writer.poll()
    for side in (writer, reader):
        counts = side.ledger.counts()
        assert (counts.dispatched, counts.trained, counts.in_flight, counts.ready) == (6, 4, 2, 0) and counts.balanced
    assert read_ledger(tmp_path, "rl").counts() == writer.ledger.counts()


def test_failures_are_counted_by_boundary_and_a_group_lives_with_two_valid_members(tmp_path):
    writer, reader = BufferWriter(tmp_path, "rl"), BufferReader(tmp_path, "rl")
    for counter, boundaries in enumerate([(None, "tool", None), ("judge", None, "sandbox")]):
        writer.dispatch(dispatch(counter, size=3))
        for i, boundary in enumerate(boundaries):
            writer.finish(trajectory(f"g{counter}-{i}", boundary=boundary))
    (group,) = reader.take(1, version=0)
    assert ids([group]) == ["g0-0", "g0-2"] and group.size == 3
    counts = reader.ledger.counts()
    assert counts.failed == {"tool": 1, "judge": 1, "sandbox": 1} and counts.dropped == {"too_few_valid": 1}
    assert counts.balanced and reader.take(1, version=0) == []


def test_a_group_of_one_is_whole_by_design(tmp_path):
    writer, reader = BufferWriter(tmp_path, "opd"), BufferReader(tmp_path, "opd")
    fill(writer, 0, size=1)
    assert ids(reader.take(1, version=0)) == ["g0-0"]


def test_staleness_counts_from_the_oldest_version_that_sampled_a_token(tmp_path):
    writer, reader = BufferWriter(tmp_path, "rl"), BufferReader(tmp_path, "rl")
    writer.dispatch(dispatch(0, size=3))
    for i, versions in enumerate([(3,), (2, 5), (1, 5)]):
        writer.finish(trajectory(f"g0-{i}", versions=versions))
    fill(writer, 1, versions=(0,))
    (group,) = reader.take(1, version=5, max_staleness=lambda family: 3)
    assert ids([group]) == ["g0-0", "g0-1"]
    assert reader.ledger.counts().dropped == {"stale": 3}
    assert reader.take(1, version=5, max_staleness=lambda family: 3) == [] and reader.ledger.counts().balanced


def test_resume_gives_back_what_was_trained_after_the_checkpoint_and_nothing_else(tmp_path):
    writer, reader = BufferWriter(tmp_path, "rl"), BufferReader(tmp_path, "rl")
    for counter in range(4):
        fill(writer, counter)
    for step in (1, 2, 3):
        reader.commit(step, ids(reader.take(1, version=0)))
    reader.take(1, version=0)
    reader.close()
    resumed = BufferReader(tmp_path, "rl", step=2)
    assert ids(resumed.take(2, version=0)) == ["g2-0", "g2-1", "g3-0", "g3-1"]
    resumed.commit(3, ["g2-0", "g2-1"])
    writer.poll()
    assert writer.ledger.counts() == resumed.ledger.counts() == read_ledger(tmp_path, "rl").counts()
    assert writer.ledger.counts().trained == 6 and writer.ledger.step == 3


def test_rollouts_given_up_in_flight_stay_dropped_whatever_they_do_later(tmp_path):
    writer, reader = BufferWriter(tmp_path, "rl"), BufferReader(tmp_path, "rl")
    writer.dispatch(dispatch(0, size=4))
    writer.finish(trajectory("g0-0"))
    writer.finish(trajectory("g0-3"))
    reader.poll()
    reader.drop(["g0-1", "g0-2"], "stage_end")
    writer.finish(trajectory("g0-1", boundary="engine"))
    writer.poll()
    writer.finish(trajectory("g0-2"))
    assert ids(reader.take(1, version=0)) == ["g0-0", "g0-3"]
    assert writer.ledger.counts() == reader.ledger.counts() == read_ledger(tmp_path, "rl").counts()
    assert reader.ledger.counts().dropped == {"stage_end": 2}


def test_contradictions_are_refused(tmp_path):
    writer, reader = BufferWriter(tmp_path, "rl"), BufferReader(tmp_path, "rl")
    fill(writer, 0)
    with pytest.raises(LedgerError, match="twice"):
        writer.finish(trajectory("g0-0"))
    with pytest.raises(LedgerError, match="never dispatched"):
        writer.finish(trajectory("g9-0"))
    with pytest.raises(LedgerError, match="twice"):
        writer.dispatch(dispatch(0))
    reader.commit(1, ids(reader.take(1, version=0)))
    with pytest.raises(LedgerError, match="is trained"):
        reader.commit(2, ["g0-0"])
    assert len(list(read_trajectories(BufferFiles(tmp_path, "rl").trajectories))) == 2


def test_each_file_has_one_writer(tmp_path):
    writer, reader = BufferWriter(tmp_path, "rl"), BufferReader(tmp_path, "rl")
    with pytest.raises(UserError, match="another process writes here"):
        BufferWriter(tmp_path, "rl")
    with pytest.raises(UserError, match="another process writes here"):
        BufferReader(tmp_path, "rl")
    writer.close()
    reader.close()
    BufferWriter(tmp_path, "rl").close()


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_torn_tails_are_invisible_and_the_next_writer_continues_after_them(tmp_path, cut):
    writer, reader = BufferWriter(tmp_path, "rl"), BufferReader(tmp_path, "rl")
    fill(writer, 0)
    writer.dispatch(dispatch(1))
    writer.close()
    files = BufferFiles(tmp_path, "rl")
    for path in (files.trajectories, files.dispatched):
        whole = path.read_bytes()
        path.write_bytes(whole + whole[:cut])
    assert len(ids(reader.take(1, version=0))) == 2
    again = BufferWriter(tmp_path, "rl")
    for i in range(2):
        again.finish(trajectory(f"g1-{i}"))
    assert ids(reader.take(1, version=0)) == ["g1-0", "g1-1"]
    assert files.trajectories.with_name("rl-0.jsonl.zst.torn").read_bytes()


def test_frames_are_plain_zstd_that_any_tool_reads_and_their_checksum_is_checked(tmp_path):
    writer = BufferWriter(tmp_path, "rl")
    fill(writer, 0)
    path = BufferFiles(tmp_path, "rl").trajectories
    with zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True) as stream:
        rows = [json.loads(line) for line in stream.read().splitlines()]
    assert [row["rollout_id"] for row in rows] == ["g0-0", "g0-1"]
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(bytes(data))
    assert [t.rollout_id for t in read_trajectories(path)] == ["g0-0"]


def test_frames_larger_than_a_chunk_survive(tmp_path):
    writer = BufferWriter(tmp_path, "rl")
    rng = random.Random(0)
    big = trajectory("g0-0")
    big.spans[0].ids = [rng.randrange(1 << 40) for _ in range(60_000)]
    writer.dispatch(dispatch(0))
    writer.finish(big)
    writer.finish(trajectory("g0-1"))
    path = BufferFiles(tmp_path, "rl").trajectories
    assert path.stat().st_size > 3 * (1 << 16)
    assert [len(t.spans[0].ids) for t in read_trajectories(path)] == [60_000, 2]


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_buffer import dispatch, trajectory
from arcforge.rl.buffer import BufferWriter
writer = BufferWriter(Path(sys.argv[1]), "rl")
work = [i for _, members in writer.ledger.unfinished() for i in members]
counter = len(writer.ledger.dispatches)
while True:
    if not work:
        writer.dispatch(dispatch(counter, 3))
        work = list(dispatch(counter, 3).rollout_ids)
        counter += 1
    rollout_id = work.pop(0)
    writer.finish(trajectory(rollout_id, boundary="tool" if hash(rollout_id) % 7 == 0 else None))
    print(rollout_id, flush=True)
"""

TRAINER = """
import sys, time
from pathlib import Path
from arcforge.rl.buffer import BufferReader
folder = Path(sys.argv[1])
marks = folder / "checkpoint"
step = int(marks.read_text()) if marks.exists() else 0
reader = BufferReader(folder, "rl", step)
while True:
    groups = reader.take(1, version=0)
    if groups:
        step += 1
        reader.commit(step, [t.rollout_id for g in groups for t in g.members])
        (folder / "part").write_text(str(step))
        (folder / "part").rename(marks)
        print(step, flush=True)
    else:
        time.sleep(0.005)
"""


def killed_at_random(script, folder, delay, env=None):
    """Run a script, let it print its first line, kill -9 it `delay` seconds later; returns the lines it printed."""
    argv = [sys.executable, "-c", script, str(folder), str(Path(__file__).parent)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first, "the process died before its first line"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        return [first.strip(), *process.stdout.read().split()]


def test_kill_9_of_the_writer_loses_no_finished_trajectory_and_repeats_none(tmp_path):
    rng = random.Random(7)
    acknowledged = []
    reader = BufferReader(tmp_path, "rl")
    for step in range(1, 6):
        acknowledged += killed_at_random(WRITER, tmp_path, rng.uniform(0.0, 0.06), {"PYTHONHASHSEED": "1"})
        counts = read_ledger(tmp_path, "rl").counts()
        assert counts.balanced and counts.in_flight <= 3
        reader.commit(step, ids(reader.take(1, version=0)))
    finished = [t.rollout_id for t in read_trajectories(BufferFiles(tmp_path, "rl").trajectories)]
    assert len(finished) == len(set(finished))
    assert set(acknowledged) <= set(finished) and len(finished) - len(acknowledged) <= 5
    dispatched = [json.loads(line) for line in BufferFiles(tmp_path, "rl").dispatched.read_bytes().splitlines()]
    assert [row["counter"] for row in dispatched] == list(range(len(dispatched)))


def test_kill_9_of_the_trainer_trains_every_group_once_in_the_surviving_lineage(tmp_path):
    writer = BufferWriter(tmp_path, "rl")
    for counter in range(300):
        fill(writer, counter)
    rng = random.Random(11)
    for _ in range(3):
        killed_at_random(TRAINER, tmp_path, rng.uniform(0.0, 0.1))
        assert read_ledger(tmp_path, "rl").counts().balanced
    step = int((tmp_path / "checkpoint").read_text())
    reader = BufferReader(tmp_path, "rl", step)
    assert reader.ledger.counts().trained == 2 * step and reader.ledger.step == step
    rest = ids(reader.take(300 - step, version=0))
    assert len(rest) == len(set(rest)) == 600 - 2 * step
    writer.poll()
    assert writer.ledger.counts() == reader.ledger.counts()


def test_the_books_in_one_line(tmp_path):
    writer, reader = BufferWriter(tmp_path, "rl"), BufferReader(tmp_path, "rl")
    fill(writer, 0)
    fill(writer, 1, boundary="tool")
    fill(writer, 2)
    writer.dispatch(dispatch(3))
    reader.commit(1, ids(reader.take(1, version=0)))
    reader.drop(["g2-1"], "stale")
    counts = reader.ledger.counts()
    assert counts.balanced and counts.line == "8=2+1+2+1+2"
    assert counts.row() == {
        "books/dispatched": 8, "books/trained": 2, "books/dropped": 1, "books/failed": 2, "books/ready": 1, "books/in_flight": 2,
    }  # fmt: skip
