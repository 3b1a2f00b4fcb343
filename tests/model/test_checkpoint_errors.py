"""A folder that cannot be loaded says so in one line that names what is wrong."""

import json

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from arcforge.core.errors import UserError
from arcforge.model.checkpoint import load_checkpoint, load_reward_model, save_checkpoint
from arcforge.model.config import ModelConfig
from arcforge.model.hf_config import read_config
from arcforge.model.initialise import new_model

CONFIG = ModelConfig(
    vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, q_lora_rank=8, kv_lora_rank=8,
    qk_nope_head_dim=4, qk_rope_head_dim=4, v_head_dim=4, intermediate_size=16, moe_intermediate_size=8,
    n_routed_experts=2, index_n_heads=2, index_head_dim=8,
)  # fmt: skip
WEIGHTS = "model-00001-of-00001.safetensors"
EXPERT = "model.layers.1.mlp.experts.1.up_proj.weight"


@pytest.fixture
def folder(tmp_path):
    save_checkpoint(new_model(CONFIG, seed=0), tmp_path)
    return tmp_path


def refusal(folder) -> str:
    with pytest.raises(UserError) as error:
        load_checkpoint(folder)
    text = str(error.value)
    assert "\n" not in text and str(folder) in text
    return text


def edit_config(folder, **changes) -> None:
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**data, **changes}))


@pytest.mark.parametrize("name", ["lm_head.weight", EXPERT, "model.layers.2.shared_head.norm.weight"])
def test_a_missing_tensor_is_named(folder, name):
    tensors = load_file(folder / WEIGHTS)
    del tensors[name]
    save_file(tensors, folder / WEIGHTS)
    assert f"tensor {name} is missing" in refusal(folder)


def test_a_wrong_shape_is_named_with_both_shapes(folder):
    tensors = load_file(folder / WEIGHTS)
    tensors[EXPERT] = tensors[EXPERT][:, :15].contiguous()
    save_file(tensors, folder / WEIGHTS)
    assert f"{EXPERT} is (8, 15), the config says (8, 16)" in refusal(folder)


@pytest.mark.parametrize("model_type", ["llama", "deepseek_v32", None])
def test_another_model_type_is_refused(folder, model_type):
    edit_config(folder, model_type=model_type)
    text = refusal(folder)
    assert repr(model_type) in text and "glm_moe_dsa" in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"attention_bias": True}, "attention_bias=True"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings=True"),
        ({"indexer_types": ["full", "shared"]}, "indexer_types"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "yarn"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"qk_rope_head_dim": 5}, "qk_rope_head_dim must be even"),
        ({"scoring_func": "softmax"}, "scoring_func='softmax' is not supported"),
        ({"indexer_rope_interleave": False}, "indexer_rope_interleave=False"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling="),
        ({"mlp_layer_types": ["sparse", "sparse"]}, "mlp_layer_types"),
        ({"num_key_value_heads": 1}, "num_key_value_heads is 1"),
        ({"quantization_config": {"quant_method": "awq"}}, "'awq'"),
        ({"index_topkk": 7}, "unknown key index_topkk; the nearest known one is index_topk"),
        ({"indexer_types": ["full", "shared"]}, "disagree"),
    ],
)
def test_features_and_values_that_are_not_supported_are_named(folder, changes, told):
    edit_config(folder, **changes)
    assert told in refusal(folder)


def test_what_transformers_writes_is_known(folder):
    """Its own config of the same model, with every default spelt out, reads as the same model."""
    before = read_config(folder)
    AutoConfig.from_pretrained(folder).save_pretrained(folder)
    assert read_config(folder) == before


def test_a_folder_without_config_or_weights_says_what_belongs_there(folder):
    (folder / WEIGHTS).unlink()
    assert "model*.safetensors" in refusal(folder)
    (folder / "config.json").write_text("{")
    assert "not valid JSON" in refusal(folder)
    (folder / "config.json").unlink()
    assert "config.json: missing" in refusal(folder)


def test_a_policy_checkpoint_holds_no_reward_model(folder):
    assert load_reward_model(folder) is None
