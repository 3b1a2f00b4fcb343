import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcforge.core.documents import SHARED
from arcforge.core.errors import UserError
from arcforge.core.trajectory import TokenSpan, Trajectory
from arcforge.rl.samples import build_batch, group_samples


def prompt(ids, reason="prompt"):
    return TokenSpan(ids=ids, source="prompt", mask_reason=reason)


def model(ids, version=0, trained=True):
    logprobs = [-0.1 * (i % 7) for i in ids]
    return TokenSpan(ids=ids, source="model", logprobs=logprobs, version=version, trained=trained)


def trajectory(name, *spans):
    return Trajectory(rollout_id=name, family="f", task_id="t", spans=list(spans), reward=1.0)


def test_a_trajectory_becomes_aligned_arrays():
    one = trajectory("a", prompt([1, 2]), model([3, 4], version=5), prompt([5]), model([6], version=6, trained=False))
    (sample,) = group_samples([one], [0.5], groups=1)
    assert sample.ids.tolist() == [1, 2, 3, 4, 5, 6] and sample.ids.dtype == np.int32
    assert sample.mask.tolist() == [False, False, True, True, False, False]
    assert sample.versions.tolist() == [-1, -1, 5, 5, -1, 6]
    np.testing.assert_allclose(sample.logprobs, [0, 0, -0.3, -0.4, 0, -0.6], atol=1e-7)
    assert sample.logprobs.dtype == np.float32 and sample.share == 1 and sample.rollout_tokens == 2


def test_sample_mean_weighs_rollouts_alike_whatever_their_length_forks_and_rows():
    long = trajectory("long", prompt([1]), model([2, 3, 4]), prompt([1, 2], "context"), model([5]))
    short = trajectory("short", prompt([1]), model([2]))
    lone = [trajectory("lone", prompt([9]), model([8, 7]))]
    samples = [*group_samples([long, short], [1.0, -1.0], groups=2), *group_samples(lone, [0.3], groups=2)]
    assert [s.rollout_id for s in samples] == ["long", "long", "short", "lone"]
    batch = build_batch(samples, length=6, pad_id=0)
    total = {"long": 0.0, "short": 0.0, "lone": 0.0}
    for row, column in zip(*np.nonzero(batch.weights)):
        total[samples[batch.rows.document_ids[row, column]].rollout_id] += float(batch.weights[row, column])
    assert total == pytest.approx({"long": 0.25, "short": 0.25, "lone": 0.5})
    weights = batch.weights[batch.rows.document_ids == 0]
    assert weights.tolist() == pytest.approx([0, 0.25 / 4, 0.25 / 4, 0.25 / 4])


def test_a_member_repeated_by_group_repair_counts_twice_and_is_computed_once():
    a, b = trajectory("a", prompt([1]), model([2])), trajectory("b", prompt([1]), model([3]))
    samples = group_samples([a, b, a], [1.0, -2.0, 1.0], groups=1)
    assert [(s.rollout_id, s.share) for s in samples] == [("a", 2 / 3), ("b", 1 / 3)]


def test_token_mean_weighs_trained_tokens_alike():
    group = [trajectory("a", prompt([1]), model([2, 3, 4])), trajectory("b", prompt([1]), model([5]))]
    batch = build_batch(group_samples(group, [1.0, 1.0], groups=1), length=8, pad_id=0, reduction="token_mean")
    assert batch.weights[batch.rows.loss_mask].tolist() == pytest.approx([0.25] * 4)


def test_a_rollout_without_trained_tokens_gives_no_row_but_keeps_its_share():
    group = [trajectory("a", prompt([1]), model([2], trained=False)), trajectory("b", prompt([1]), model([3]))]
    (sample,) = group_samples(group, [1.0, 1.0], groups=1)
    assert sample.rollout_id == "b" and sample.share == 0.5


def test_a_sample_longer_than_a_row_is_refused_by_name():
    samples = group_samples([trajectory("too-long", prompt([1] * 5), model([2] * 5))], [1.0], groups=1)
    with pytest.raises(UserError, match="too-long has 10 tokens and a row holds 8"):
        build_batch(samples, length=8, pad_id=0)


def test_share_beyond_topk_counts_visible_tokens_inside_the_document():
    group = [trajectory("a", prompt([1] * 3), model([2] * 4)), trajectory("b", prompt([1]), model([3, 3]))]
    batch = build_batch(group_samples(group, [1.0, 1.0], groups=1), length=16, pad_id=0)
    # Trained tokens see 3, 4, 5, 6 and 1, 2 tokens before them.
    assert batch.beyond_topk_share(4) == pytest.approx(2 / 6)
    assert batch.beyond_topk_share(6) == 0 and batch.beyond_topk_share(0) == 1
    assert build_batch([], length=16, pad_id=0).beyond_topk_share(0) == 0


rollouts = st.lists(
    st.lists(
        st.tuples(st.lists(st.integers(1, 99), min_size=1, max_size=6), st.integers(1, 6)), min_size=1, max_size=3
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(rollouts, st.sampled_from(["sample_mean", "token_mean"]))
def test_rows_hold_every_sample_whole_and_in_place(shape, reduction):
    group = [
        trajectory(str(n), *[s for ids, k in turns for s in (prompt(ids), model([i % 50 for i in range(n, n + k)]))])
        for n, turns in enumerate(shape)
    ]
    samples = group_samples(group, [float(n + 1) for n in range(len(group))], groups=1)
    batch = build_batch(samples, length=40, pad_id=0, reduction=reduction)
    assert batch.rows.ids.shape == batch.logprobs.shape == batch.advantages.shape == batch.weights.shape
    for index, sample in enumerate(samples):
        here = batch.rows.document_ids == index
        assert len(set(np.nonzero(here)[0])) == 1
        row, start = np.nonzero(here)[0][0], batch.shared[index]
        prefix = batch.rows.ids[row][batch.rows.document_ids[row] == SHARED]
        assert [*prefix, *batch.rows.ids[here]] == sample.ids.tolist() and len(prefix) == start
        assert batch.rows.loss_mask[here].tolist() == sample.mask[start:].tolist()
        np.testing.assert_array_equal(batch.logprobs[here], sample.logprobs[start:])
        np.testing.assert_array_equal(batch.advantages[here], np.where(sample.mask, sample.advantage, 0)[start:])
    assert batch.weights.sum() == pytest.approx(1, rel=1e-5) and (batch.weights[~batch.rows.loss_mask] == 0).all()
    assert not any(sample.mask[: batch.shared[i]].any() for i, sample in enumerate(samples))
    marks = batch.scatter([np.arange(len(s.ids)) + 1 for s in samples])
    assert ((marks == 0) == (batch.rows.document_ids < 0)).all()
