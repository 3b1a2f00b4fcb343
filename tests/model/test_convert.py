"""Checkpoints in other number formats, and what `inspect` tells of them."""

import json
import math
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from arcforge.core.errors import UserError
from arcforge.model import convert as conversion
from arcforge.model.checkpoint import expected_shapes, load_checkpoint, load_reward_model, save_checkpoint
from arcforge.model.config import ModelConfig
from arcforge.model.convert import convert
from arcforge.model.counts import count
from arcforge.model.hf_config import hf_config
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


def test_inspect_of_broken_weights_is_a_user_error(source):
    for file in source.glob("model*.safetensors"):
        file.write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot be read"):
        describe(source)


def test_inspect_tells_what_does_not_fit_the_config(source):
    file = next(source.glob("model-*.safetensors"))
    tensors = load_file(file)
    tensors["model.layers.7.extra.weight"] = tensors.pop("model.norm.weight")
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:5].clone()
    save_file(tensors, file)
    text = describe(source)
    assert "missing     1: model.norm.weight" in text
    assert "ill-shaped  1: lm_head.weight (5, 160), not (64, 160)" in text
    assert "unexpected  1: model.layers.7.extra.weight" in text


def test_inspect_of_glm5_without_weights(tmp_path):
    """The published sizes, from a config alone; tensors of that size could not be allocated here."""
    types = tuple("full" if i < 3 or i % 4 == 2 else "shared" for i in range(78))
    glm5 = ModelConfig(
        vocab_size=154880, hidden_size=6144, num_hidden_layers=78, first_k_dense_replace=3, num_attention_heads=64,
        q_lora_rank=2048, kv_lora_rank=512, qk_nope_head_dim=192, qk_rope_head_dim=64, v_head_dim=256,
        intermediate_size=12288, moe_intermediate_size=2048, n_routed_experts=256, num_experts_per_tok=8,
        routed_scaling_factor=2.5, index_n_heads=32, index_head_dim=128, index_topk=2048, rope_theta=8e6,
        max_position_embeddings=1048576, indexer_types=types,
    )  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(hf_config(glm5, CONTROL)))
    text = describe(tmp_path)
    assert "743,377,000,704" in text and "753,329,940,480" in text and "no model*.safetensors here" in text
    shapes = expected_shapes(glm5)
    assert len(shapes) == 59_585 and sum(math.prod(shape) for shape in shapes.values()) == 753_329_940_480


class OneAtATime(StoredTensors):
    """Remembers the most elements of tensors that were alive at once."""

    alive = most = 0

    def read(self, name):
        tensor = super().read(name)
        kind = type(self)
        kind.alive += tensor.numel()
        kind.most = max(kind.most, kind.alive)
        weakref.finalize(tensor, self.gone, tensor.numel())
        return tensor

    @classmethod
    def gone(cls, elements):
        cls.alive -= elements


def test_conversion_holds_one_tensor_and_fills_shards(source, tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "StoredTensors", OneAtATime)
    convert(source, tmp_path / "bf16", "bfloat16", shard_bytes=30_000)
    largest = max(stored.elements for stored in StoredTensors(source).values())
    assert OneAtATime.most == largest < count(CONFIG).total / 4
    names = sorted(path.name for path in (tmp_path / "bf16").glob("model-*.safetensors"))
    assert len(names) > 3 and names[0] == f"model-00001-of-{len(names):05d}.safetensors"
    index = json.loads((tmp_path / "bf16" / "model.safetensors.index.json").read_text())
    found = {name: path.name for path in (tmp_path / "bf16").glob("model-*") for name in load_file(path)}
    assert index["weight_map"] == found
    for name, parameter in load_checkpoint(tmp_path / "bf16").named_parameters():
        assert torch.equal(parameter, dict(load_checkpoint(source).named_parameters())[name].bfloat16().float())
        break
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path / "bf16", dtype=torch.float32)
    assert torch.equal(oracle.lm_head.weight, load_checkpoint(source).lm_head.weight.bfloat16().float())


@pytest.mark.parametrize("damage", ["not a number", "truncated", "missing", "unexpected"])
def test_a_source_that_is_no_good_leaves_nothing_behind(source, tmp_path, damage):
    file = next(source.glob("model-*.safetensors"))
    tensors = load_file(file)
    if damage == "not a number":
        tensors["model.norm.weight"][3] = float("nan")
        told = "model.norm.weight holds values that are not finite"
    elif damage == "missing":
        del tensors["model.norm.weight"]
        told = "tensor model.norm.weight is missing"
    elif damage == "unexpected":
        tensors["model.layers.0.self_attn.rotary.weight"] = torch.ones(3)
        told = "model.layers.0.self_attn.rotary.weight belongs to no part"
    save_file(tensors, file)
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-10])
        told = "cannot be read"
    with pytest.raises(UserError, match=told) as error:
        convert(source, tmp_path / "out", "fp8")
    assert str(source) in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_saved_again_with_fewer_shards_keeps_none_of_the_old(tmp_path):
    model = new_model(CONFIG, seed=0)
    save_checkpoint(model, tmp_path, shard_bytes=30_000)
    assert len(list(tmp_path.glob("model-*"))) > 3
    save_checkpoint(model, tmp_path)
    assert [path.name for path in tmp_path.glob("model-*")] == ["model-00001-of-00001.safetensors"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    load_checkpoint(tmp_path)
