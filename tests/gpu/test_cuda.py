"""The tensor half on a GPU against itself on the CPU: losses, gradients, optimizer steps, training, policy updates, checkpoints."""

import copy

import numpy as np
import pytest
import torch
from transformers import GlmMoeDsaForCausalLM

from arcforge.core.trajectory import TokenSpan, Trajectory
from arcforge.data.batches import Batch
from arcforge.data.mixing import Mixture, StoredRows
from arcforge.data.packing import Tokens, pack
from arcforge.kernels.select import routed_experts
from arcforge.model.checkpoint import load_checkpoint, save_checkpoint
from arcforge.model.config import ModelConfig
from arcforge.model.initialise import new_model
from arcforge.model.specs import matrix_specs
from arcforge.model.variants import converted
from arcforge.optim.muon import MuonAdamW, OptimizerConfig
from arcforge.rl.losses import double_sided
from arcforge.rl.policy import Policy
from arcforge.rl.samples import build_batch, group_samples
from arcforge.train.loop import Plan, run
from arcforge.train.objectives import language_modelling

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

DEVICE = "cuda"
CONFIG = ModelConfig(
    vocab_size=320, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, q_lora_rank=48, kv_lora_rank=32,
    qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=20, intermediate_size=96, moe_intermediate_size=32,
    n_routed_experts=8, num_experts_per_tok=2, index_n_heads=4, index_head_dim=16, index_topk=24,
)  # fmt: skip
CLOSE = 2e-3
"""Relative, of a gradient's norm: sums run in another order, and a near tie of the indexer may fall the other way."""


def rows(seed: int = 0, length: int = 96):
    rng = np.random.default_rng(seed)
    documents = [Tokens.of(rng.integers(5, 320, int(rng.integers(20, 90))).tolist()) for _ in range(24)]
    return pack(documents, length, "truncate")


def pair(types=("full",) * 3):
    """The same model on the CPU and on the device."""
    model = new_model(CONFIG, seed=1)
    if set(types) != {"full"}:
        model = converted(model, types, window=16, key_value_heads=2)
    return model, copy.deepcopy(model).to(DEVICE)


def gap(ours, theirs):
    ours, theirs = ours.detach().cpu().float(), theirs.detach().cpu().float()
    return float((ours - theirs).norm() / theirs.norm().clamp(min=1e-6))


OBJECTIVES = {
    "dense with multi-token prediction": {"sparse": False, "mtp_steps": 3, "mtp_weight": 0.3},
    "sparse": {"sparse": True},
    "sparse with the indexer's loss": {"sparse": True, "indexer_loss": True},
}


@pytest.mark.parametrize("how", OBJECTIVES)
def test_losses_and_every_gradient(how):
    here, there = pair()
    scalars = []
    for model in (here, there):
        batch = Batch.of(rows()[:6], next(model.parameters()).device)
        scalars.append(language_modelling(model, batch, **OBJECTIVES[how]))
        scalars[-1]["loss"].backward()
    for name, value in scalars[0].items():
        assert scalars[1][name].item() == pytest.approx(value.item(), rel=1e-4), name
    others = dict(there.named_parameters())
    seen = 0
    for name, parameter in here.named_parameters():
        assert (parameter.grad is None) == (others[name].grad is None), name
        if parameter.grad is not None and parameter.grad.norm() > 1e-6:
            assert gap(others[name].grad, parameter.grad) < CLOSE, name
            seen += 1
    assert seen > 30


@pytest.mark.parametrize("types", [("full", "window", "window"), ("full", "gqa", "gqa"), ("full", "gdn", "simple_gdn")])
def test_other_attention(types):
    here, there = pair(types)
    batches = [Batch.of(rows()[:4], next(model.parameters()).device) for model in (here, there)]
    losses = [language_modelling(model, batch, sparse=True)["loss"] for model, batch in zip((here, there), batches)]
    for loss in losses:
        loss.backward()
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-4)
    others = dict(there.named_parameters())
    for name, parameter in here.named_parameters():
        if parameter.grad is not None and parameter.grad.norm() > 1e-6:
            assert gap(others[name].grad, parameter.grad) < CLOSE, name


def test_experts_in_bfloat16_stay_near_float32():
    torch.manual_seed(3)
    x, weights = torch.randn(50, 64, device=DEVICE), torch.rand(50, 2, device=DEVICE)
    chosen = torch.randint(8, (50, 2), device=DEVICE)
    gate_up, down = torch.randn(8, 64, 64, device=DEVICE) / 8, torch.randn(8, 64, 32, device=DEVICE) / 8
    exact = routed_experts(x, weights, chosen, gate_up, down)
    near = routed_experts(x.bfloat16(), weights.bfloat16(), chosen, gate_up.bfloat16(), down.bfloat16())
    assert near.dtype == torch.bfloat16 and gap(near, exact) < 2e-2


def test_optimizer_steps_are_the_same():
    """Muon Split and AdamW, momentum included."""
    models, optimizers = pair(), []
    for model in models:
        optimizers.append(MuonAdamW(model, matrix_specs(model), OptimizerConfig(lr=1e-2)))
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        for names in zip(*(model.named_parameters() for model in models), strict=True):
            noise = torch.randn(names[0][1].shape, generator=generator)
            for _, parameter in names:
                parameter.grad = noise.to(parameter.device, copy=True)
        norms = [optimizer.step() for optimizer in optimizers]
        assert norms[1] == pytest.approx(norms[0], rel=1e-5)
    start = dict(new_model(CONFIG, seed=1).named_parameters())
    others = dict(models[1].named_parameters())
    for name, parameter in models[0].named_parameters():
        assert gap(others[name].cpu() - start[name], parameter - start[name]) < 1e-2, name


class Sink:
    def __init__(self):
        self.rows = []

    def write(self, row):
        self.rows.append(row)


def test_training_follows_the_cpu_and_goes_on_from_its_state(tmp_path):
    losses = {}
    for device in ("cpu", DEVICE):
        sink = Sink()
        for steps in (12, 30):  # the second call goes on where the first one stopped
            model = new_model(CONFIG, seed=1).to(device)
            optimizer = MuonAdamW(model, matrix_specs(model), OptimizerConfig(lr=5e-3))
            objective = lambda batch, model=model: language_modelling(model, batch, sparse=True)  # noqa: E731
            plan = Plan("train", steps, 4, lambda step: 1.0)
            run(
                plan,
                model,
                objective,
                optimizer,
                Mixture({"rows": StoredRows(rows(), 0)}, {"rows": 1.0}),
                tmp_path / device,
                sink,
            )
        losses[device] = [row["loss"] for row in sink.rows]
        assert [row["step"] for row in sink.rows] == list(range(1, 31))
    ours, theirs = losses[DEVICE], losses["cpu"]
    assert theirs[-1] < theirs[0] - 0.5 and ours == pytest.approx(theirs, rel=2e-2)
    assert ours[:5] == pytest.approx(theirs[:5], rel=1e-3)


def rollouts():
    rng, members = np.random.default_rng(4), []
    for member in range(4):
        prompt, sampled = ([int(i) for i in rng.integers(5, 300, n)] for n in (12, 20))
        spans = [
            TokenSpan(ids=prompt, source="prompt"),
            TokenSpan(
                ids=sampled, source="model", logprobs=(-5.7 + rng.normal(0, 0.6, 20)).tolist(), version=0, trained=True
            ),
        ]
        members.append(Trajectory(rollout_id=f"r{member}", family="f", task_id="t", spans=spans, reward=1.0))
    return group_samples(members, [0.7, -0.7, 0.2, -0.2], groups=1)


def test_policy_updates_are_the_same():
    batch, updates, policies = build_batch(rollouts(), 64, 0), [], []

    def loss(train, rollout, scores, mask, weights):
        return double_sided(train, rollout, scores, mask, weights_BT=weights)

    for model in pair():
        policies.append(Policy(model, lr=1e-2, micro_tokens=64))
        updates.append(policies[-1].update(batch, batch.advantages, loss))
    here, there = updates
    np.testing.assert_allclose(there.train_logprobs, here.train_logprobs, atol=1e-4)
    np.testing.assert_array_equal(there.kept, here.kept)
    assert there.metrics == pytest.approx(here.metrics, rel=1e-3, abs=1e-6)
    after = [policy.update(batch, batch.advantages, loss).train_logprobs for policy in policies]
    np.testing.assert_allclose(after[1], after[0], atol=1e-2)


def test_a_checkpoint_written_from_the_device_is_the_models(tmp_path):
    here, there = pair()
    for name, model in (("here", here), ("there", there)):
        save_checkpoint(model, tmp_path / name, "float32")
    ours, theirs = (load_checkpoint(tmp_path / name).state_dict() for name in ("there", "here"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_transformers_on_the_same_device_agrees(tmp_path):
    # With few index heads many scores are exactly 0, and a tie is nobody's mistake.
    model = new_model(CONFIG.model_copy(update={"num_nextn_predict_layers": 0, "index_n_heads": 16}), seed=2)
    save_checkpoint(model, tmp_path, "float32")
    oracle = GlmMoeDsaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager")
    oracle, ours = oracle.eval().to(DEVICE), load_checkpoint(tmp_path).to(DEVICE)
    ids = torch.randint(5, 320, (2, 60), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    with torch.no_grad():
        hidden = ours(ids, ours.layout(torch.zeros_like(ids), sparse=True)).hidden_BTD
        assert gap(ours.lm_head(hidden), oracle(ids, use_cache=False).logits) < 1e-3
