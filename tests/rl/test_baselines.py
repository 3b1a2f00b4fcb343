"""The baselines against their papers' equations, written token by token in plain Python, and numeric gradients."""

import math

import numpy as np
import pytest
import torch

from arcforge.rl.baselines import cispo, gspo, ppo_clip, tis
from arcforge.rl.losses import grpo_icepop, token_weights

ROWS, TOKENS = 5, 8


@pytest.fixture
def batch():
    """One advantage per row; ratios on both sides of every limit."""
    rng = np.random.default_rng(11)
    mask = rng.random((ROWS, TOKENS)) < 0.6
    mask[:, 2] = True
    rollout = -rng.random((ROWS, TOKENS)) * 3
    old = rollout + rng.normal(0, 0.6, (ROWS, TOKENS))
    train = old + rng.normal(0, 0.4, (ROWS, TOKENS))
    advantages = np.array([1.3, -0.7, 0.4, -1.1, 0.9])[:, None] * np.ones((1, TOKENS))
    return {"train": train, "old": old, "rollout": rollout, "advantages": advantages, "mask": mask}


def tensors(batch):
    return {k: torch.tensor(v, dtype=torch.bool if v.dtype == bool else torch.float32) for k, v in batch.items()}


def surrogate(ratio, advantage, low, high):
    return min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)


def mean_over_samples(term, mask):
    """-1/G sum_i 1/|y_i| sum_t term(i, t)."""
    total = 0.0
    for i, row in enumerate(mask.tolist()):
        places = [t for t, trained in enumerate(row) if trained]
        total += sum(term(i, t) for t in places) / len(places) / len(mask)
    return -total


def ppo_reference(train, old, rollout, advantages, mask, low=0.2, high=0.2):
    return mean_over_samples(
        lambda i, t: surrogate(math.exp(train[i, t] - old[i, t]), advantages[i, t], low, high), mask
    )


def tis_reference(train, old, rollout, advantages, mask, cap=2.0):
    def term(i, t):
        weight = min(math.exp(old[i, t] - rollout[i, t]), cap)
        return weight * surrogate(math.exp(train[i, t] - old[i, t]), advantages[i, t], 0.2, 0.28)

    return mean_over_samples(term, mask)


def gspo_reference(train, old, rollout, advantages, mask, low=0.05, high=0.1):
    total = 0.0
    for i, row in enumerate(mask.tolist()):
        places = [t for t, trained in enumerate(row) if trained]
        ratio = math.exp(sum(train[i, t] - old[i, t] for t in places) / len(places))
        total += surrogate(ratio, advantages[i, 0], low, high) / len(mask)
    return -total


def cispo_reference(train, old, rollout, advantages, mask, weight_at, low=0.7, high=0.3):
    """weight_at: log-probs at which the weight, a constant to the gradient, is taken."""
    total = 0.0
    for i, t in zip(*np.nonzero(mask)):
        weight = min(max(math.exp(weight_at[i, t] - old[i, t]), 1 - low), 1 + high)
        total += weight * advantages[i, t] * train[i, t]
    return -total / mask.sum()


def numeric_gradient(function, point, step=1e-6):
    gradient = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        up, down = point.copy(), point.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (function(up) - function(down)) / (2 * step)
    return gradient


def rows_as_samples():
    return torch.arange(ROWS)[:, None].expand(ROWS, TOKENS)


CASES = {
    "ppo_clip": (ppo_clip, ppo_reference),
    "tis": (tis, tis_reference),
    "gspo": (lambda *a, **k: gspo(*a, rows_as_samples(), eps_low=0.05, eps_high=0.1, **k), gspo_reference),
    "cispo": (lambda *a, **k: cispo(*a, eps_low=0.7, eps_high=0.3, **k), cispo_reference),
}


def own_log_ratios(name, batch):
    """Of the ratio that the loss clips."""
    logs, mask = batch["train"] - batch["old"], batch["mask"]
    return (logs * mask).sum(1, keepdims=True) / mask.sum(1, keepdims=True) * mask if name == "gspo" else logs


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_the_paper(name, batch):
    loss, reference = CASES[name]
    fixed = {"weight_at": batch["train"]} if name == "cispo" else {}
    t = tensors(batch)
    train = t["train"].requires_grad_()
    out = loss(train, t["rollout"], t["advantages"], t["mask"], old_BT=t["old"])
    out.loss.backward()
    assert out.loss.item() == pytest.approx(reference(**batch, **fixed), rel=1e-5)
    expected = numeric_gradient(lambda x: reference(**{**batch, **fixed, "train": x}), batch["train"])
    np.testing.assert_allclose(train.grad.numpy(), expected, atol=2e-6)
    assert (expected != 0).any()
    lost = t["mask"].numpy() & (np.abs(expected) < 1e-12)
    assert torch.equal(out.kept_BT, t["mask"] & ~torch.from_numpy(lost)), "kept is where a gradient is left"
    assert lost.any() == (name != "cispo"), "the case must cut something"
    below = lost & (own_log_ratios(name, batch) < 0)
    assert out.metrics["clip_low_share"].item() == pytest.approx(below.sum() / batch["mask"].sum())
    assert out.metrics["clip_high_share"].item() == pytest.approx((lost & ~below).sum() / batch["mask"].sum())


@pytest.mark.parametrize("name", CASES)
def test_what_stands_outside_the_mask_never_reaches_loss_or_gradient(name, batch):
    loss, _ = CASES[name]
    t = tensors(batch)
    clean = loss(t["train"], t["rollout"], t["advantages"], t["mask"], old_BT=t["old"])
    poisoned = {k: torch.where(t["mask"], v, float("nan")) for k, v in t.items() if k != "mask"}
    train = poisoned["train"].clone().requires_grad_()
    out = loss(train, poisoned["rollout"], poisoned["advantages"], t["mask"], old_BT=poisoned["old"])
    out.loss.backward()
    assert out.loss.item() == pytest.approx(clean.loss.item(), rel=1e-6)
    assert torch.isfinite(train.grad).all() and (train.grad[~t["mask"]] == 0).all()
    empty = loss(t["train"], t["rollout"], t["advantages"], torch.zeros_like(t["mask"]))
    assert empty.loss.item() == 0 and all(torch.isfinite(v) for v in empty.metrics.values())


def test_gspo_in_packed_rows_equals_one_row_per_sample(batch):
    """Two rows, the first with samples 7, 3 and part padding, in an order of numbers that is not that of places."""
    t = tensors(batch)
    apart = gspo(t["train"], t["rollout"], t["advantages"], t["mask"], rows_as_samples(), old_BT=t["old"])
    rows = torch.tensor([[0, 1, 2], [3, 4, -1]])
    names = torch.tensor([7, 3, 9, 0, 5])

    def packed(values, padding):
        parts = [[values[i] if i >= 0 else torch.full((TOKENS,), padding) for i in row] for row in rows.tolist()]
        return torch.stack([torch.cat(part) for part in parts])

    arguments = [packed(t[k], 0.0) for k in ("train", "rollout", "advantages")]
    mask = packed(t["mask"], False)
    segments = packed(names[:, None].expand(ROWS, TOKENS), -1)
    together = gspo(*arguments, mask, segments, old_BT=packed(t["old"], 0.0))
    assert together.loss.item() == pytest.approx(apart.loss.item(), rel=1e-5)
    weights = token_weights(mask, "sample_mean", segments)
    single = [
        gspo(
            *(a[i : i + 1] for a in arguments),
            mask[i : i + 1],
            segments[i : i + 1],
            old_BT=packed(t["old"], 0.0)[i : i + 1],
            weights_BT=weights[i : i + 1],
        ).loss
        for i in range(2)
    ]
    assert sum(single).item() == pytest.approx(apart.loss.item(), rel=1e-5)


def test_without_an_old_policy_the_gradient_is_the_plain_policy_gradient(batch):
    """One update per batch: every ratio to the old policy is 1."""
    t = tensors(batch)
    expected = -batch["advantages"] * batch["mask"] / batch["mask"].sum(1, keepdims=True) / ROWS
    for name in ("ppo_clip", "gspo"):
        train = t["train"].clone().requires_grad_()
        CASES[name][0](train, t["rollout"], t["advantages"], t["mask"]).loss.backward()
        np.testing.assert_allclose(train.grad.numpy(), expected, atol=1e-6, err_msg=name)


def test_tis_keeps_what_icepop_drops_by_hand():
    """pi_old = pi_theta; rho 4, 1/4 and 1, advantage 1: TIS weighs by 2, 1/4 and 1, IcePop by 0, 0 and 1."""
    train = torch.log(torch.tensor([[0.8, 0.1, 0.5]])).requires_grad_()
    rollout = torch.log(torch.tensor([[0.2, 0.4, 0.5]]))
    ones, mask = torch.ones(1, 1), torch.ones(1, 3, dtype=torch.bool)
    found = tis(train, rollout, ones, mask)
    assert torch.autograd.grad(found.loss, train)[0][0].tolist() == pytest.approx([-2 / 3, -1 / 12, -1 / 3])
    assert found.metrics["truncated_share"].item() == pytest.approx(1 / 3)
    popped = grpo_icepop(train, rollout, ones, mask)
    assert torch.autograd.grad(popped.loss, train)[0][0].tolist() == pytest.approx([0, 0, -1 / 3])
