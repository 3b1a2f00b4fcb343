"""Router, balance loss and aux-loss-free balancing."""

import pytest
import torch

from arcforge.model.config import ModelConfig
from arcforge.model.initialise import new_model
from arcforge.model.moe import MoE, Router

SIZES = {"vocab_size": 32, "hidden_size": 16, "n_routed_experts": 16, "moe_intermediate_size": 8}


def config(**changes) -> ModelConfig:
    return ModelConfig(**{**SIZES, **changes})


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def router_of(settings: ModelConfig) -> Router:
    router = Router(settings)
    with torch.no_grad():
        router.weight.copy_(random(settings.n_routed_experts, settings.hidden_size, seed=1))
        router.e_score_correction_bias.copy_(random(settings.n_routed_experts, seed=2) * 0.5)
    return router


@pytest.mark.parametrize(("groups", "kept", "K"), [(1, 1, 4), (4, 2, 4), (4, 1, 2), (8, 3, 5)])
def test_the_router_chooses_in_the_best_groups_and_weighs_without_the_bias(groups, kept, K):
    settings = config(n_group=groups, topk_group=kept, num_experts_per_tok=K, routed_scaling_factor=2.5)
    router, x = router_of(settings), random(30, 16)
    with torch.no_grad():
        weights, experts, scores = router(x)
    size = 16 // groups
    for n in range(30):
        score = [1 / (1 + float(torch.exp(-(router.weight[e].detach() @ x[n])))) for e in range(16)]
        choice = [score[e] + float(router.e_score_correction_bias[e]) for e in range(16)]
        strength = [sum(sorted(choice[g * size : (g + 1) * size])[-2:]) for g in range(groups)]
        best = sorted(range(groups), key=lambda g: -strength[g])[:kept]
        allowed = [e for g in best for e in range(g * size, (g + 1) * size)]
        expected = sorted(allowed, key=lambda e: -choice[e])[:K]
        assert sorted(experts[n].tolist()) == sorted(expected)
        total = sum(score[e] for e in expected)
        for weight, e in zip(weights[n].tolist(), experts[n].tolist(), strict=True):
            assert weight == pytest.approx(2.5 * score[e] / total, rel=1e-4)
        assert scores[n].tolist() == pytest.approx(score, rel=1e-4)


def test_without_normalisation_the_weights_are_the_scores():
    settings = config(norm_topk_prob=False, routed_scaling_factor=0.5)
    weights, experts, scores = router_of(settings)(random(9, 16))
    assert torch.allclose(weights, 0.5 * scores.gather(1, experts))


def test_the_bias_gets_no_gradient_and_the_scores_do():
    router = router_of(config())
    router(random(9, 16))[0][:, 0].sum().backward()
    assert router.weight.grad.abs().max() > 0
    assert not router.e_score_correction_bias.requires_grad


def routed(layer: MoE, rows: list[list[int]]) -> torch.Tensor:
    """Balance loss when token t of row b goes to expert rows[b][t] (K = 1): its score is 1, all others are 0.5."""
    with torch.no_grad():
        layer.gate.weight.copy_(100 * torch.eye(4, 16))
    return layer(torch.nn.functional.one_hot(torch.tensor(rows), 16).float())[1].detach()


@pytest.fixture
def four_experts() -> MoE:
    model = new_model(config(n_routed_experts=4, num_experts_per_tok=1), seed=0).train()
    layer = model.layers[1].mlp
    assert isinstance(layer, MoE)
    return layer


def test_the_balance_loss_is_one_when_balanced_and_grows_per_sequence(four_experts):
    assert float(routed(four_experts, [[0, 1, 2, 3], [3, 2, 1, 0]])) == pytest.approx(1.0)
    # All tokens of a row at one expert: f = 4, P = 1 / 2.5. Over the batch the two rows would look half balanced.
    assert float(routed(four_experts, [[0, 0, 0, 0], [1, 1, 1, 1]])) == pytest.approx(1.6)
    assert float(routed(four_experts, [[0, 0, 0, 0], [0, 1, 2, 3]])) == pytest.approx(1.3)


def test_equal_scores_are_balanced_whoever_is_chosen(four_experts):
    with torch.no_grad():
        four_experts.gate.weight.zero_()
    assert float(four_experts(random(2, 10, 16))[1].detach()) == pytest.approx(1.0)


def test_load_is_counted_in_training_alone(four_experts):
    routed(four_experts, [[0, 0, 0, 2]])
    assert four_experts.gate.load.tolist() == [3, 0, 1, 0]
    four_experts.eval()
    assert four_experts(random(1, 4, 16))[1] is None
    assert four_experts.gate.load.tolist() == [3, 0, 1, 0]


def test_the_bias_rises_for_idle_experts_and_falls_for_busy_ones():
    model = new_model(config(n_routed_experts=4), seed=0)
    busy, idle = model.routers()[:2]
    busy.load.copy_(torch.tensor([10.0, 4.0, 2.0, 0.0]))
    model.update_router_bias(0.01)
    assert busy.e_score_correction_bias.tolist() == pytest.approx([-0.01, 0.0, 0.01, 0.01])
    assert idle.e_score_correction_bias.tolist() == [0, 0, 0, 0], "no tokens, no update"
    assert busy.load.tolist() == [0, 0, 0, 0]


def test_updates_of_the_bias_even_the_load_out():
    model = new_model(config(n_routed_experts=4, num_experts_per_tok=1), seed=0).train()
    layer = model.layers[1].mlp
    assert isinstance(layer, MoE)
    x = random(1, 200, 16) + 0.7 * random(16, seed=7)

    @torch.no_grad()
    def uneven() -> float:
        layer(x)
        share = layer.gate.load / layer.gate.load.sum()
        return float(share.max() - share.min())

    before = uneven()
    for _ in range(60):
        model.update_router_bias(0.01)
        after = uneven()
    assert before > 0.3 and after < 0.1
