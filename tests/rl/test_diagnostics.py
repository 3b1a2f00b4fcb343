import json

import numpy as np
import pytest

from arcforge.core.trajectory import TokenSpan, Trajectory
from arcforge.rl.diagnostics import (
    RATIO_EDGES,
    fairness,
    group_metrics,
    histogram,
    histograms,
    merge,
    staleness_metrics,
    timeline,
)
from arcforge.rl.ledger import Dispatch, Ledger


def sampled_by(*versions):
    spans = [TokenSpan(ids=[1], source="model", logprobs=[0.0], version=v) for v in versions]
    return Trajectory(rollout_id="r", family="f", task_id="t", spans=spans, reward=1.0)


def test_histograms_clip_into_their_ends_count_everything_and_add():
    found = histogram([-5, 0, 0.5, 1, 2, 99], [0, 1, 2])
    assert found == {"edges": [0, 1, 2], "counts": [3, 3]}
    assert merge(merge(None, found), found)["counts"] == [6, 6]
    with pytest.raises(ValueError, match="different edges"):
        merge(found, histogram([], [0, 3]))


def test_one_step_gives_the_json_of_the_run_folder():
    ratios = np.array([[0.3, 0.5, 0.999], [1.0, 2.0, 1e9]], dtype=np.float32)
    found = json.loads(json.dumps(histograms([sampled_by(3), sampled_by(1, 4)], 4, ratios)))
    assert found["staleness"]["counts"][:4] == [0, 1, 0, 1] and sum(found["staleness"]["counts"]) == 2
    assert sum(found["ratio"]["counts"]) == 6 and found["ratio"]["counts"][-1] == 1
    assert {0.5, 1.0, 2.0} <= set(RATIO_EDGES)


def test_staleness_span_and_lag_are_three_numbers():
    found = staleness_metrics([sampled_by(3), sampled_by(1, 4)], version=5, published=4)
    assert found == {"staleness_mean": 3, "staleness_max": 4, "version_span_mean": 1.5, "publish_lag": 1}


def test_group_metrics_leave_failures_out_of_every_mean():
    found = group_metrics([[1, 1, None], [0, 1], [0, 0], [None, None]])
    assert found["reward"] == found["pass_rate"] == 0.5 and found["valid_share"] == pytest.approx(6 / 9)
    assert found["flat_share"] == pytest.approx(2 / 3)
    assert found["solved_share"] == found["unsolved_share"] == pytest.approx(1 / 3)
    assert group_metrics([])["reward"] == 0


def test_fairness_shows_a_family_that_is_dispatched_but_never_trained():
    ledger = Ledger()
    for n, family in enumerate(["fast", "slow", "fast", "slow"]):
        ledger.dispatch(
            Dispatch(counter=n, group_id=str(n), family=family, index=n, rollout_ids=(f"{n}-0",), version=0)
        )
    for n in (0, 2):
        ledger.finish(sampled_by(0).model_copy(update={"rollout_id": f"{n}-0"}))
    ledger.consume({"kind": "commit", "step": 1, "ids": ["0-0", "2-0"]})
    assert fairness(ledger) == {
        "fast": {"dispatched_share": 0.5, "trained_share": 1.0},
        "slow": {"dispatched_share": 0.5, "trained_share": 0.0},
    }


def test_timeline_says_who_waited_for_whom():
    rows = [
        {"time": 0.0, "who": "trainer", "kind": "stage_start"},
        {"time": 1.0, "who": "trainer", "kind": "wait_start", "for": "rollouts"},
        {"time": 4.0, "who": "trainer", "kind": "wait_end", "for": "rollouts"},
        {"time": 10.0, "who": "trainer", "kind": "stage_end"},
        {"time": 2.0, "who": "orchestrator", "kind": "wait_start", "for": "trainer"},
        {"time": 6.0, "who": "orchestrator", "kind": "update"},
        {"time": 5.0, "kind": "note"},
    ]
    found = timeline(reversed(rows))
    assert found["trainer"] == {"seconds": 10, "waited": {"rollouts": 3}, "busy_share": pytest.approx(0.7)}
    assert found["orchestrator"] == {"seconds": 4, "waited": {"trainer": 4}, "busy_share": 0}
    assert timeline([]) == {}
