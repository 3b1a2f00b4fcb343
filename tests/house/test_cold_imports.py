"""Importing the text half is light and silent: no torch, nothing printed, no file created, in a fresh interpreter."""

import subprocess
import sys

import pytest
from test_floors import PACKAGE, ROOMS, TENSOR_FILES_OF_DATA

CHECK = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
loaded = {"torch", "triton", "transformers"} & set(sys.modules)
sys.exit(f"loaded {sorted(loaded)}" if loaded else 0)
"""
LIGHT_ROOMS = [name for name, room in ROOMS.items() if room.half in ("text", "both") and (PACKAGE / name).is_dir()]


def modules(room):
    """Dotted names of a room's text modules."""
    files = [file.relative_to(PACKAGE) for file in sorted((PACKAGE / room).rglob("*.py"))]
    light = [file for file in files if file.as_posix() not in TENSOR_FILES_OF_DATA and file.stem != "__main__"]
    return [".".join(["arcforge", *file.with_suffix("").parts]).removesuffix(".__init__") for file in light]


def import_fresh(names, folder, path=""):
    """Import in a new interpreter whose home, caches and working directory are `folder`; returns what was wrong with it."""
    environment = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder), "TMPDIR": str(folder), "PYTHONPATH": str(path)}
    command = [sys.executable, "-B", "-c", CHECK, *names]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    created = sorted(file.name for file in folder.iterdir())
    return [
        text for text in (done.stdout.strip(), done.stderr.strip(), f"created {created}" if created else "") if text
    ]


@pytest.mark.parametrize("room", LIGHT_ROOMS)
def test_a_text_room_imports_light_and_silent(room, tmp_path):
    names = modules(room)
    assert names or not list((PACKAGE / room).rglob("*.py"))
    assert import_fresh(names, tmp_path) == []


def test_the_command_line_imports_light_and_silent(tmp_path):
    assert import_fresh(modules("cli"), tmp_path) == []


def test_what_serves_agents_beside_the_trainer_imports_light_and_silent(tmp_path):
    """Meeting rooms may import torch; a task worker with the door for agents that are programs must not."""
    assert import_fresh(["arcforge.pipeline.task_worker", "arcforge.rl.gateway_http"], tmp_path) == []


HEAVY_OR_NOISY = {
    "import torch": "loaded ['torch']",
    "print('hello')": "hello",
    "from pathlib import Path; Path('x').touch()": "created ['x']",
}


@pytest.mark.parametrize("source", HEAVY_OR_NOISY)
def test_a_heavy_or_noisy_module_is_found(source, tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "code" / "noisy.py").write_text(source)
    assert import_fresh(["noisy"], tmp_path / "home", tmp_path / "code") == [HEAVY_OR_NOISY[source]]
