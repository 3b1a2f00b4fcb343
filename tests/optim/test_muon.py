"""Muon with Muon Split and the AdamW half, against what they are defined to be."""

import dataclasses
import io
import math

import pytest
import torch
from torch import nn

from arcforge.core.matrix import MatrixSpec
from arcforge.model.config import ModelConfig
from arcforge.model.initialise import new_model
from arcforge.model.specs import matrix_specs
from arcforge.optim.muon import MuonAdamW, OptimizerConfig
from arcforge.optim.newton_schulz import orthogonalise

CONFIG = ModelConfig(
    vocab_size=64, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, q_lora_rank=40, kv_lora_rank=24,
    qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=16, intermediate_size=64, moe_intermediate_size=20,
    n_routed_experts=4, index_n_heads=2, index_head_dim=16,
)  # fmt: skip
Q_B, KV_B = "layers.1.self_attn.q_b_proj.weight", "layers.1.self_attn.kv_b_proj.weight"
GATE_UP, DOWN = "layers.1.mlp.experts.gate_up_proj", "layers.1.mlp.experts.down_proj"


def random_gradients(model: nn.Module, seed: int, scales: dict[str, list[float]] | None = None) -> None:
    """Normal gradients; `scales` multiplies equal parts of a parameter's rows, the heads or experts."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
        for part, scale in zip(parameter.grad.chunk(4), (scales or {}).get(name, [])):
            part.mul_(scale)


def first_update(split: bool) -> dict[str, torch.Tensor]:
    """One step's change of each matrix, in units of the step's size; heads and experts differ 1,000-fold in gradient."""
    model = new_model(CONFIG, seed=0)
    specs = matrix_specs(model)
    if not split:
        specs = {name: dataclasses.replace(spec, row_slices=()) for name, spec in specs.items()}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    uneven = [0.01, 1.0, 0.1, 10.0]
    random_gradients(model, 1, dict.fromkeys((Q_B, KV_B, GATE_UP, DOWN), uneven))
    MuonAdamW(model, specs, OptimizerConfig(lr=1e-2, weight_decay=0.0)).step()
    return {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}


def singular_values(update: torch.Tensor) -> torch.Tensor:
    """Of an update, in units of lr * 0.2 * sqrt(max(rows, columns))."""
    return torch.linalg.svdvals(update) / (1e-2 * 0.2 * math.sqrt(max(update.shape)))


def near_one(values: torch.Tensor) -> bool:
    return bool(values.min() > 0.5 and values.max() < 1.25)


def heads(update: dict[str, torch.Tensor]) -> dict[str, list[torch.Tensor]]:
    """W_UQ by head; W_UK and W_UV by head, in the layout [head, (nope | value), latent] of kv_b_proj."""
    nope, value = CONFIG.qk_nope_head_dim, CONFIG.v_head_dim
    both = update[KV_B].view(4, nope + value, -1)
    return {"W_UQ": list(update[Q_B].chunk(4)), "W_UK": list(both[:, :nope]), "W_UV": list(both[:, nope:])}


@pytest.mark.parametrize("matrix", ["W_UQ", "W_UK", "W_UV"])
def test_muon_split_gives_every_head_singular_values_near_one(matrix):
    parts = heads(first_update(split=True))[matrix]
    assert len(parts) == 4 and all(near_one(singular_values(part)) for part in parts)


@pytest.mark.parametrize("matrix", ["W_UQ", "W_UK", "W_UV"])
def test_without_the_split_the_heads_are_uneven(matrix):
    update = first_update(split=False)
    assert near_one(singular_values(update[Q_B])) and near_one(singular_values(update[KV_B]))
    norms = [float(part.norm()) for part in heads(update)[matrix]]
    assert max(norms) > 1.2 * min(norms)
    scale = 1e-2 * 0.2 * math.sqrt(max(update[Q_B if matrix == "W_UQ" else KV_B].shape))
    assert sum(near_one(torch.linalg.svdvals(part) / scale) for part in heads(update)[matrix]) <= 1, "only the loudest"


@pytest.mark.parametrize("name", [GATE_UP, DOWN])
def test_experts_are_orthogonalised_one_by_one(name):
    update = first_update(split=True)[name]
    assert all(near_one(singular_values(expert)) for expert in update)


def test_what_is_no_matrix_goes_to_adamw():
    model = new_model(CONFIG, seed=0)
    kinds = {name: spec.kind for name, spec in matrix_specs(model).items()}
    assert set(kinds) == {name for name, _ in model.named_parameters()}
    ours = ("embed_tokens", "lm_head", "mlp.gate.weight", "norm.", "norm_", "layernorm", "k_norm", "enorm", "hnorm")
    for name, kind in kinds.items():
        expected = "expert" if ".experts." in name else "vector" if any(part in name for part in ours) else "matrix"
        assert kind == expected, name


class Toy(nn.Module):
    """One parameter of each kind and dimension."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        shapes = {"matrix": (6, 5), "wide": (4, 9), "table": (7, 3), "norm": (5,), "expert": (3, 4, 5)}
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape, generator=generator)))


SPECS = {
    "matrix": MatrixSpec("matrix", ((0, 3), (3, 6))),
    "wide": MatrixSpec("matrix"),
    "table": MatrixSpec("vector"),
    "norm": MatrixSpec("vector"),
    "expert": MatrixSpec("expert"),
}


@pytest.mark.parametrize("muon", [False, True])
def test_the_adamw_half_is_torchs_adamw(muon):
    """Weight decay on tables and matrices, none on vectors; the rate changes from step to step."""
    ours, theirs = Toy(), Toy()
    config = OptimizerConfig(lr=0.02, weight_decay=0.3, betas=(0.8, 0.9), max_grad_norm=1e9, muon=muon)
    optimizer = MuonAdamW(ours, SPECS, config)
    names = ["table", "norm"] if muon else list(SPECS)
    reference = {name: parameter for name, parameter in theirs.named_parameters() if name in names}
    groups = [
        {"params": [p for p in reference.values() if p.ndim >= 2], "weight_decay": 0.3},
        {"params": [p for p in reference.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    oracle = torch.optim.AdamW(groups, lr=0.02, betas=(0.8, 0.9), eps=1e-8)
    for step, scale in enumerate([0.1, 0.5, 1.0, 1.0, 0.7, 0.3]):
        random_gradients(ours, step)
        random_gradients(theirs, step)
        for group in oracle.param_groups:
            group["lr"] = 0.02 * scale
        optimizer.step(scale)
        oracle.step()
    for name, parameter in reference.items():
        assert (ours.get_parameter(name) - parameter).abs().max() < 1e-6, name
    assert (ours.norm - Toy().norm).abs().max() > 1e-2


def test_muon_over_several_steps_is_nesterov_momentum_then_orthogonalisation():
    model, weight, momentum = Toy(), Toy().wide.detach(), torch.zeros(4, 9)
    optimizer = MuonAdamW(model, SPECS, OptimizerConfig(lr=0.03, weight_decay=0.2, max_grad_norm=1e9))
    for step in range(5):
        random_gradients(model, step)
        grad = model.wide.grad.clone()
        momentum = 0.95 * momentum + 0.05 * grad
        ahead = 0.95 * momentum + 0.05 * grad
        weight = weight * (1 - 0.03 * 0.2) - 0.03 * 0.2 * math.sqrt(9) * orthogonalise(ahead[None])[0]
        optimizer.step()
    assert torch.allclose(model.wide, weight, atol=1e-5)


def test_weight_decay_of_muon_shrinks_by_the_rate():
    still, decayed = Toy(), Toy()
    for model, decay in ((still, 0.0), (decayed, 0.5)):
        random_gradients(model, 0)
        MuonAdamW(model, SPECS, OptimizerConfig(lr=0.1, weight_decay=decay)).step(0.5)
    for name in ("matrix", "wide", "expert"):
        shrunk = 0.1 * 0.5 * 0.5 * Toy().get_parameter(name)
        assert torch.allclose(still.get_parameter(name) - decayed.get_parameter(name), shrunk, atol=1e-6), name


def test_gradients_are_clipped_by_their_norm_over_all_and_cleared():
    model = Toy()
    optimizer = MuonAdamW(model, SPECS, OptimizerConfig(betas=(0.5, 0.9), max_grad_norm=2.0))
    random_gradients(model, 0)
    grads = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    norm = math.sqrt(sum(float(grad.square().sum()) for grad in grads.values()))
    assert optimizer.step() == pytest.approx(norm, rel=1e-5) and norm > 2.0
    assert torch.allclose(optimizer.state["norm"]["first"], 0.5 * grads["norm"] * 2.0 / norm, rtol=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_frozen_parameters_and_those_without_a_gradient_stay():
    model = Toy()
    model.wide.requires_grad_(False)
    optimizer = MuonAdamW(model, SPECS, OptimizerConfig())
    random_gradients(model, 0)
    model.table.grad = None
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, Toy().get_parameter(name)) == (name in ("wide", "table")), name


def stepped(model: Toy, optimizer: MuonAdamW, steps: range) -> None:
    for step in steps:
        random_gradients(model, step)
        optimizer.step(1.0 / (1 + step))


def test_a_saved_state_continues_bit_for_bit():
    whole = Toy()
    optimizer = MuonAdamW(whole, SPECS, OptimizerConfig(lr=0.05))
    stepped(whole, optimizer, range(3))
    buffer = io.BytesIO()
    torch.save({"model": whole.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    stepped(whole, optimizer, range(3, 7))
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    resumed = Toy()
    resumed.load_state_dict(saved["model"])
    again = MuonAdamW(resumed, SPECS, OptimizerConfig(lr=0.05))
    again.load_state_dict(saved["optimizer"])
    stepped(resumed, again, range(3, 7))
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, resumed.get_parameter(name)), name


def test_a_loaded_state_is_a_copy():
    first, second = Toy(), Toy()
    one, two = (MuonAdamW(model, SPECS, OptimizerConfig()) for model in (first, second))
    stepped(first, one, range(2))
    two.load_state_dict(one.state_dict())
    kept = two.state["wide"]["momentum"].clone()
    stepped(first, one, range(2))
    assert torch.equal(two.state["wide"]["momentum"], kept)


def test_reset_state_forgets_everything():
    used, fresh = Toy(), Toy()
    optimizer = MuonAdamW(used, SPECS, OptimizerConfig())
    stepped(used, optimizer, range(3))
    optimizer.reset_state()
    fresh.load_state_dict(used.state_dict())
    other = MuonAdamW(fresh, SPECS, OptimizerConfig())
    for model, which in ((used, optimizer), (fresh, other)):
        random_gradients(model, 9)
        which.step()
    assert all(torch.equal(p, fresh.get_parameter(name)) for name, p in used.named_parameters())
