"""Checkpoints in other number formats, and what `inspect` tells of them."""

import json

import pytest
import torch

from arcforge.core.errors import UserError
from arcforge.model.checkpoint import load_checkpoint, load_reward_model, save_checkpoint
from arcforge.model.config import ModelConfig
from arcforge.model.convert import convert
from arcforge.model.counts import count
from arcforge.model.initialise import new_model
from arcforge.model.inspect import describe
from arcforge.model.reward import RewardModel
from arcforge.model.stored import StoredTensors

CONFIG = ModelConfig(
    vocab_size=64, hidden_size=160, num_hidden_layers=2, num_attention_heads=2, q_lora_rank=24, kv_lora_rank=16,
    qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=16, intermediate_size=48, moe_intermediate_size=16,
    n_routed_experts=4, index_n_heads=4, index_head_dim=16, index_topk=16,
)  # fmt: skip
CONTROL = {"bos_token_id": None, "eos_token_id": [3, 5], "pad_token_id": 3}
TEMPLATE = "{{- '[gMASK]<sop><|user|>' -}}<think></think>"


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    save_checkpoint(new_model(CONFIG, seed=0), folder, "float32", CONTROL)
    added = [{"content": name} for name in ("[gMASK]", "<sop>", "<|user|>", "<think>")]
    tokenizer = {"added_tokens": added, "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@torch.no_grad()
def test_through_fp8_and_back_the_weights_are_near_and_the_rest_is_kept(source, tmp_path):
    convert(source, tmp_path / "fp8", "fp8")
    convert(tmp_path / "fp8", tmp_path / "back", "float32")
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()
    before, after = load_checkpoint(source), load_checkpoint(tmp_path / "back")
    assert json.loads((tmp_path / "back" / "config.json").read_text())["eos_token_id"] == [3, 5]
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        assert torch.allclose(old, new, rtol=0.07, atol=1e-3), name
    assert any(not torch.equal(old, new) for old, new in zip(before.parameters(), after.parameters()))


def test_bfloat16_is_exactly_the_rounded_weights(source, tmp_path):
    convert(source, tmp_path / "bf16", "bfloat16")
    before, after = load_checkpoint(source), load_checkpoint(tmp_path / "bf16")
    assert torch.equal(before.embed_tokens.weight.bfloat16().float(), after.embed_tokens.weight)


def test_a_reward_model_keeps_its_head(tmp_path):
    model = RewardModel(new_model(CONFIG, seed=0))
    torch.nn.init.ones_(model.score.weight)
    save_checkpoint(model, tmp_path / "reward")
    convert(tmp_path / "reward", tmp_path / "bf16", "bfloat16")
    found = load_reward_model(tmp_path / "bf16")
    assert found is not None and torch.equal(found.score.weight, torch.ones(1, CONFIG.hidden_size))


@pytest.mark.parametrize("dtype", ["int4", ""])
def test_an_unknown_format_is_refused(source, tmp_path, dtype):
    with pytest.raises(UserError, match="choose one of float32, bfloat16, fp8"):
        convert(source, tmp_path / "target", dtype)


def test_a_folder_that_holds_something_is_not_overwritten(source, tmp_path):
    with pytest.raises(UserError, match="exists and is not empty"):
        convert(source, source, "fp8")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="exists and is not empty"):
        convert(source, tmp_path / "file", "fp8")


def test_inspect_counts_what_is_stored(source, tmp_path):
    assert sum(tensor.elements for tensor in StoredTensors(source).values()) == count(CONFIG).total
    text = describe(source)
    assert f"{count(CONFIG).total:,}" in text and "top 16" in text and "F32" in text
    assert "control tokens  4: [gMASK] <sop> <|user|> <think>" in text and "lacks </think>" in text
    convert(source, tmp_path / "fp8", "fp8")
    assert "F8_E4M3" in describe(tmp_path / "fp8")


def test_inspect_of_a_folder_without_weights_is_a_user_error(source):
    for file in source.glob("model*.safetensors"):
        file.write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot be read"):
        describe(source)
    for file in source.glob("model*.safetensors"):
        file.unlink()
    with pytest.raises(UserError, match="no model\\*\\.safetensors here"):
        describe(source)
