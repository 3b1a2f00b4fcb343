"""Any transformers model as the policy: packed rows against sequences one by one through the library's own forward pass."""

import json
import sys

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.errors import UserError
from arcforge.data.packing import Tokens, pack
from arcforge.data.sharing import pack_shared
from arcforge.rl.losses import double_sided
from arcforge.rl.micro_batches import separate
from arcforge.rl.policy import Policy
from arcforge.rl.samples import Sample, build_batch
from arcforge.rl.state import load_state, save_state
from arcforge.rl.transformers_policy import TransformersPolicyModel

SIZES = {
    "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 128, "initializer_range": 0.2,
}  # fmt: skip
CONFIGS = {
    "qwen3": transformers.Qwen3Config(**SIZES, head_dim=8, tie_word_embeddings=True),
    "llama": transformers.LlamaConfig(**SIZES),
    "qwen3_moe": transformers.Qwen3MoeConfig(
        **SIZES, head_dim=8, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2
    ),
    "gpt2": transformers.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, initializer_range=0.2),
    "mistral": transformers.MistralConfig(**SIZES, sliding_window=6),
    "gemma2": transformers.Gemma2Config(**SIZES, head_dim=8, sliding_window=6),
    "bloom": transformers.BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.2),
    "mamba": transformers.MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, state_size=4),
}
PACKS = {"qwen3", "llama", "qwen3_moe", "gpt2"}


def saved(folder, kind, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[kind]).to(dtype)
    model.save_pretrained(folder)
    return folder


def rollouts(groups=3, members=3, seed=0) -> list[Sample]:
    """Members of a group share a prompt of ten tokens; answers of two to nine, and an untrained stretch inside."""
    rng, result = np.random.default_rng(seed), []
    for group in range(groups):
        prompt = rng.integers(0, 97, 10)
        for member in range(members):
            size = int(rng.integers(2, 10))
            ids = np.concatenate([prompt, rng.integers(0, 97, size + 3 + size)]).astype(np.int32)
            mask = np.repeat([False, True, False, True], [10, size, 3, size])
            logprobs = np.where(mask, rng.normal(-4, 0.5, len(ids)), 0).astype(np.float32)
            versions = np.where(mask, group, -1).astype(np.int32)
            advantage = float(rng.normal())
            result.append(
                Sample(f"{group}-{member}", ids, logprobs, mask, versions, advantage, 1 / members / groups, 2 * size)
            )
    return result


def alone(module, ids) -> torch.Tensor:
    """Log-probs of ids[1:], by the library."""
    row = torch.tensor(np.asarray(ids))[None].long()
    return module(row).logits[0, :-1].log_softmax(-1).gather(1, row[0, 1:, None]).squeeze(1)


@pytest.mark.parametrize("kind", CONFIGS)
def test_packed_log_probs_are_those_of_each_sequence_alone(kind, tmp_path):
    model = TransformersPolicyModel.load(saved(tmp_path, kind))
    assert model.packs == (kind in PACKS), "rows of several documents, exactly for those that keep them apart"
    texts = [Tokens.of(sample.ids, sample.mask) for sample in rollouts()]
    unshared = pack(texts, 70, "best_fit")
    shared, sizes = pack_shared(texts, 70, 0)
    assert max(sizes) > 0 and len(shared) < len(unshared) < len(texts)
    with torch.no_grad():
        expected = {n: alone(model.module, text.ids)[text.mask[1:]] for n, text in enumerate(texts)}
        for rows in (unshared, shared):
            rows = rows if model.packs else separate(rows)
            owners = rows.document_ids[rows.loss_mask]
            scored = model.score(rows).logprobs_N
            for n, logprobs in expected.items():
                torch.testing.assert_close(scored[owners == n], logprobs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_both_implementations_of_attention_honour_the_mask(implementation, tmp_path):
    saved(tmp_path, "qwen3")
    module = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=implementation)
    assert TransformersPolicyModel(module, tmp_path).packs


@pytest.mark.parametrize("micro_tokens", [8192, 70])
@pytest.mark.parametrize("kind", ["qwen3", "llama", "mistral"])
def test_the_gradient_is_the_sum_of_that_of_single_sequences(kind, micro_tokens, tmp_path):
    module = transformers.AutoModelForCausalLM.from_pretrained(saved(tmp_path, kind))
    samples = rollouts()
    ratios = []
    for sample in samples:
        train = alone(module, sample.ids)[torch.from_numpy(sample.mask[1:])]
        ratio = (train.detach() - torch.from_numpy(sample.logprobs[sample.mask])).exp()
        kept = torch.where((ratio > 0.2) & (ratio < 4), ratio, 0)
        (-(kept * train).sum() * sample.advantage * sample.share / sample.rollout_tokens).backward()
        ratios.append(ratio.numpy())
    policy = Policy(TransformersPolicyModel.load(tmp_path), lr=1e-3, micro_tokens=micro_tokens)
    batch = build_batch(samples, 60, 0)
    update = policy.update(batch, batch.advantages, double_sided_loss)
    for n, ratio in enumerate(ratios):
        np.testing.assert_allclose(update.ratios[update.samples == n], ratio, rtol=1e-3)
    expected = {name: parameter.grad for name, parameter in module.named_parameters()}
    assert set(policy.optimizer.state) == set(expected)
    for name, slots in policy.optimizer.state.items():
        grad = slots["first"] / 0.1 * max(1.0, update.metrics["grad_norm"] + 1e-6)
        assert (grad - expected[name]).norm() <= 1e-3 * expected[name].norm() + 1e-7, name


def double_sided_loss(train, rollout, scores, mask, weights):
    return double_sided(train, rollout, scores, mask, weights_BT=weights)


def test_a_rewarded_token_becomes_likely(tmp_path):
    """Sampled by the policy itself: one token of the answer is rewarded, the others are not."""
    policy = Policy(TransformersPolicyModel.load(saved(tmp_path, "qwen3")), lr=3e-3)
    prompt, wanted, rng = [5, 6, 7], 11, torch.Generator().manual_seed(0)

    def log_probs() -> torch.Tensor:
        with torch.no_grad():
            return policy.model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)

    start = float(log_probs()[wanted])
    for step in range(8):
        old = log_probs()
        drawn = torch.multinomial(old.exp(), 30, replacement=True, generator=rng).tolist() + [wanted] * 2
        rewards = np.array([float(token == wanted) for token in drawn])
        samples = [
            Sample(
                f"{step}-{n}",
                np.array([*prompt, token], dtype=np.int32),
                np.array([0, 0, 0, float(old[token])], dtype=np.float32),
                np.array([False, False, False, True]),
                np.array([-1, -1, -1, step], dtype=np.int32),
                float(rewards[n] - rewards.mean()),
                1 / len(drawn),
                1,
            )
            for n, token in enumerate(drawn)
        ]
        batch = build_batch(samples, 64, 0, "token_mean")
        update = policy.update(batch, batch.advantages, double_sided_loss)
        assert update.ratios.mean() == pytest.approx(1, abs=1e-4) and update.kept.all()
    assert float(log_probs()[wanted]) > start + 1


def test_a_step_is_saved_and_resumed_to_the_same_weights(tmp_path):
    source = saved(tmp_path / "source", "qwen3")
    batch = build_batch(rollouts(), 60, 0)
    first, second = (Policy(TransformersPolicyModel.load(source), lr=1e-3) for _ in range(2))
    first.update(batch, batch.advantages, double_sided_loss)
    save_state(tmp_path / "state.pt", first, step=1)
    assert load_state(tmp_path / "state.pt", second) == {"step": 1}
    for policy in (first, second):
        policy.update(batch, batch.advantages, double_sided_loss)
    first.save(tmp_path / "saved")
    again = TransformersPolicyModel.load(tmp_path / "saved").module.state_dict()
    for name, tensor in second.model.state_dict().items():
        assert torch.equal(tensor, first.model.state_dict()[name]) and torch.equal(tensor, again[name]), name


@pytest.mark.parametrize("kind", ["qwen3", "qwen3_moe"])
def test_a_saved_folder_is_the_source_with_other_weights(kind, tmp_path):
    """Same files, names and dtypes (an engine chooses its precision by them), tokenizer included, nothing left behind."""
    source = saved(tmp_path / "source", kind, torch.bfloat16)
    Tokenizer.train(["one two three"] * 4, 290).save(source)
    policy = Policy(TransformersPolicyModel.load(source), lr=1e-2)
    assert {parameter.dtype for parameter in policy.model.parameters()} == {torch.float32}
    batch = build_batch(rollouts(), 60, 0)
    policy.update(batch, batch.advantages, double_sided_loss)
    policy.save(tmp_path / "saved")
    assert {f.name for f in (tmp_path / "saved").iterdir()} == {f.name for f in source.iterdir()}
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "saved"))
    assert {n: (t.dtype, t.shape) for n, t in before.items()} == {n: (t.dtype, t.shape) for n, t in after.items()}
    assert not any(torch.equal(before[name], after[name]) for name in before if name.endswith("_proj.weight"))
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config == json.loads((source / "config.json").read_text())


def test_what_is_no_causal_language_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="no readable config"):
        TransformersPolicyModel.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of"}')
    with pytest.raises(UserError, match="reads no causal language model here"):
        TransformersPolicyModel.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "quantization_config": {}}')
    with pytest.raises(UserError, match="quantised weights cannot be trained"):
        TransformersPolicyModel.load(tmp_path)
    transformers.ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="reads no causal language model here"):
        TransformersPolicyModel.load(tmp_path)
    bert = transformers.BertConfig(vocab_size=97, hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    transformers.BertForMaskedLM(bert).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="lets tokens see later ones"):
        TransformersPolicyModel.load(tmp_path)


def test_a_missing_tensor_is_named(tmp_path):
    saved(tmp_path, "llama")
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lm_head\.weight is missing"):
        TransformersPolicyModel.load(tmp_path)


def test_without_transformers_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'arcforge\[hf\]'"):
        TransformersPolicyModel.load(tmp_path)
