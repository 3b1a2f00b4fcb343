"""The copying circuit does what it says before any training."""

import pytest
import torch

from arcforge.core.errors import UserError
from arcforge.kernels.attention.naive import attention_distribution
from arcforge.model.config import ModelConfig
from arcforge.model.initialise import new_model

CONFIG = ModelConfig(vocab_size=256)


@pytest.fixture(scope="module")
def model():
    return new_model(CONFIG, seed=0, copying=True).eval()


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def attention(model, ids: torch.Tensor, head: int) -> torch.Tensor:
    """Probabilities [T, T] of one head of the first layer."""
    first = model.layers[0]
    layout = model.layout(torch.zeros_like(ids))
    x = first.input_layernorm(model.embed_tokens(ids))
    _, nope, rope = first.self_attn._queries(x, layout)
    q = torch.cat((nope, rope), -1).transpose(1, 2)[:, head, None]
    k = first.self_attn._expand(*first.self_attn._latents(x, layout))[0][:, head, None]
    return attention_distribution(
        q.squeeze(1)[:, None], k.squeeze(1)[:, None], layout.visible(0, ids.shape[1]), CONFIG.qk_head_dim**-0.5
    )[0]


@pytest.mark.parametrize(("head", "back"), [(0, 1), (1, 2)])
def test_the_look_back_heads_attend_to_one_place_from_everywhere(model, head, back):
    looked = torch.diagonal(attention(model, tokens(1, 600), head), -back)
    assert len(looked) == 600 - back and looked.min() > 0.99


@torch.no_grad()
def predictions(model, ids: torch.Tensor) -> torch.Tensor:
    return model.lm_head(model(ids, model.layout(torch.zeros_like(ids))).hidden_BTD).argmax(-1)


def test_a_repeated_text_is_continued(model):
    once = tokens(4, 60)
    predicted = predictions(model, torch.cat((once, once), 1))
    assert (predicted[:, 62:-1] == once[:, 3:]).float().mean() > 0.97


def test_the_value_of_a_key_is_copied_over_the_sign_between_them(model):
    """ "a = x" is stored once; after a later "a =" the circuit says x, though "=" stood before many values."""
    generator = torch.Generator().manual_seed(2)
    keys, values = torch.randperm(255, generator=generator)[:40].view(2, 20) + 1
    facts = torch.stack((keys, torch.zeros_like(keys), values), 1).flatten()
    questions = torch.stack((keys.flip(0), torch.zeros_like(keys)), 1)
    ids = torch.stack([torch.cat((facts, question)) for question in questions])
    assert (predictions(model, ids)[:, -1] == values.flip(0)).float().mean() > 0.9


def test_a_fresh_model_without_the_circuit_does_neither():
    once = tokens(4, 60)
    predicted = predictions(new_model(CONFIG, seed=0).eval(), torch.cat((once, once), 1))
    assert (predicted[:, 62:-1] == once[:, 3:]).float().mean() < 0.2


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 1}, {"num_attention_heads": 1}, {"kv_lora_rank": 32}])
def test_a_model_too_small_for_the_circuit_says_so(changes):
    with pytest.raises(UserError, match="copying_init"):
        new_model(CONFIG.model_copy(update=changes), seed=0, copying=True)
