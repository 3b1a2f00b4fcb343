"""A policy update against a reference that knows no packing: one sequence at a time, the formula written out."""

import random

import numpy as np
import pytest
import torch
from tiny_model import CONFIG

from arcforge.core.errors import UserError
from arcforge.core.trajectory import TokenSpan, Trajectory
from arcforge.model.initialise import new_model
from arcforge.rl.losses import double_sided, grpo_icepop
from arcforge.rl.policy import Mixture, Policy
from arcforge.rl.samples import Sample, build_batch, group_samples

BETA = 2.0


def icepop(train, rollout, scores, mask, weights):
    return grpo_icepop(train, rollout, scores, mask, weights_BT=weights)


def asynchronous(train, rollout, scores, mask, weights):
    return double_sided(train, rollout, scores, mask, weights_BT=weights)


def samples(model) -> list[Sample]:
    """Two groups of two-turn rollouts; recorded log-probs are off by noise, so that some ratios leave the clip range."""
    rng, result = random.Random(4), []
    for group in range(2):
        prompt = [rng.randrange(200) for _ in range(14)]
        members = []
        for member in range(3):
            answers = [[rng.randrange(200) for _ in range(rng.randint(2, 9))] for _ in range(2)]
            tool = [rng.randrange(200) for _ in range(4)]
            ids = [*prompt, *answers[0], *tool, *answers[1]]
            noisy = [float(x) + rng.gauss(0, 0.9) for x in alone(model, ids).detach()]
            first, second = len(prompt), len(prompt) + len(answers[0]) + len(tool)
            spans = [
                TokenSpan(ids=prompt, source="prompt"),
                model_span(answers[0], noisy[first - 1 :]),
                TokenSpan(ids=tool, source="prompt"),
                model_span(answers[1], noisy[second - 1 :]),
            ]
            members.append(Trajectory(rollout_id=f"{group}-{member}", family="f", task_id="t", spans=spans, reward=1.0))
        result += group_samples(members, [rng.uniform(-1, 1) for _ in members], groups=2)
    return result


def model_span(ids: list[int], logprobs: list[float]) -> TokenSpan:
    return TokenSpan(ids=ids, source="model", logprobs=logprobs[: len(ids)], version=0, trained=True)


def alone(model, ids: list[int]) -> torch.Tensor:
    """Log-probs of ids[1:], one sequence in a row of its own."""
    row = torch.tensor([ids])
    hidden = model(row, model.layout(torch.zeros_like(row), sparse=True)).hidden_BTD
    return model.lm_head(hidden[0, :-1]).log_softmax(-1).gather(1, row[0, 1:, None]).squeeze(1)


def reference_gradients(model, batch: list[Sample], kept) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Of -sum_tokens weight * kept(ratio) * advantage * log pi, sequence by sequence."""
    model.zero_grad()
    ratios = []
    for sample in batch:
        logprobs = alone(model, sample.ids.tolist())
        total = torch.zeros(())
        for t in np.flatnonzero(sample.mask):
            value = logprobs[t - 1]
            ratio = float((value.detach() - float(sample.logprobs[t])).exp())
            ratios.append(ratio)
            if kept(ratio):
                total = total - sample.share / sample.rollout_tokens * ratio * sample.advantage * value
        total.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}, ratios


def seen_gradient(policy: Policy, name: str, norm: float) -> torch.Tensor:
    """The gradient that the optimizer's first step saw, read from its moments; clipping to norm 1 undone."""
    state = policy.optimizer.state[name]
    grad = state["momentum"] / 0.05 if "momentum" in state else state["first"] / 0.1
    return grad * max(1.0, norm + 1e-6)


@pytest.mark.parametrize("micro_tokens", [8192, 120])
@pytest.mark.parametrize(
    ("loss", "kept"),
    [(icepop, lambda r: 1 / BETA <= r <= BETA), (asynchronous, lambda r: 0.2 < r < 4.0)],
    ids=["icepop", "double_sided"],
)
def test_the_gradient_is_that_of_sequences_one_by_one(micro_tokens, loss, kept):
    """Packed behind shared prompts, in one forward or several."""
    rollouts = samples(new_model(CONFIG, seed=0).eval())
    expected, ratios = reference_gradients(new_model(CONFIG, seed=0).eval(), rollouts, kept)
    assert 0.02 < np.mean([not kept(r) for r in ratios]) < 0.5
    batch = build_batch(rollouts, 60, 0)
    assert len(batch.rows) > 2 and max(batch.shared) > 0
    policy = Policy(new_model(CONFIG, seed=0), lr=1e-3, micro_tokens=micro_tokens)
    update = policy.update(batch, batch.advantages, loss)
    assert sorted(update.ratios.tolist()) == pytest.approx(sorted(ratios), rel=1e-3)
    assert update.ratios.mean() == pytest.approx(np.mean(ratios), rel=1e-3)
    for name in policy.optimizer.state:
        grad = seen_gradient(policy, name, update.metrics["grad_norm"])
        size = expected[name].norm()
        assert (grad - expected[name]).norm() <= 1e-3 * size + 1e-7, name
    trunk = {name for name, spec in policy.specs.items() if spec.group == "trunk"}
    assert set(policy.optimizer.state) == trunk
    norm = sum(float(expected[name].square().sum()) for name in trunk) ** 0.5
    assert update.metrics["grad_norm"] == pytest.approx(norm, rel=1e-3)


def test_each_token_is_trained_by_its_own_loss():
    """As if each loss had trained its tokens alone: another's tokens have no advantage there, so no gradient."""
    rollouts = samples(new_model(CONFIG, seed=0).eval())
    batch = build_batch(rollouts, 60, 0)
    choice = batch.rows.document_ids % 2
    assert len(set(choice[batch.rows.loss_mask].tolist())) == 2

    def taken(loss, advantages):
        policy = Policy(new_model(CONFIG, seed=0), lr=1e-3, micro_tokens=120)
        update = policy.update(batch, advantages, loss)
        norm = update.metrics["grad_norm"]
        return update, {name: seen_gradient(policy, name, norm) for name in policy.optimizer.state}

    both, gradients = taken(Mixture([icepop, asynchronous], choice), batch.advantages)
    parts = [
        taken(loss, np.where(choice == index, batch.advantages, 0).astype(np.float32))
        for index, loss in enumerate((icepop, asynchronous))
    ]
    for name, grad in gradients.items():
        expected = sum(part[name] for _, part in parts)
        assert (grad - expected).norm() <= 1e-3 * expected.norm() + 1e-7, name
    assert both.metrics["loss"] == pytest.approx(sum(update.metrics["loss"] for update, _ in parts), rel=1e-4)
    mine = choice[batch.rows.loss_mask]
    for index, (update, _) in enumerate(parts):
        np.testing.assert_array_equal(both.kept[mine == index], update.kept[mine == index])
        np.testing.assert_allclose(both.ratios[mine == index], update.ratios[mine == index], rtol=1e-4)
    low = [(both.ratios[mine == 0] < 1 / BETA).sum(), (both.ratios[mine == 1] <= 0.2).sum()]
    assert both.metrics["clip_low_share"] == pytest.approx(sum(low) / len(mine), rel=1e-4)


def test_what_a_step_saw_is_told_token_by_token():
    """Every trained token of every sample, found again through the update's own index."""
    model = new_model(CONFIG, seed=0).eval()
    rollouts = samples(model)
    for number, sample in enumerate(rollouts):
        sample.versions[sample.mask] = number % 3 + np.arange(sample.mask.sum()) % 2
    expected = [alone(model, sample.ids.tolist()).detach().numpy()[sample.mask[1:]] for sample in rollouts]
    batch = build_batch(rollouts, 60, 0)
    update = Policy(model, lr=1e-3, micro_tokens=120).update(batch, batch.advantages, asynchronous)
    assert update.samples.dtype == update.versions.dtype == np.int32
    for number, (sample, logprobs) in enumerate(zip(rollouts, expected, strict=True)):
        mine = update.samples == number
        ratios = np.exp(logprobs - sample.logprobs[sample.mask])
        np.testing.assert_allclose(update.train_logprobs[mine], logprobs, atol=1e-5)
        np.testing.assert_allclose(update.ratios[mine], ratios, rtol=1e-4)
        np.testing.assert_array_equal(update.kept[mine], (ratios > 0.2) & (ratios < 4))
        np.testing.assert_array_equal(update.versions[mine], sample.versions[sample.mask])
    assert 0 < update.kept.mean() < 1


def test_neither_gradient_nor_metrics_depend_on_the_split():
    """The indexers' own loss included."""
    rollouts = samples(new_model(CONFIG, seed=0).eval())
    batch = build_batch(rollouts, 60, 0)
    seen = {}
    for micro_tokens in (8192, 1):
        policy = Policy(new_model(CONFIG, seed=0), 1e-3, freeze_indexer=False, micro_tokens=micro_tokens)
        update = policy.update(batch, batch.advantages, icepop)
        norm = update.metrics["grad_norm"]
        seen[micro_tokens] = update.metrics, {n: seen_gradient(policy, n, norm) for n in policy.optimizer.state}
    (metrics, whole), (other, split) = seen.values()
    assert other == pytest.approx(metrics, rel=1e-4, abs=1e-6)
    indexers = [name for name in whole if policy.specs[name].group == "indexer"]
    assert max(float(whole[name].norm()) for name in indexers) > 1e-4
    for name, grad in whole.items():
        assert (split[name] - grad).norm() <= 1e-3 * grad.norm() + 1e-7, name


@pytest.mark.parametrize("frozen", [True, False])
def test_mtp_router_bias_and_a_frozen_indexer_stay_and_the_trunk_moves(frozen):
    model = new_model(CONFIG, seed=0)
    rollouts = samples(model.eval())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    policy = Policy(model, 1e-2, frozen)
    batch = build_batch(rollouts, 60, 0)
    for _ in range(2):
        policy.update(batch, batch.advantages, icepop)
    for name, tensor in model.state_dict().items():
        moving = {"trunk"} if frozen or name.startswith("mtp.") else {"trunk", "indexer"}
        fixed = name.endswith("e_score_correction_bias") or policy.specs[name].group not in moving
        assert torch.equal(tensor, before[name]) == fixed, name
    assert not any(router.load.any() for router in model.routers()), "no load is counted, so no bias can ever follow"


def test_rising_advantage_raises_the_probability():
    model = new_model(CONFIG, seed=0)
    rollouts = samples(model.eval())
    policy = Policy(model, lr=5e-3)
    batch = build_batch(rollouts, 60, 0)
    ones = np.where(batch.rows.loss_mask, 1.0, 0.0).astype(np.float32)

    def likelihood() -> float:
        with torch.no_grad():
            return float(np.mean([float(alone(model, s.ids.tolist())[s.mask[1:]].mean()) for s in rollouts]))

    start = likelihood()
    for _ in range(3):
        policy.update(batch, ones, asynchronous)
    assert likelihood() > start + 0.2


def test_a_step_without_a_trained_token_is_refused():
    nothing = Sample("r", np.arange(9, dtype=np.int32), *[np.zeros(9, dtype=t) for t in ("f4", "?", "i4")], 1.0, 1.0, 1)
    policy = Policy(new_model(CONFIG, seed=0), lr=1e-3)
    batch = build_batch([nothing], 16, 0)
    with pytest.raises(UserError, match="no trained token"):
        policy.update(batch, batch.advantages, icepop)
