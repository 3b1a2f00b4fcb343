"""What an arm of asynchronous RL measured, from the files that it leaves."""

import json

import pytest

from arcforge.claims import twins
from arcforge.core.metrics import JsonLines
from arcforge.core.runs import RunFolder
from arcforge.core.trajectory import Trajectory
from arcforge.pipeline.run import flat
from arcforge.rl.buffer import BufferWriter
from arcforge.rl.ledger import Dispatch

STAGE = "agentic_rl"


def events_of_a_run():
    """The engines have the first weights at 10 s; batches end at 16 s and 20 s, the second of the trainer's waits at 18 s."""
    return [
        (5.0, "trainer", "publish", {"version": 0}),
        (5.1, "trainer", "wait_start", {"for": "rollouts"}),
        (10.0, "orchestrator", "update", {"version": 0}),
        (14.0, "trainer", "wait_end", {"for": "rollouts"}),
        (16.0, "trainer", "batch", {"step": 1, "seconds": 2.0}),
        (16.5, "orchestrator", "update", {"version": 1}),
        (17.0, "trainer", "wait_start", {"for": "rollouts"}),
        (18.0, "trainer", "wait_end", {"for": "rollouts"}),
        (20.0, "trainer", "batch", {"step": 2, "seconds": 2.0}),
        (25.0, "orchestrator", "update", {"version": 2}),
    ]


@pytest.fixture
def run(tmp_path):
    """A run folder of two updates. Rollouts were in flight from 10 to 13 and from 17 to 19 seconds."""
    run = RunFolder(tmp_path / "run").create()
    rows = [
        {"time": time, "who": who, "kind": kind, "stage": STAGE, **more} for time, who, kind, more in events_of_a_run()
    ]
    run.events.write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = JsonLines(run.metrics)
    for step, reward in ((1, 0.25), (2, 0.75)):
        metrics.write({"stage": STAGE, "step": step, "reward": reward})
    metrics.close()
    writer = BufferWriter(run.trajectories, STAGE)
    for counter, (started, finished) in enumerate([(10.0, 12.5), (17.0, 19.0)]):
        ids = (f"g{counter}-0", f"g{counter}-1")
        writer.dispatch(
            Dispatch(counter=counter, group_id=f"g{counter}", family="swe", index=0, rollout_ids=ids, version=0)
        )
        for late, rollout_id in enumerate(ids):
            end = finished + 0.5 * late if counter == 0 else finished
            writer.finish(
                Trajectory(
                    rollout_id=rollout_id, group_id=f"g{counter}", family="swe", task_id="t", reward=1.0,
                    started=started, finished=end,
                )
            )  # fmt: skip
    yield run, writer
    writer.close()


def test_the_clock_runs_from_the_first_weights_in_the_engines_to_the_last_batch(run):
    found = twins.measured(run[0], steps=2)
    assert found["wall_seconds"] == pytest.approx(10.0) and found["updates_per_minute"] == pytest.approx(12.0)
    assert found["reward"] == 0.5 and found["trainer_busy"] == 4.0
    assert found["trainer_waits"] == pytest.approx(4.0 + 1.0), "what was waited before the clock ran is left out"
    assert found["engines_idle"] == pytest.approx(4.0 + 1.0)


def test_rollouts_in_flight_at_the_end_kept_the_engines_busy(run):
    folder, writer = run
    writer.dispatch(Dispatch(counter=2, group_id="g2", family="swe", index=0, rollout_ids=("g2-0",), version=1))
    assert twins.measured(folder, steps=2)["engines_idle"] == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("spans", "gap"),
    [([], 10), ([(0, 20)], 0), ([(2, 4), (3, 5), (5, 9)], 3), ([(-5, -1), (8, 30)], 8), ([(11, 12)], 10)],
)
def test_uncovered_seconds(spans, gap):
    assert twins.uncovered(spans, 0, 10) == gap


def test_ratios_are_of_medians_and_of_rounds():
    ratios = twins._ratios([60, 90, 50], [100, 100, 100])
    assert ratios == {"medians": 0.6, "rounds": [0.6, 0.9, 0.5]}
    assert "0.60 of the time of synchronous RL (rounds 0.50 to 0.90)" in twins._said("synchronous", ratios)


def test_arms_differ_in_their_placement_alone(work, tmp_path):
    told = {}
    for arm in twins.ARMS:
        mine = twins.arm_workspace(work, 7, tmp_path / arm, arm)
        assert mine.seed(STAGE) == work.seed(STAGE) and mine.run.path == tmp_path / arm
        before, after = (flat(recipe.model_dump()) for recipe in (work.recipe, mine.recipe))
        changed = {key: value for key, value in after.items() if value != before[key] and key != "run.folder"}
        told[arm] = {key.removeprefix("agentic_rl."): value for key, value in changed.items()}
    assert told == {
        "asynchronous": {"steps": 7},
        "synchronous": {"steps": 7, "synchronous": True},
        "synchronous_both_cores": {"steps": 7, "synchronous": True, "engines": 2, "trainer_threads": 2},
    }
