"""Every recipe that ships: it builds, is small, plans its cost without training, and binds its run folder."""

import re

import pytest
from tinyrun import RECIPE

from arcforge.core.config import count_fields
from arcforge.core.errors import UserError
from arcforge.core.runs import RunFolder
from arcforge.model.config import ModelConfig
from arcforge.pipeline.recipe import Recipe, load_recipe
from arcforge.pipeline.run import keep_config, remove_half_written, run_recipe

RECIPES = [*sorted((RECIPE.parents[2] / "recipes").glob("*.toml")), RECIPE]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_builds_and_its_plan_creates_nothing(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_recipe(path, [], dry_run=True)
    text = capsys.readouterr().out
    assert re.search(r"^parameters: [\d,]+ total, [\d,]+ active per token", text, re.M)
    assert all(re.search(rf"^{stage} ", text, re.M) for stage in ("pretrain", "sft", "agentic_rl", "total"))
    assert not list(tmp_path.iterdir())


def test_fewer_than_100_fields_outside_the_model():
    assert count_fields(Recipe) - count_fields(ModelConfig) < 100


def test_a_folder_keeps_its_recipe(tmp_path):
    run, recipe = RunFolder(tmp_path / "run").create(), load_recipe(RECIPE)
    keep_config(run, recipe)
    keep_config(run, load_recipe(RECIPE, ["run.save_seconds=5", "run.folder=elsewhere"]))
    with pytest.raises(UserError, match=r"a run with sft\.lr=0\.002; set run\.folder to begin another"):
        keep_config(run, load_recipe(RECIPE, ["sft.lr=0.1"]))


def test_only_what_a_killed_writer_left_is_removed(tmp_path):
    kept = (".lock", "config.toml", ".config.toml", "stages/.git")
    for name in (*kept, ".config.toml.ab12_xyz", "stages/.model.safetensors.k3jd92ls"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_half_written(tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == set(kept)
