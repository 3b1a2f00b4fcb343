"""Recipes: few fields, every shipped one builds, and every key the documentation sets exists."""

import importlib
import shlex
import tomllib

import pytest
from test_docs import DOCS, ROOT, command_lines, fenced
from test_floors import PACKAGE

from arcforge.core.config import build, count_fields, override, read_toml
from arcforge.core.errors import UserError

RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
MOST_FIELDS = 100

pytestmark = pytest.mark.skipif(
    not (PACKAGE / "pipeline" / "recipe.py").exists(), reason="there is no recipe model yet"
)


@pytest.fixture(scope="module")
def recipe():
    return importlib.import_module("arcforge.pipeline.recipe").Recipe


def assignments(table, prefix=""):
    """A TOML table as section.key=value overrides."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from assignments(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={str(value).lower() if isinstance(value, bool) else value}"


def test_a_recipe_may_set_fewer_than_100_fields(recipe):
    assert 10 < count_fields(recipe) < MOST_FIELDS


def test_the_recipes_of_the_documentation_ship():
    assert {"laptop.toml", "smoke.toml"} <= {path.name for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_builds(recipe, path):
    build(recipe, read_toml(path), path.name)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_typo_is_refused_with_the_nearest_key(recipe, path):
    with pytest.raises(UserError, match=r"unknown key run\.sead; the nearest is run\.seed"):
        build(recipe, override(read_toml(path), ["run.sead=1"]), path.name)


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_overrides_in_the_documentation_are_keys(recipe, doc):
    text = doc.read_text()
    for line in command_lines(text):
        words = shlex.split(line, comments=True)
        if words[:2] == ["arcforge", "run"]:
            changes = [word for word in words[3:] if "=" in word and not word.startswith("--")]
            build(recipe, override(read_toml(ROOT / words[2]), changes), f"{doc.name}: {line}")
    for language, body in fenced(text):
        if language == "toml":
            changes = list(assignments(tomllib.loads(body)))
            build(recipe, override(read_toml(ROOT / "recipes" / "laptop.toml"), changes), f"{doc.name}: a toml block")
