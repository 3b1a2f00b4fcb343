"""What the stages minimise: multi-token prediction at document borders, and who gets which gradient in sparse training."""

import random

import pytest
import torch
import torch.nn.functional as F

from arcforge.data.batches import Batch
from arcforge.data.packing import PackedRows, Tokens, pack
from arcforge.data.sharing import pack_shared
from arcforge.model.indexer import indexer_divergence
from arcforge.model.initialise import new_model
from arcforge.model.specs import matrix_specs
from arcforge.optim.muon import MuonAdamW, OptimizerConfig
from arcforge.train.freezing import trainable
from arcforge.train.objectives import indexer_warmup, language_modelling, mtp_losses

DOCUMENTS = [[11, 12, 13, 14, 15, 16], [21, 22, 23], [31], [41, 42, 43, 44]]


@pytest.fixture
def model(config):
    return new_model(config, seed=0).train()


def packed(documents: list[list[int]], length: int) -> Batch:
    return Batch.of(pack([Tokens.of(d) for d in documents], length, "truncate"))


def random_batch(rows: int, length: int, seed: int = 0) -> Batch:
    rng = random.Random(seed)
    documents = [[rng.randrange(60) for _ in range(rng.randint(3, length))] for _ in range(rows)]
    return Batch.of(pack([Tokens.of(d) for d in documents], length, "truncate")[slice(0, rows)])


def nll(model, hidden, target: int) -> float:
    return -float(model.lm_head(hidden).log_softmax(-1)[target])


@torch.no_grad()
def drafted_alone(model, document: list[int], steps: int) -> list[list[float]]:
    """Per MTP step, the losses of one document that is a row of its own; nothing past its end is ever touched."""
    ids = torch.tensor([document])
    hidden = model(ids, model.layout(torch.zeros_like(ids))).hidden_BTD
    result: list[list[float]] = []
    for k in range(1, steps + 1):
        places = len(document) - k
        if places < 2:
            result.append([])
            continue
        layout = model.layout(torch.zeros(1, places, dtype=torch.long))
        hidden = model.draft_features(ids[:, k:], hidden[:, :places], layout).hidden_BTD
        result.append([nll(model, hidden[0, t], document[t + k + 1]) for t in range(places - 1)])
    return result


def test_mtp_never_looks_or_aims_across_a_document_border(model):
    """Four documents in one row, one cut by the row's end, against each document alone."""
    batch = packed([*DOCUMENTS, list(range(50, 55))], 16)[:1]
    assert batch.document_ids_BT[0].tolist() == [0] * 6 + [1] * 3 + [2] + [3] * 4 + [4] * 2
    features = model(batch.ids_BT, model.layout(batch.document_ids_BT, positions_BT=batch.positions_BT))
    losses = mtp_losses(model, batch, features, steps=3, share=1.0, sparse=False)
    alone = [drafted_alone(model, d, 3) for d in [*DOCUMENTS, [50, 51]]]
    for k, loss in enumerate(losses):
        expected = [value for document in alone for value in document[k]]
        assert len(expected) == [4 + 1 + 2, 3 + 1, 2][k]
        assert float(loss.detach()) == pytest.approx(sum(expected) / len(expected), abs=1e-4)


def test_mtp_over_a_shared_prefix_is_that_of_separate_rows(model):
    """One MTP step, as supervised fine-tuning takes it."""
    rng = random.Random(2)
    prompt = [rng.randrange(60) for _ in range(7)]
    answers = [[rng.randrange(60) for _ in range(rng.randint(3, 6))] for _ in range(4)]
    # No answer's first token is a target: one step further ahead it would be predicted from the prefix, which is nobody's.
    documents = [Tokens.of(prompt + a, [False] * (len(prompt) + 1) + [True] * (len(a) - 1)) for a in answers]
    shared, _ = pack_shared(documents, 48, 0)
    separate = PackedRows.concatenate([pack([d], 48, "truncate") for d in documents])
    assert len(shared) == 1
    values = []
    for rows in (shared, separate):
        batch = Batch.of(rows)
        scalars = language_modelling(model, batch, sparse=False, mtp_steps=1, mtp_weight=0.5)
        values.append((float(scalars["nll"].detach()), float(scalars["mtp_nll_1"].detach())))
    assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_the_loss_is_the_weighted_sum_of_its_parts(model):
    scalars = language_modelling(model, random_batch(4, 20), sparse=False, mtp_steps=3, mtp_weight=0.3)
    drafts = sum(scalars[f"mtp_nll_{k}"] for k in (1, 2, 3)) / 3
    expected = scalars["nll"] + 1e-3 * scalars["balance"] + 0.3 * drafts
    assert float(scalars["loss"].detach()) == pytest.approx(float(expected.detach()), rel=1e-6)


def test_a_batch_without_targets_has_loss_zero_and_gradients(model):
    batch = packed([[5], [6], [7]], 3)
    scalars = language_modelling(model.eval(), batch, sparse=False)
    scalars["loss"].backward()
    assert float(scalars["loss"].detach()) == 0.0 and model.embed_tokens.weight.grad is not None


def gradients(model, loss, group: str) -> list[torch.Tensor | None]:
    specs = matrix_specs(model)
    parameters = [p for name, p in model.named_parameters() if specs[name].group == group]
    return list(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True))


def test_in_sparse_adaptation_each_loss_reaches_only_its_own_parameters(model):
    batch = random_batch(3, 40)
    assert batch.positions_BT.max() > model.config.index_topk
    scalars = language_modelling(model, batch, sparse=True, indexer_loss=True)
    assert gradients(model, scalars["nll"], "indexer") == [None] * len(gradients(model, scalars["nll"], "indexer"))
    assert gradients(model, scalars["indexer_kl"], "trunk") == [None] * len(gradients(model, scalars["nll"], "trunk"))
    trunk = [g for g in gradients(model, scalars["nll"], "trunk") if g is not None]
    indexer = [g for g in gradients(model, scalars["indexer_kl"], "indexer") if g is not None]
    layers = model.config.num_hidden_layers
    assert len(indexer) == 5 * layers and all(g.abs().max() > 0 for g in indexer)
    assert len(trunk) > 10 * layers and sum(g.abs().max() > 0 for g in trunk) == len(trunk)


def test_the_divergence_is_kl_over_the_masked_keys():
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(2, 9, 9, dtype=torch.bool).tril() & (torch.rand(2, 9, 9, generator=generator) < 0.7)
    mask |= torch.eye(9, dtype=torch.bool)
    target = torch.rand(2, 9, 9, generator=generator) * mask
    target = target / target.sum(-1, keepdim=True)
    scores = torch.randn(2, 9, 9, generator=generator)
    ours = indexer_divergence(target, scores, mask)
    log_q = scores.masked_fill(~mask, -1e30).log_softmax(-1)
    expected = F.kl_div(log_q, target, reduction="none").masked_fill(~mask, 0).sum(-1)
    assert torch.allclose(ours, expected, atol=1e-5) and (ours > -1e-6).all()
    perfect = indexer_divergence(target, target.clamp(min=1e-30).log(), mask)
    assert torch.allclose(perfect, torch.zeros(2, 9), atol=1e-5)


def test_warm_up_lowers_the_divergence_and_moves_the_indexers_alone(config):
    model = new_model(config, seed=0).train()
    with torch.no_grad():
        for layer in [*model.layers, model.mtp]:
            layer.self_attn.q_b_proj.weight.mul_(3.0)
    specs = matrix_specs(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    divergences = []
    with trainable(model, specs, {"indexer"}):
        optimizer = MuonAdamW(model, specs, OptimizerConfig(lr=1e-2, weight_decay=0.0, muon=False))
        for step in range(40):
            scalars = indexer_warmup(model, random_batch(4, 32, seed=step))
            scalars["loss"].backward()
            optimizer.step()
            divergences.append(float(scalars["indexer_kl"].detach()))
    assert sum(divergences[-5:]) < 0.7 * sum(divergences[:5])
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (specs[name].group != "indexer"), name
    assert all(parameter.requires_grad for parameter in model.parameters())
