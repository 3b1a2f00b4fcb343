import json
import math
import random

import numpy as np
import pytest
import torch
from tiny_model import CONFIG

from arcforge.core.metrics import JsonLines
from arcforge.core.runs import read_jsonl
from arcforge.core.trajectory import TokenSpan, Trajectory
from arcforge.model.initialise import new_model
from arcforge.rl.diagnostics import (
    MISMATCH_LIMIT,
    RATIO_EDGES,
    TrainedTokens,
    buckets,
    fairness,
    group_metrics,
    histogram,
    histograms,
    merge,
    mismatch_alarm,
    mismatch_metrics,
    staleness_metrics,
    step_metrics,
)
from arcforge.rl.ledger import Dispatch, Ledger
from arcforge.rl.losses import double_sided
from arcforge.rl.policy import Policy, Update
from arcforge.rl.samples import build_batch, group_samples


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
    found = staleness_metrics([sampled_by(3), sampled_by(1, 4)], version=5, lag=1)
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
        "fast": {"dispatched_share": 0.5, "trained_share": 1.0, "trained_over_dispatched": 2.0},
        "slow": {"dispatched_share": 0.5, "trained_share": 0.0, "trained_over_dispatched": 0.0},
    }


VERSION = 12
FAMILIES = ("swe", "reason", "chat")
SEEN = {"swe": [12, 12, 11], "reason": [9, 12], "chat": [2, 12]}
"""Versions of the turns of each family's rollouts."""


def rollout(family, number, versions, rng):
    """Turns of a few tokens behind a prompt that its group shares; log-probs tell all tokens apart."""
    spans = [TokenSpan(ids=[100 + FAMILIES.index(family)] * 6, source="prompt")]
    for version in versions:
        logprobs = [-rng.uniform(0.1, 3) for _ in range(rng.randint(1, 5))]
        ids = [rng.randrange(200) for _ in logprobs]
        spans.append(TokenSpan(ids=ids, source="model", logprobs=logprobs, version=version, trained=True))
        spans.append(TokenSpan(ids=[7, 7], source="prompt"))
    reward = round(rng.random(), 3)
    return Trajectory(rollout_id=f"{family}-{number}", family=family, task_id="t", spans=spans, reward=reward)


@pytest.fixture
def step():
    """A step of three groups of different staleness, packed, with a ratio and a fate for every trained token. Returns what
    `step_metrics` takes, and the tokens as plain tuples in the order of trajectories."""
    rng = random.Random(5)
    groups = [[rollout(family, n, SEEN[family], rng) for n in range(4)] for family in FAMILIES]
    samples = [s for group in groups for s in group_samples(group, [1.0, -1.0, 0.5, -0.5], len(groups))]
    batch = build_batch(samples, 40, pad_id=0)
    assert len(batch.rows) > 2 and max(batch.shared) > 0
    fate, tokens = {}, []
    for trajectory in (t for group in groups for t in group):
        for span in (s for s in trajectory.spans if s.trained):
            for logprob in span.logprobs:
                ratio = math.exp(rng.gauss(0, 0.8))
                fate[np.float32(logprob)] = (ratio, 0.5 < ratio < 2)
                tokens.append((trajectory, VERSION - span.version, logprob, *fate[np.float32(logprob)]))
    order = [fate[p] for p in batch.logprobs[batch.rows.loss_mask]]
    return groups, batch, update_of(batch, *zip(*order)), tokens


def update_of(batch, ratios, kept):
    trained = batch.rows.loss_mask
    return Update(
        metrics={},
        train_logprobs=batch.logprobs[trained] + np.log(ratios).astype(np.float32),
        ratios=np.array(ratios, dtype=np.float32),
        kept=np.array(kept),
        samples=batch.rows.document_ids[trained],
        versions=batch.versions[trained],
    )


def expected_part(members, tokens):
    """The definitions, token by token."""
    ratios = [ratio for *_, ratio, _ in tokens]
    n = len(tokens)
    found = {
        "rollouts": len(members),
        "tokens": n,
        "ratio_mean": sum(ratios) / n,
        "clip_low_share": sum(not kept and ratio < 1 for *_, ratio, kept in tokens) / n,
        "clip_high_share": sum(not kept and ratio >= 1 for *_, ratio, kept in tokens) / n,
        "ess": sum(ratios) ** 2 / n / sum(r * r for r in ratios),
        "kl_k1": sum(-math.log(r) for r in ratios) / n,
        "kl_k3": sum(r - 1 - math.log(r) for r in ratios) / n,
        "entropy": sum(-logprob for _, _, logprob, *_ in tokens) / n,
    }
    if members:
        sampled = [sum(len(s.ids) for s in t.spans if s.source == "model") for t in members]
        found["reward"] = sum(t.reward for t in members) / len(members)
        found["response_tokens"] = sum(sampled) / len(members)
    return found


def under(row, prefix):
    return {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}


def test_a_steps_row_holds_every_metric_of_all_of_each_family_and_of_each_staleness(step):
    groups, batch, update, tokens = step
    members = [t for group in groups for t in group]
    row = step_metrics(groups, batch, update, VERSION)
    assert {k: row[k] for k in expected_part(members, tokens)} == pytest.approx(expected_part(members, tokens))
    for family in FAMILIES:
        mine = [token for token in tokens if token[0].family == family]
        found = under(row, f"by_family/{family}/")
        expected = expected_part([t for t in members if t.family == family], mine)
        assert {k: found.get(k) for k in expected} == pytest.approx(expected), family
        assert set(found) == set(expected) | {"ratio_p01", "ratio_p99"}
    whole = {"0": [], "1": groups[0], "2": [], "3-4": groups[1], "5-8": [], "9+": groups[2]}
    for name, (first, last) in {"0": (0, 0), "1": (1, 1), "3-4": (3, 4), "9+": (9, 99)}.items():
        aged = [token for token in tokens if first <= token[1] <= last]
        found, expected = under(row, f"by_staleness/{name}/"), expected_part(whole[name], aged)
        assert {k: found.get(k) for k in expected} == pytest.approx(expected), name
    assert not under(row, "by_staleness/2/") and not under(row, "by_staleness/5-8/")
    assert "by_staleness/0/reward" not in row, "no rollout was sampled by version 12 alone"
    assert row["staleness_max"] == 10 and row["publish_lag"] == 0 and row["valid_share"] == 1
    assert all(isinstance(value, float) and math.isfinite(value) for value in row.values())
    assert row["ratio_p01"] == pytest.approx(np.quantile(update.ratios, 0.01))


def test_mismatch_is_told_by_the_trainers_own_version_and_only_with_unmoved_weights(step):
    groups, batch, update, tokens = step
    gaps = [abs(math.log(ratio)) for _, age, _, ratio, _ in tokens if age == 0]
    row = step_metrics(groups, batch, update, VERSION)
    assert row["mismatch_tokens"] == len(gaps) < len(tokens)
    assert row["mismatch_mean"] == pytest.approx(np.mean(gaps), rel=1e-5)
    assert row["mismatch_p99"] == pytest.approx(np.quantile(gaps, 0.99), rel=1e-5)
    ahead = step_metrics(groups, batch, update, VERSION, lag=2)
    assert not under(ahead, "mismatch") and ahead["publish_lag"] == 2
    assert {**ahead, "publish_lag": 0} == {k: v for k, v in row.items() if not k.startswith("mismatch")}
    assert under(step_metrics(groups, batch, update, VERSION + 1), "mismatch") == {"_tokens": 0}


def test_the_alarm_speaks_over_its_limit_and_for_what_is_no_number(tmp_path):
    assert mismatch_alarm(None, "agentic_rl", 3) is None and mismatch_alarm(MISMATCH_LIMIT, "agentic_rl", 3) is None
    log = JsonLines(tmp_path / "events.jsonl")
    for value in (0.2, float("nan")):
        log.write(mismatch_alarm(value, "agentic_rl", 3, limit=0.1))
    over, broken = read_jsonl(tmp_path / "events.jsonl")
    assert (over["who"], over["kind"], over["what"], over["step"]) == ("trainer", "alarm", "mismatch", 3)
    assert over["value"] == 0.2 and over["limit"] == 0.1 and "0.2 nats" in over["text"]
    assert broken["value"] is None and "nan nats" in broken["text"]


def test_starvation_stands_in_the_row_of_each_family(step):
    groups, batch, update, _ = step
    ledger = Ledger()
    for n, family in enumerate(["swe", "swe", "reason", "waiting"]):
        ledger.dispatch(
            Dispatch(counter=n, group_id=str(n), family=family, index=n, rollout_ids=(f"{n}-0",), version=0)
        )
    for n in (0, 2):
        ledger.finish(sampled_by(0).model_copy(update={"rollout_id": f"{n}-0"}))
    ledger.consume({"kind": "commit", "step": 1, "ids": ["0-0", "2-0"]})
    row = step_metrics(groups, batch, update, VERSION, ledger=ledger)
    found = {k: v for k, v in row.items() if k.endswith("trained_over_dispatched")}
    name = "by_family/{}/trained_over_dispatched".format
    assert found == {name("swe"): 1.0, name("reason"): 2.0, name("waiting"): 0.0}


def test_histograms_by_family_and_age_add_up_to_the_whole(step):
    groups, batch, update, tokens = step
    members = [t for group in groups for t in group]
    plain, found = (histograms(members, VERSION, update.ratios, of) for of in (None, batch))
    assert {name: found[name] for name in plain} == plain
    for kind, count in (("by_family/", 3), ("by_staleness/", 4)):
        parts = list(under(found, kind).values())
        assert len(parts) == count
        assert np.sum([part["counts"] for part in parts], axis=0).tolist() == found["ratio"]["counts"]
    swe = histogram([ratio for t, _, _, ratio, _ in tokens if t.family == "swe"], RATIO_EDGES)
    assert found["by_family/swe/ratio"] == swe


def test_an_update_of_another_batch_is_refused(step):
    groups, batch, update, _ = step
    other = build_batch(batch.samples[1:], 40, pad_id=0)
    with pytest.raises(ValueError, match=f"an update of {len(update.ratios)} tokens"):
        step_metrics(groups, other, update, VERSION)


def test_buckets():
    found = buckets([0, 1, 2, 3, 4, 5, 8, 9, 1000]).tolist()
    assert found == ["0", "1", "2", "3-4", "3-4", "5-8", "5-8", "9+", "9+"]


def test_an_updates_ratios_are_those_of_the_tokens_they_are_put_to(step):
    """Against each sample's log-probs alone in a row: the update's packing order is the one read here."""
    _, batch, _, _ = step
    model = new_model(CONFIG, seed=0).eval()
    alone = []
    for sample in batch.samples:
        row = torch.from_numpy(sample.ids.astype(np.int64))[None]
        with torch.no_grad():
            hidden = model(row, model.layout(torch.zeros_like(row), sparse=True)).hidden_BTD
            scores = model.lm_head(hidden[0, :-1]).log_softmax(-1).gather(1, row[0, 1:, None]).squeeze(1)
        alone.append(scores.numpy())

    def loss(train, rollout, scores, mask, weights):
        return double_sided(train, rollout, scores, mask, weights_BT=weights)

    update = Policy(model, lr=1e-3).update(batch, batch.advantages, loss)
    tokens = TrainedTokens.of(batch, update, VERSION)
    for number, sample in enumerate(batch.samples):
        mine = tokens.where(update.samples == number)
        places = np.flatnonzero(sample.mask)
        assert mine.ages.tolist() == (VERSION - sample.versions[places]).tolist()
        np.testing.assert_allclose(mine.logprobs, sample.logprobs[places])
        expected = alone[number][places - 1] - sample.logprobs[places]
        np.testing.assert_allclose(mine.log_ratios, expected, atol=2e-3)
        np.testing.assert_allclose(mine.ratios, np.exp(expected), rtol=2e-3)
    assert mismatch_metrics(tokens)["mismatch_tokens"] == (tokens.ages == 0).sum() > 0
