"""The losses against references written in numpy float64 from the report's equations, and against numeric gradients."""

import numpy as np
import pytest
import torch

from arcforge.core.errors import UserError
from arcforge.rl.losses import NEEDS_OLD_POLICY, check_loss, distillation, double_sided, grpo_icepop, token_weights


@pytest.fixture
def batch():
    """Six rows of up to nine tokens whose ratios land on both sides of every limit."""
    rng = np.random.default_rng(3)
    mask = rng.random((6, 9)) < 0.7
    mask[:, 0] = False
    mask[:, 1] = True
    rollout = -rng.random((6, 9)) * 3
    old = rollout + rng.normal(0, 0.7, (6, 9))
    train = old + rng.normal(0, 0.4, (6, 9))
    advantages = np.broadcast_to(rng.normal(0, 1, (6, 1)), (6, 9)).copy()
    return {"train": train, "old": old, "rollout": rollout, "advantages": advantages, "mask": mask}


def tensor(array):
    return torch.tensor(array) if array.dtype == bool else torch.tensor(array, dtype=torch.float32)


def eq1(train, old, rollout, advantages, mask, beta=2.0, low=0.2, high=0.28):
    """Eq. 1 token by token."""
    total = 0.0
    for i in range(len(mask)):
        terms = []
        for t in np.flatnonzero(mask[i]):
            rho, r, a = np.exp(old[i, t] - rollout[i, t]), np.exp(train[i, t] - old[i, t]), advantages[i, t]
            pop = rho if 1 / beta <= rho <= beta else 0.0
            terms.append(pop * min(r * a, min(max(r, 1 - low), 1 + high) * a))
        total += np.mean(terms)
    return -total / len(mask)


def numeric_gradient(function, point, step=1e-6):
    gradient = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        up, down = point.copy(), point.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (function(up) - function(down)) / (2 * step)
    return gradient


def test_grpo_icepop_equals_eq1_in_value_and_gradient(batch):
    t = {k: tensor(v) for k, v in batch.items()}
    train = t["train"].requires_grad_()
    out = grpo_icepop(train, t["rollout"], t["advantages"], t["mask"], old_BT=t["old"])
    assert out.loss.item() == pytest.approx(eq1(**batch), rel=1e-5)
    out.loss.backward()
    expected = numeric_gradient(lambda x: eq1(**{**batch, "train": x}), batch["train"])
    np.testing.assert_allclose(train.grad.numpy(), expected, atol=2e-6)
    assert out.metrics["clipped_share_low"] > 0 and out.metrics["clipped_share_high"] > 0


def test_on_policy_gradient_is_the_policy_gradient_weighted_by_pop(batch):
    t = {k: tensor(v) for k, v in batch.items()}
    train = t["train"].requires_grad_()
    out = grpo_icepop(train, t["rollout"], t["advantages"], t["mask"])
    out.loss.backward()
    rho = np.exp(batch["train"] - batch["rollout"])
    pop = np.where((rho >= 0.5) & (rho <= 2), rho, 0) * batch["mask"]
    weights = batch["mask"] / batch["mask"].sum(1, keepdims=True) / 6
    np.testing.assert_allclose(train.grad.numpy(), -weights * pop * batch["advantages"], atol=1e-6)


def test_pop_keeps_its_limits_and_double_sided_does_not():
    two = torch.full((1, 1), float(np.log(2.0)), dtype=torch.float64).float()
    zero, one, mask = torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool)
    ratio = float(two.exp())
    assert grpo_icepop(two, zero, one, mask, beta=ratio).loss.item() == pytest.approx(-2)
    assert double_sided(two, zero, one, mask, eps_low=0.5, eps_high=ratio - 1).loss.item() == 0
    assert double_sided(two, zero, one, mask, eps_low=0.5, eps_high=1.01).loss.item() == pytest.approx(-2 * np.log(2))


@pytest.mark.parametrize("reduction", ["token_mean", "sample_mean"])
def test_double_sided_equals_eqs_3_to_5_with_f_held_constant(batch, reduction):
    t = {k: tensor(v) for k, v in batch.items()}
    train = t["train"].requires_grad_()
    out = double_sided(train, t["rollout"], t["advantages"], t["mask"], eps_low=0.5, eps_high=1.0, reduction=reduction)
    out.loss.backward()
    loss, gradient, mask = 0.0, np.zeros((6, 9)), batch["mask"]
    for i, j in zip(*np.nonzero(mask)):
        r = np.exp(batch["train"][i, j] - batch["rollout"][i, j])
        f = r if 0.5 < r < 2.0 else 0.0
        weight = 1 / mask.sum() if reduction == "token_mean" else 1 / mask[i].sum() / 6
        loss -= weight * f * batch["advantages"][i, j] * batch["train"][i, j]
        gradient[i, j] = -weight * f * batch["advantages"][i, j]
    assert out.loss.item() == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(train.grad.numpy(), gradient, atol=1e-6)


def test_double_sided_masks_both_tails_whatever_the_sign_of_the_advantage():
    rollout, mask = torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool)
    train = torch.tensor([[-5.0, -5.0, 5.0, 5.0]], requires_grad=True)
    out = double_sided(train, rollout, torch.tensor([[1.0, -1.0, 1.0, -1.0]]), mask)
    out.loss.backward()
    assert torch.equal(train.grad, torch.zeros(1, 4)) and not out.kept_BT.any()
    assert out.metrics["clipped_share_low"] == 0.5 and out.metrics["clipped_share_high"] == 0.5


def test_distillation_is_eq1_with_the_teacher_gap_as_a_constant_advantage(batch):
    t = {k: tensor(v) for k, v in batch.items()}
    teacher = batch["rollout"] + 0.3
    train = t["train"].requires_grad_()
    out = distillation(train, t["rollout"], tensor(teacher), t["mask"], old_BT=t["old"])
    out.loss.backward()
    gap = {**batch, "advantages": teacher - batch["train"]}
    assert out.loss.item() == pytest.approx(eq1(**gap), rel=1e-4)
    expected = numeric_gradient(lambda x: eq1(**{**gap, "train": x}), batch["train"])
    np.testing.assert_allclose(train.grad.numpy(), expected, atol=2e-6)
    kl = (batch["train"] - teacher)[batch["mask"]].mean()
    assert out.metrics["reverse_kl"].item() == pytest.approx(kl, rel=1e-4)


def test_distillation_moves_the_student_towards_the_teacher():
    torch.manual_seed(0)
    teacher = torch.log_softmax(torch.randn(5), 0)
    logits = torch.zeros(5, requires_grad=True)
    mask = torch.ones(1, 256, dtype=torch.bool)
    first = None
    for _ in range(150):
        logp = torch.log_softmax(logits, 0)
        tokens = torch.multinomial(logp.exp().detach(), 256, replacement=True)
        rollout = logp.detach()[tokens][None]
        out = distillation(logp[tokens][None], rollout, teacher[tokens][None], mask)
        (gradient,) = torch.autograd.grad(out.loss, logits)
        kl = (logp.exp() * (logp - teacher)).sum().item()
        first = kl if first is None else first
        with torch.no_grad():
            logits -= 0.5 * gradient
    assert kl < 0.05 * first


def test_packed_rows_with_weights_equal_one_row_per_sample(batch):
    t = {k: tensor(v) for k, v in batch.items()}
    apart = grpo_icepop(t["train"], t["rollout"], t["advantages"], t["mask"]).loss
    packed = {k: v.reshape(2, 27) for k, v in t.items()}
    samples = torch.arange(6).repeat_interleave(9).reshape(2, 27)
    weights = token_weights(packed["mask"], "sample_mean", samples)
    rows = [
        grpo_icepop(*(packed[k][i : i + 1] for k in ("train", "rollout", "advantages", "mask")), weights_BT=weights[i])
        for i in range(2)
    ]
    assert (rows[0].loss + rows[1].loss).item() == pytest.approx(apart.item(), rel=1e-5)


def test_ratio_metrics_match_their_definitions(batch):
    t = {k: tensor(v) for k, v in batch.items()}
    out = double_sided(t["train"], t["rollout"], t["advantages"], t["mask"], eps_low=0.5, eps_high=1.0)
    r = np.exp(batch["train"] - batch["rollout"])[batch["mask"]]
    assert out.metrics["ratio_mean"].item() == pytest.approx(r.mean(), rel=1e-5)
    assert out.metrics["clipped_share"].item() == pytest.approx(((r <= 0.5) | (r >= 2)).mean(), rel=1e-5)
    assert out.metrics["ess"].item() == pytest.approx(r.sum() ** 2 / (r**2).sum() / len(r), rel=1e-5)
    assert out.metrics["kl_k3"].item() == pytest.approx((r - 1 - np.log(r)).mean(), rel=1e-4)


@pytest.mark.parametrize("loss", [grpo_icepop, double_sided, distillation])
def test_masked_positions_never_leak(loss, batch):
    t = {k: tensor(v) for k, v in batch.items()}
    poisoned = {k: torch.where(t["mask"], v, float("nan")) for k, v in t.items() if k != "mask"}
    train = poisoned["train"].clone().requires_grad_()
    out = loss(train, poisoned["rollout"], poisoned["advantages"], t["mask"])
    clean = loss(t["train"], t["rollout"], t["advantages"], t["mask"])
    out.loss.backward()
    assert out.loss.item() == pytest.approx(clean.loss.item(), rel=1e-6)
    assert torch.isfinite(train.grad).all() and (train.grad[~t["mask"]] == 0).all()
    empty = loss(t["train"], t["rollout"], t["advantages"], torch.zeros_like(t["mask"]))
    assert empty.loss.item() == 0 and all(torch.isfinite(v) for v in empty.metrics.values())


def test_losses_that_need_the_old_policy_are_refused_under_asynchrony():
    for name, needs_old in NEEDS_OLD_POLICY.items():
        check_loss(name, asynchronous=False)
        if needs_old:
            with pytest.raises(UserError, match="old policy"):
                check_loss(name, asynchronous=True)
    check_loss("double_sided", asynchronous=True)
    with pytest.raises(UserError, match="unknown"):
        check_loss("ppo", asynchronous=False)
