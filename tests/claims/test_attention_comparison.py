"""Every attention of the comparison on a real, tiny run."""

import json

import pytest

from arcforge.claims import attention
from arcforge.core.runs import read_jsonl
from arcforge.model.checkpoint import load_checkpoint
from arcforge.model.pattern import Pattern
from arcforge.pipeline.evaluate import retrieval, retrieval_report

pytestmark = pytest.mark.slow
ARMS = ("windows_first", "full_first", "windows_searched", "gdn", "simple_gdn")


@pytest.fixture(scope="module")
def result(work, record, tmp_path_factory):
    folder = tmp_path_factory.mktemp("attention")
    return attention.compare(work, record.record, folder), folder


def cells(result, checkpoint, kind):
    wanted = {"checkpoint": checkpoint, "attention": kind}
    return [row for row in result["rows"] if wanted.items() <= row.items()]


def test_every_attention_answers_the_same_questions_at_every_length(result, work):
    found, _ = result
    kinds = {(row["checkpoint"], row["attention"]) for row in found["rows"]}
    arms = {(when, arm) for when in ("midtrain", "trained") for arm in ARMS}
    assert kinds == {("midtrain", "dense"), ("trained", "dense"), ("trained", "dsa")} | arms
    assert all([row["length"] for row in cells(found, *kind)] == [128, 256] for kind in kinds)
    assert len({(row["length"], row["total"], row["chance"]) for row in found["rows"]}) == 2
    evaluated = retrieval_report(work, load_checkpoint(work.checkpoint("sparse")), sparse=True)
    ours = cells(found, "trained", "dense") + cells(found, "trained", "dsa")
    assert [{k: v for k, v in row.items() if k != "checkpoint"} for row in ours] == evaluated


def test_every_arm_trains_on_the_tokens_of_the_sparse_stage(result, work):
    found, folder = result
    sparse = read_jsonl(work.run.metrics)
    for arm in ARMS:
        rows = read_jsonl(folder / arm / "metrics.jsonl")
        for phase in ("warmup", "adapt"):
            mine = [row["step"] for row in rows if row["stage"] == f"{arm}-{phase}"]
            assert mine == [row["step"] for row in sparse if row["stage"] == f"sparse-{phase}"]
        assert not (folder / arm / "trainer").exists()
    assert found["tokens"] == 4 * 512 and found["window"] == 32


def test_the_claim_is_what_the_intervals_say(result):
    found, _ = result
    pairs = [(row["better"], row["worse"]) for row in found["differences"]]
    assert pairs == [*(("dsa", arm) for arm in ARMS), *attention.ALSO]
    assert all(row["length"] == 256 for row in found["differences"])
    assert found["held"] is all(row["low"] > 0 for row in found["differences"][: len(ARMS)])
    text = attention.markdown({"0": json.loads(json.dumps(found))})
    assert "| trained | windows_first |" in text and "Seed 0: dsa" in text and "(S window, F full, per cent): " in text


def test_the_search_scores_every_single_layer_on_rows_of_its_own(result, work):
    found, _ = result
    assert sorted(text for text, _ in found["patterns"]) == ["FS", "SF"]
    best = found["patterns"][0][0]
    assert found["types"]["gdn"] == tuple("gdn" if letter == "S" else "full" for letter in best)
    model = load_checkpoint(work.checkpoint("midtrain"))
    made = attention.exchanged(model, found["types"]["windows_searched"], found["window"])
    (again,) = retrieval(work, made, False, (128,), attention.SEARCH_SEED)
    assert sum(again.found) / len(again.found) == found["patterns"][0][1]


def test_arms_of_three_layers():
    arms = attention.arms_of(3, Pattern((0, 1), 0.5))
    assert arms["windows_first"] == ("window", "full", "window") and arms["full_first"] == ("full", "window", "full")
    assert arms["windows_searched"] == ("window", "window", "full")
    assert arms["simple_gdn"] == ("simple_gdn", "simple_gdn", "full")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 0.3, "as in the report"), (-0.3, -0.1, "against the report"), (-0.1, 0.2, "not shown to find more")],
)
def test_sentences_follow_the_interval(low, high, said):
    row = {"better": "dsa", "worse": "gdn", "length": 2048, "value": (low + high) / 2, "low": low, "high": high}
    assert said in attention._said(row)
