"""The record's page and plan."""

import json
import re

import pytest
from synthetic_record import raw
from tinyrecord import RECIPE

from arcforge.claims.readme import SECTIONS, cpu_model, machine, render
from arcforge.claims.record import COMPARISONS, of_seed, run_record
from arcforge.core.errors import UserError
from arcforge.core.runs import RunFolder
from arcforge.pipeline.recipe import load_recipe
from arcforge.pipeline.run import keep_config


@pytest.fixture(scope="module")
def text():
    return render(json.loads(json.dumps(raw())))


def test_every_table_is_whole(text):
    """Each line of a table has as many cells as its head."""
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.M)
    assert len(tables) == 2 + 2 + 1 + 2 + 2 + 4 * 2 + 1
    for lines in (table.splitlines() for table in tables):
        assert len({line.count("|") for line in lines}) == 1 and len(lines) > 2
        assert set(lines[1]) <= set("|-: ")


def test_a_seed_without_comparisons_leaves_its_cells_empty():
    numbers = raw()
    numbers["seeds"]["1"]["comparisons"] = {}
    text = render(numbers)
    assert "| Cheaper attention against DSA | the claim | held |  |" in text
    assert "| teachers | 100 | 150 |  |  |" in text and "| all | 960 | 1,440 | 660 | 990 |" in text


def test_what_was_run_and_where(text):
    assert "Command: `arcforge run recipes/laptop-record.toml`" in text
    assert "Machine: 2 cores of A CPU, Linux, Python 3.12, torch 2.11, arcforge 0.1." in text


def test_a_claim_that_failed_says_so_in_its_seeds_column(text):
    assert "| comparison | target | seed 0 | seed 1 |" in text
    assert "| Cheaper attention against DSA | the claim | held | **not held** |" in text
    assert "| Distillation against its teachers | the claim | – | – |" in text


def test_numbers_of_every_kind_are_there(text):
    for line in (
        "| 1 sft to agentic_rl | agentic | 512 | 10.0 | 50.0 | +40.0 [+35.0, +45.0] |",
        "| trained | windows_first | 50.0 [40.0, 60.0] | 50.0 [40.0, 60.0] |",
        "| 0 three steps | 1,200,000 | 300 | 1.650 | 2.25 [2.15, 2.35] | 0.600 | 0.400 | 0.300 |",
        "| 0 sft | recall | 2048 | 90.0 | 88.0 | -2.0 [-3.0, -1.0] |",
        "| distill | 40.0 [30.0, 50.0] | 40.0 [30.0, 50.0] |",
        "| pretrain | 1.65 | 2.82 |",
        "| agentic_rl | 60 | 90 | 60 | 90 |",
        "| teachers | 100 | 150 | 100 | 150 |",
        "| all | 960 | 1,440 | 960 | 1,440 |",
    ):
        assert line in text, line


def test_every_comparison_has_its_section():
    assert list(SECTIONS) == list(COMPARISONS)


def test_the_machine_is_described(tmp_path):
    told = machine()
    assert told["cores"] >= 1 and told["cpu"] and told["torch"]
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU: 3 GHz\nmodel name\t: Other\n")
    assert cpu_model(tmp_path / "cpuinfo") == "Some CPU: 3 GHz" and cpu_model(tmp_path / "none") == ""


def test_the_plan_names_seeds_and_comparisons_and_creates_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_record(RECIPE, ["record.seeds=[3, 5]", "record.compared=[0, 5]"], dry_run=True)
    text = capsys.readouterr().out
    assert text.splitlines()[-1] == (
        "record: the above with seeds 3, 5; for 5 the comparisons attention, multi_token, teachers"
    )
    assert 'folder = "runs/tiny-record/seed-3"' in text and "\nseed = 3\n" in text and "[record]" not in text
    assert not list(tmp_path.iterdir())


def test_a_recipe_without_the_section_is_no_record():
    with pytest.raises(UserError, match=r"tiny\.toml: no \[record\] section"):
        run_record(RECIPE.parent.parent / "pipeline" / "tiny.toml", [])


def test_a_record_keeps_its_recipe_but_may_be_given_more_seeds(tmp_path):
    run, recipe = RunFolder(tmp_path / "run").create(), load_recipe(RECIPE)
    keep_config(run, recipe)
    assert "base =" not in run.config.read_text() and load_recipe(run.config) == recipe
    keep_config(run, load_recipe(RECIPE, ["record.seeds=[0, 1]"]))
    with pytest.raises(UserError, match=r"a run with record\.teacher_tasks=4"):
        keep_config(run, load_recipe(RECIPE, ["record.teacher_tasks=3"]))
    plain = RunFolder(tmp_path / "plain").create()
    keep_config(plain, of_seed(recipe, 0))
    with pytest.raises(UserError, match=r"a run with record\.teacher_tasks=None"):
        keep_config(plain, recipe)


def test_other_attention_is_refused_before_anything_is_trained():
    changes = ['model.attention_types=["window", "full"]', "model.sliding_window=4"]
    with pytest.raises(UserError, match=r"model\.attention_types: a glm_moe_dsa checkpoint cannot hold window layers"):
        load_recipe(RECIPE, changes)
