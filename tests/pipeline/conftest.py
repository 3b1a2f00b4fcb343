"""Fixtures: a small source of code, an undisturbed run of the tiny recipe, and copies of it."""

import shutil
import sysconfig
from pathlib import Path

import pytest
from tinyrun import TinyRun

MODULES = ("argparse.py", "ast.py", "csv.py", "textwrap.py", "json", "logging")


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A small source of code: a few modules of the standard library."""
    folder, library = tmp_path_factory.mktemp("source"), Path(sysconfig.get_paths()["stdlib"])
    for name in MODULES:
        copy = shutil.copytree if (library / name).is_dir() else shutil.copyfile
        copy(library / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def runs():
    """Every TinyRun started through it is dead at the end of the session."""
    made: list[TinyRun] = []
    yield made
    for run in made:
        if run.starts and run.process.poll() is None:
            run.kill()


@pytest.fixture(scope="session")
def side_by_side(tmp_path_factory, source, runs):
    """(undisturbed, killed): two runs that began at once. The first was left alone up to the end of reasoning RL, the
    second was killed in the middle of pretraining."""
    both = [TinyRun(tmp_path_factory.mktemp(name) / "run", source) for name in ("undisturbed", "killed")]
    runs += both
    for run in both:
        run.start()
    both[1].until_step("pretrain", 3).kill()
    both[0].until_done("reasoning_rl").kill()
    return both


@pytest.fixture(scope="session")
def reference(side_by_side):
    """A run that nobody disturbed, up to reasoning RL."""
    return side_by_side[0]


@pytest.fixture
def copy_of_reference(reference, tmp_path, runs):
    """Another run that stands where the reference was stopped. `stages`: how many of its stages are kept."""

    def copy(stages=6):
        run = TinyRun(tmp_path / "run", reference.source)
        runs.append(run)
        shutil.copytree(reference.folder, run.folder)
        for folder in sorted((run.folder / "stages").iterdir())[stages:]:
            shutil.rmtree(folder)
        return run

    return copy
