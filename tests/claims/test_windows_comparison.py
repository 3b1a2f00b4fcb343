"""Interleaved windows on a real, tiny run."""

import json

import pytest
import torch

from arcforge.claims import windows
from arcforge.core.runs import read_jsonl
from arcforge.model.checkpoint import load_checkpoint
from arcforge.pipeline.evaluate import retrieval_report


@pytest.fixture(scope="module")
def result(work, record, tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows")
    return windows.compare(work, record.record, folder), folder


def cells(result, checkpoint, attention):
    wanted = {"checkpoint": checkpoint, "attention": attention}
    return [row for row in result["rows"] if wanted.items() <= row.items()]


def test_every_attention_answers_the_same_questions_at_every_length(result, work):
    found, _ = result
    kinds = {(row["checkpoint"], row["attention"]) for row in found["rows"]}
    orders = {(when, order) for when in ("midtrain", "trained") for order in windows.ORDERS}
    assert kinds == {("midtrain", "dense"), ("trained", "dense"), ("trained", "dsa")} | orders
    assert all([row["length"] for row in cells(found, *kind)] == [128, 256] for kind in kinds)
    assert len({(row["length"], row["total"], row["chance"]) for row in found["rows"]}) == 2
    evaluated = retrieval_report(work, load_checkpoint(work.checkpoint("sparse")), sparse=True)
    ours = cells(found, "trained", "dense") + cells(found, "trained", "dsa")
    assert [{k: v for k, v in row.items() if k != "checkpoint"} for row in ours] == evaluated


def test_windows_train_on_the_tokens_of_the_sparse_stage(result, work):
    found, folder = result
    sparse = read_jsonl(work.run.metrics)
    for order in windows.ORDERS:
        rows = read_jsonl(folder / order / "metrics.jsonl")
        for phase in ("warmup", "adapt"):
            mine = [row["step"] for row in rows if row["stage"] == f"{order}-{phase}"]
            assert mine == [row["step"] for row in sparse if row["stage"] == f"sparse-{phase}"]
        assert not (folder / order / "trainer").exists()
    assert found["tokens"] == 4 * 512 and found["window"] == 32


def test_the_claim_is_what_the_intervals_say(result):
    found, _ = result
    assert [row["order"] for row in found["differences"]] == list(windows.ORDERS)
    assert all(row["length"] == 256 for row in found["differences"])
    assert found["held"] is all(row["low"] > 0 for row in found["differences"])
    text = windows.markdown({"0": json.loads(json.dumps(found))})
    assert "| trained | windows_first |" in text and "Seed 0: DSA" in text


@pytest.mark.parametrize(("first", "layers"), [(0, (8, 0)), (1, (0, 8))])
def test_every_second_layer_has_a_window(work, first, layers):
    model = load_checkpoint(work.checkpoint("midtrain"))
    made = windows.with_windows(model, 8, first)
    assert made.config.layer_windows == layers and not made.training
    ids = torch.arange(40)[None]
    with torch.no_grad():
        full, near = (m(ids, m.layout(torch.zeros_like(ids))).hidden_BTD for m in (model, made))
    assert torch.allclose(full[:, :8], near[:, :8], atol=1e-5) and not torch.allclose(full, near, atol=1e-3)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 0.3, "as in the report"), (-0.3, -0.1, "against the report"), (-0.1, 0.2, "not shown to find more")],
)
def test_sentences_follow_the_interval(low, high, said):
    row = {"order": "full_first", "length": 2048, "value": (low + high) / 2, "low": low, "high": high}
    assert said in windows._said(row)
