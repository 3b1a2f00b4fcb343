"""Fixtures: a small source of code, and the tiny record's first stages of one seed, up to the sparse one."""

import shutil
import sysconfig
from pathlib import Path

import pytest
from tinyrecord import RECIPE

from arcforge.claims.record import of_seed
from arcforge.core.runs import RunFolder
from arcforge.pipeline.recipe import load_recipe
from arcforge.pipeline.run import run_stage
from arcforge.pipeline.workspace import STAGES, Workspace

MODULES = ("argparse.py", "ast.py", "csv.py", "json", "logging")


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    folder, library = tmp_path_factory.mktemp("source"), Path(sysconfig.get_paths()["stdlib"])
    for name in MODULES:
        copy = shutil.copytree if (library / name).is_dir() else shutil.copyfile
        copy(library / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def record(source, tmp_path_factory):
    """The tiny record's recipe."""
    return load_recipe(RECIPE, [f"run.folder={tmp_path_factory.mktemp('record') / 'run'}", f"data.source={source}"])


@pytest.fixture(scope="session")
def work(record):
    """The seed's workspace, its stages done up to the sparse one."""
    recipe = of_seed(record, 0)
    made = Workspace(recipe, RunFolder(recipe.run.folder).create())
    for number, stage in enumerate(STAGES[: STAGES.index("sparse") + 1], 1):
        run_stage(made, number, stage)
    return made
