"""The losses against references written in numpy float64 from the report's equations, and against numeric gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
    assert out.metrics["clip_low_share"] > 0 and out.metrics["clip_high_share"] > 0


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


def eqs_3_to_5(train, rollout, advantages, mask, low, high, reduction, factors=None):
    """Eqs. 3-5 token by token. factors: f of each token, held constant; by default f of this very point."""
    total, tokens = 0.0, sum(sum(row) for row in mask.tolist())
    for i, row in enumerate(mask.tolist()):
        for t, trained in enumerate(row):
            if not trained:
                continue
            f = direct_factor(train[i, t] - rollout[i, t], low, high) if factors is None else factors[i, t]
            weight = 1 / tokens if reduction == "token_mean" else 1 / sum(row) / len(mask)
            total += weight * f * advantages[i, t] * train[i, t]
    return -total


def direct_factor(log_ratio, low, high):
    ratio = math.exp(log_ratio)
    return ratio if 1 - low < ratio < 1 + high else 0.0


@pytest.mark.parametrize("reduction", ["token_mean", "sample_mean"])
def test_double_sided_equals_eqs_3_to_5_with_f_held_constant(batch, reduction):
    t = {k: tensor(v) for k, v in batch.items()}
    train = t["train"].requires_grad_()
    out = double_sided(train, t["rollout"], t["advantages"], t["mask"], eps_low=0.5, eps_high=1.0, reduction=reduction)
    out.loss.backward()
    rest = (batch["rollout"], batch["advantages"], batch["mask"], 0.5, 1.0, reduction)
    assert out.loss.item() == pytest.approx(eqs_3_to_5(batch["train"], *rest), rel=1e-5)
    factors = np.vectorize(lambda x: direct_factor(x, 0.5, 1.0))(batch["train"] - batch["rollout"])
    expected = numeric_gradient(lambda x: eqs_3_to_5(x, *rest, factors), batch["train"])
    np.testing.assert_allclose(train.grad.numpy(), expected, atol=2e-6)
    kept = batch["mask"] & (factors > 0)
    assert torch.equal(out.kept_BT, torch.from_numpy(kept)) and 0 < kept.sum() < batch["mask"].sum()


def test_double_sided_on_three_tokens_by_hand():
    """Ratios 1/2, 2 and 8 of limits (0.2, 4), advantage 3: -(1/2 * 3 * log 1/4 + 2 * 3 * log 1/2) / 3."""
    train = torch.tensor([[0.25, 0.5, 0.8]]).log().requires_grad_()
    rollout, ones = torch.tensor([[0.5, 0.25, 0.1]]).log(), torch.ones(1, 3, dtype=torch.bool)
    out = double_sided(train, rollout, torch.full((1, 1), 3.0), ones)
    out.loss.backward()
    assert out.loss.item() == pytest.approx((3 * math.log(2) + 6 * math.log(2)) / 3)
    assert train.grad.tolist()[0] == pytest.approx([-0.5, -2, 0])
    assert out.kept_BT.tolist() == [[True, True, False]]
    assert out.metrics["clip_high_share"].item() == pytest.approx(1 / 3) and out.metrics["clip_low_share"] == 0


FAR_AND_NEAR = st.floats(-3, 3, width=32)


@settings(max_examples=60, deadline=None)
@given(FAR_AND_NEAR, st.sampled_from([-1.0, 1.0]))
def test_both_limits_are_open_and_one_rounding_further_in_is_inside(log_ratio, advantage):
    """A limit on the very ratio of a token drops it, whatever its advantage; the next float beyond keeps it."""
    train = torch.full((1, 1), log_ratio).requires_grad_()
    ratio = train.detach().exp().item()
    zero, mask = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)

    def gradient(low, high):
        """With the limits (low, high) themselves, that 1 - eps and 1 + eps would round."""
        out = double_sided(train, zero, torch.full((1, 1), advantage), mask, eps_low=1 - low, eps_high=high - 1)
        return torch.autograd.grad(out.loss, train)[0].item()

    step = 4 * np.spacing(np.float32(max(1, ratio)))
    assert gradient(ratio, 1e3) == 0 and gradient(-1, ratio) == 0
    assert gradient(ratio - step, ratio + step) == pytest.approx(-ratio * advantage, rel=1e-6)
    assert gradient(ratio + step, 1e3) == 0 and gradient(-1, ratio - step) == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FAR_AND_NEAR, FAR_AND_NEAR), min_size=1, max_size=6))
def test_icepop_weighs_the_policy_gradient_by_a_rho_in_its_closed_range_or_by_nothing(tokens):
    logs, advantages = (torch.tensor([values]) for values in zip(*tokens))
    train, mask = logs.clone().requires_grad_(), torch.ones_like(logs, dtype=torch.bool)
    out = grpo_icepop(train, torch.zeros_like(logs), advantages, mask)
    out.loss.backward()
    for (_, advantage), rho, gradient in zip(tokens, logs.exp()[0].tolist(), train.grad[0].tolist()):
        weight = rho if 0.5 <= rho <= 2 else 0.0
        assert gradient == pytest.approx(-weight * advantage / len(tokens), rel=1e-5, abs=1e-30)


def test_double_sided_masks_both_tails_whatever_the_sign_of_the_advantage():
    rollout, mask = torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool)
    train = torch.tensor([[-5.0, -5.0, 5.0, 5.0]], requires_grad=True)
    out = double_sided(train, rollout, torch.tensor([[1.0, -1.0, 1.0, -1.0]]), mask)
    out.loss.backward()
    assert torch.equal(train.grad, torch.zeros(1, 4)) and not out.kept_BT.any()
    assert out.metrics["clip_low_share"] == 0.5 and out.metrics["clip_high_share"] == 0.5


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


def test_cut_shares_match_their_definitions(batch):
    t = {k: tensor(v) for k, v in batch.items()}
    out = double_sided(t["train"], t["rollout"], t["advantages"], t["mask"], eps_low=0.5, eps_high=1.0)
    r = np.exp(batch["train"] - batch["rollout"])[batch["mask"]]
    assert out.metrics["clip_low_share"].item() == pytest.approx((r <= 0.5).mean(), rel=1e-5)
    assert out.metrics["clip_high_share"].item() == pytest.approx((r >= 2).mean(), rel=1e-5)
    assert out.ratio_BT[t["mask"]].numpy() == pytest.approx(r, rel=1e-5)


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
            with pytest.raises(UserError, match=f"{name}.*old policy.*use double_sided") as refusal:
                check_loss(name, asynchronous=True)
            assert "\n" not in str(refusal.value)
    assert [name for name, needs_old in NEEDS_OLD_POLICY.items() if not needs_old] == ["double_sided"]
    check_loss("double_sided", asynchronous=True)
    with pytest.raises(UserError, match="unknown"):
        check_loss("ppo", asynchronous=False)
