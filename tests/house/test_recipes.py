"""Recipes: few fields, every shipped one builds, and every key the documentation sets exists."""

import shlex

import pytest
from test_docs import DOCS, ROOT, command_lines, fenced

from arcforge.core.config import build, count_fields, override, read_toml
from arcforge.core.errors import UserError
from arcforge.model.config import ModelConfig
from arcforge.pipeline.recipe import Recipe

RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
MOST_FIELDS = 100


def test_a_recipe_may_set_fewer_than_100_fields():
    """The model section holds a checkpoint's config.json keys, which are not counted."""
    assert 10 < count_fields(Recipe) - count_fields(ModelConfig) < MOST_FIELDS


def test_the_recipes_of_the_documentation_ship():
    assert {"laptop.toml", "smoke.toml"} <= {path.name for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_builds(path):
    build(Recipe, read_toml(path), path.name)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_typo_is_refused_with_the_nearest_key(path):
    with pytest.raises(UserError, match=r"unknown key run\.sead; the nearest is run\.seed"):
        build(Recipe, override(read_toml(path), ["run.sead=1"]), path.name)


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_overrides_in_the_documentation_are_keys(doc, tmp_path):
    text = doc.read_text()
    for line in command_lines(text):
        words = shlex.split(line, comments=True)
        if words[:2] == ["arcforge", "run"]:
            changes = [word for word in words[3:] if "=" in word and not word.startswith("--")]
            build(Recipe, override(read_toml(ROOT / words[2]), changes), f"{doc.name}: {line}")
    for language, body in fenced(text):
        if language == "toml":
            recipe = tmp_path / "recipe.toml"
            recipe.write_text(f'base = "{ROOT / "recipes" / "laptop.toml"}"\n{body}')
            build(Recipe, read_toml(recipe), f"{doc.name}: a toml block")
