"""MTP arms on a tiny pretraining."""

import json

import pytest

from arcforge.claims import multi_token
from arcforge.core.runs import read_jsonl


@pytest.fixture(scope="module")
def result(work, record, tmp_path_factory):
    """Begun over what a killed first arm left."""
    folder = tmp_path_factory.mktemp("multi_token")
    (folder / "three_steps").mkdir()
    (folder / "three_steps" / "metrics.jsonl").write_text('{"stage": "pretrain", "step": 1, "cpu_seconds": 1e9}\n')
    return multi_token.compare(work, record.record, folder), folder


def test_the_third_arm_has_the_tokens_that_the_first_ones_cpu_time_pays_for(result, work):
    rows, batch = result[0]["rows"], work.recipe.pretrain.batch_tokens
    three, one, longer = rows
    assert [row["mtp_steps"] for row in rows] == [3, 1, 1]
    assert three["tokens"] == one["tokens"] == work.recipe.pretrain.tokens
    assert 0 < three["cpu_seconds"] < 1e6, "the killed arm's seconds do not count"
    assert longer["tokens"] == round(one["tokens"] * three["cpu_seconds"] / one["cpu_seconds"]) // batch * batch


def test_arms_differ_in_their_mtp_steps_alone(result):
    _, folder = result
    three, one = (read_jsonl(folder / arm / "metrics.jsonl") for arm in ("three_steps", "one_step"))
    assert three[0]["nll"] == one[0]["nll"] and "mtp_nll_3" in three[0] and "mtp_nll_2" not in one[0]
    assert [row["step"] for row in three] == [row["step"] for row in one]


def test_acceptance_is_measured_in_groups_of_prompts(result):
    for row in result[0]["rows"]:
        assert row["prompts"] == 20 and len(row["groups"]) == 2 and len(row["per_position"]) == 3
        assert row["low"] <= row["value"] <= row["high"] and row["value"] == pytest.approx(sum(row["groups"]) / 2)
        assert row["bits_per_byte"] > 0
    assert result[0]["held"] is all(row["low"] > 0 for row in result[0]["differences"])
    assert "three steps minus one" in multi_token.markdown({"0": result[0]})


def test_finished_arms_are_kept(result, work, record):
    found, folder = result
    assert not (folder / "one_step" / "trainer").exists()
    arm = json.loads((folder / "one_step" / "arm.json").read_text())
    (folder / "one_step" / "arm.json").write_text(json.dumps({**arm, "groups": [9.0, 9.0]}))
    again = multi_token.compare(work, record.record, folder)
    assert again["rows"][0] == found["rows"][0] and again["rows"][1]["groups"] == [9.0, 9.0]
    assert again["differences"][0]["value"] < -5 and not again["held"]
    assert "against the report" in again["says"][0]
