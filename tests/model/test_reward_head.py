"""The reward model: one number from the last real token."""

import pytest
import torch

from arcforge.model.checkpoint import load_reward_model, save_checkpoint
from arcforge.model.config import ModelConfig
from arcforge.model.initialise import new_model
from arcforge.model.reward import RewardModel

CONFIG = ModelConfig(
    vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, q_lora_rank=24, kv_lora_rank=16,
    qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=16, intermediate_size=48, moe_intermediate_size=16,
    n_routed_experts=4, index_n_heads=8, index_head_dim=16, index_topk=8,
)  # fmt: skip
LENGTHS = (1, 5, 12, 20)


@pytest.fixture(scope="module")
def model() -> RewardModel:
    reward = RewardModel(new_model(CONFIG, seed=2)).eval()
    with torch.no_grad():
        reward.score.weight.copy_(torch.randn(1, 32, generator=torch.Generator().manual_seed(1)))
    return reward


@pytest.fixture(scope="module")
def rows() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(0, 64, (length,), generator=generator) for length in LENGTHS]


def padded(rows: list[torch.Tensor], width: int, fill: int) -> torch.Tensor:
    return torch.stack([torch.cat((row, torch.full((width - len(row),), fill))) for row in rows])


@torch.no_grad()
def scores(model: RewardModel, ids: torch.Tensor, lengths=LENGTHS) -> torch.Tensor:
    return model(ids, torch.tensor(lengths))


@pytest.mark.parametrize(("width", "fill"), [(20, 0), (20, 63), (27, 0), (40, 17)])
def test_the_last_real_token_is_read_whatever_the_padding(model, rows, width, fill):
    alone = torch.cat([scores(model, row[None], (len(row),)) for row in rows])
    together = scores(model, padded(rows, width, fill))
    assert together.shape == (4,) and together.dtype == torch.float32
    assert torch.allclose(together, alone, atol=1e-5)
    assert alone.std() > 0.1


def test_the_score_is_the_head_on_the_trunks_last_hidden_state(model, rows):
    ids = rows[2][None]
    with torch.no_grad():
        hidden = model.trunk(ids, model.trunk.layout(torch.zeros_like(ids), sparse=True)).hidden_BTD
    assert scores(model, ids, (12,)).item() == pytest.approx(
        float(model.score.weight.detach() @ hidden[0, -1]), abs=1e-5
    )


def test_what_comes_before_the_end_counts(model, rows):
    ids = padded(rows, 20, 0)
    before = scores(model, ids)
    ids[3, 0] = (ids[3, 0] + 1) % 64
    after = scores(model, ids)
    assert torch.equal(before[:3], after[:3]) and before[3] != after[3]


def test_a_saved_reward_model_scores_the_same(model, rows, tmp_path):
    save_checkpoint(model, tmp_path)
    again = load_reward_model(tmp_path)
    assert again is not None
    ids = padded(rows, 20, 0)
    assert torch.equal(scores(again, ids), scores(model, ids))
