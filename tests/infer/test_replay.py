"""The replay bundle names the very experts and keys that a full forward of the same tokens reads."""

import numpy as np
import pytest
import torch
from running import CONFIG, prompts, run, tokens

from arcforge.core.messages import Sampling
from arcforge.infer.engine import Engine, EngineConfig
from arcforge.model.initialise import new_model


@torch.no_grad()
def read_by_a_forward(model, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """experts [T, M, K] and the mask of selected keys [T, L, T] of one plain forward over whole rows."""
    experts, masks = [], []
    hooks = [r.register_forward_hook(lambda m, i, out: experts.append(out[1])) for r in model.routers()]
    for layer in model.layers:
        hooks.append(layer.self_attn.register_forward_hook(lambda m, i, out: masks.append(out.selection)))
    row = torch.tensor([ids])
    model(row, model.layout(torch.zeros_like(row), sparse=True))
    for hook in hooks:
        hook.remove()
    whole = [torch.nn.functional.pad(m, (0, len(ids) - m.shape[-1])) for chunks in masks for m, _ in chunks]
    return torch.stack(experts, 1).numpy(), torch.stack(whole, 2)[0].numpy()


@pytest.mark.parametrize(
    "types", [("full", "full"), ("full", "shared")], ids=["own indexers", "the second layer shares"]
)
@pytest.mark.parametrize("config", [{}, {"prefill_tokens": 16}, {"cache_tokens": 160}, {"deterministic": True}])
def test_a_forward_reads_what_the_bundle_says(types, config):
    model = new_model(CONFIG.model_copy(update={"indexer_types": types}), seed=1)
    engine = Engine(model, EngineConfig(max_running=8, max_length=96, drafts=2, **config))
    requests = [(p, Sampling(max_tokens=30, seed=i, replay=i % 2 == 0)) for i, p in enumerate(prompts(8))]
    outputs = run(engine, requests)
    for i, (prompt, sampling) in enumerate(requests):
        replay = outputs[str(i)].replay
        if not sampling.replay:
            assert replay is None
            continue
        ids = (prompt + tokens(outputs[str(i)]))[:-1]
        experts, selected = read_by_a_forward(model, ids)
        assert replay.experts.shape == experts.shape and replay.experts.dtype == np.uint16
        assert (np.sort(replay.experts, -1) == np.sort(experts, -1)).all()
        assert replay.selected.shape == (len(ids), 2, CONFIG.index_topk) and replay.selected.dtype == np.int32
        for t in range(len(ids)):
            for layer in range(2):
                named = replay.selected[t, layer]
                assert named[named >= 0].tolist() == selected[t, layer].nonzero()[0].tolist()
                assert (named[(named >= 0).sum() :] == -1).all(), "the padding comes last"
