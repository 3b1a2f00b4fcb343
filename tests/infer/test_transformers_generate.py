"""Greedy tokens are those of `transformers.generate` on the same weights, wherever its two best logits differ enough."""

import pytest
import torch
from running import CONFIG, prompts, run, tokens
from transformers import GlmMoeDsaForCausalLM

from arcforge.core.messages import Sampling
from arcforge.infer.engine import EngineConfig, load_engine
from arcforge.model.checkpoint import save_checkpoint
from arcforge.model.initialise import new_model

NEW = 40  # far beyond top-k with any prompt
GAP = 1e-4


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A checkpoint folder with norms away from 1, and transformers' model of it. With so many index heads no two keys score
    exactly 0: transformers breaks such ties one way with a cache and another way without."""
    model, folder = (
        new_model(CONFIG.model_copy(update={"index_n_heads": 16}), seed=6),
        tmp_path_factory.mktemp("weights"),
    )
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.mul_(1 + 0.3 * torch.randn(parameter.shape, generator=generator))
    save_checkpoint(model, folder)
    return folder, GlmMoeDsaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def generated(oracle, prompt: list[int]) -> tuple[list[int], list[float]]:
    """transformers' greedy continuation, and by how much each token won."""
    out = oracle.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    gaps = [float(best[0] - best[1]) for best in (logits[0].topk(2).values for logits in out.logits)]
    return out.sequences[0, len(prompt) :].tolist(), gaps


@pytest.mark.parametrize(
    "config",
    [{}, {"drafts": 3}, {"deterministic": True}, {"prefill_tokens": 16}, {"cache_tokens": 192}],
    ids=["plain", "drafts", "deterministic", "chunked prefill", "preempted"],
)
def test_greedy_is_transformers_greedy(pair, config):
    folder, oracle = pair
    engine = load_engine(folder, EngineConfig(max_running=6, max_length=96, **config))
    outputs = run(engine, [(p, Sampling(temperature=0, max_tokens=NEW)) for p in prompts(8)])
    compared = 0
    for i, prompt in enumerate(prompts(8)):
        theirs, gaps = generated(oracle, prompt)
        certain = next((t for t, gap in enumerate(gaps) if gap <= GAP), NEW)
        assert tokens(outputs[str(i)])[:certain] == theirs[:certain]
        compared += certain
    assert compared > 6 * NEW, "near ties must not have ended the comparison early"
