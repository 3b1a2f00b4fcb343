"""The house's floors: every room imports only what stands below it, and the tensor half and the text half stay apart.

The table is the architecture; a change here is a change of the architecture. Imports inside functions count too.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "arcforge"
MEETING_FLOOR = 5
BELOW = "everything below"
TENSOR_LIBRARIES = {"torch", "triton", "torchvision", "transformers", "safetensors"}
TENSOR_FILES_OF_DATA = {"data/batches.py"}


@dataclass(frozen=True)
class Room:
    """Its floor, its half ("text", "tensor", "both" below the meeting floor, "meet" above) and its direct imports."""

    floor: int
    half: str
    imports: str = ""


ROOMS = {
    "core": Room(0, "both"),
    "chat": Room(1, "both"),
    "kernels": Room(1, "tensor"),
    "sandbox": Room(1, "text"),
    "launch": Room(1, "text"),
    "view": Room(1, "text"),
    "model": Room(2, "tensor", "kernels"),
    "optim": Room(2, "tensor"),
    "data": Room(2, "both", "chat"),
    "clients": Room(2, "text", "chat"),
    "agents": Room(2, "text"),
    "rewards": Room(2, "text"),
    "parallel": Room(3, "tensor", "model optim"),
    "envs": Room(3, "text", "sandbox agents rewards"),
    "infer": Room(4, "tensor", "kernels model parallel"),
    "train": Room(4, "tensor", "model optim data parallel chat"),
    "rollout": Room(4, "text", "agents envs sandbox rewards clients"),
    "serve": Room(5, "meet", "infer chat launch clients"),
    "evals": Room(5, "text", "rollout rewards clients agents envs"),
    "rl": Room(6, "meet", "rollout train infer serve launch clients chat model optim data"),
    "pipeline": Room(7, "meet", BELOW),
    "claims": Room(8, "meet", BELOW),
    "cli": Room(9, "meet", BELOW),
}


def allowed(name):
    """Rooms that `name` may import directly, itself and core included."""
    room = ROOMS[name]
    below = {other for other, r in ROOMS.items() if r.floor < room.floor}
    return {name, "core"} | (below if room.imports == BELOW else set(room.imports.split()))


def imported_modules(file, package=PACKAGE):
    """(line, absolute module name) of everything a file imports, wherever in the file, import_module("...") included."""
    tree = ast.parse(file.read_text(), str(file))
    parents = ["arcforge", *file.relative_to(package).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def violations(package=PACKAGE):
    """Every import that the table forbids, as "file:line: what"."""
    found = []
    for file in sorted(package.rglob("*.py")):
        place = file.relative_to(package).as_posix()
        room = place.split("/")[0] if "/" in place else ""
        for line, module in imported_modules(file, package):
            reason = forbidden(place, room, module.split("."))
            found += [f"{place}:{line}: {reason}"] if reason else []
    return found


def forbidden(place, room, module):
    """Why the import of `module` (its dotted parts) from the file at `place` is forbidden; empty if it is not."""
    if room and room not in ROOMS:
        return f"room {room} is not in the table"
    if module[0] != "arcforge":
        light = room and ROOMS[room].half in ("text", "both") and place not in TENSOR_FILES_OF_DATA
        return f"the text half imports {module[0]}" if light and module[0] in TENSOR_LIBRARIES else ""
    target = module[1] if len(module) > 1 else ""
    if not room:
        return f"the package's root imports {target}" if target in ROOMS else ""
    if target in ROOMS and target not in allowed(room):
        return f"{room} imports {target}"
    if room == "rl" and {"orchestrator", "trainer"} <= {
        role(place.split("/")[1]),
        role(module[2] if module[2:] else ""),
    }:
        return "orchestrator and trainer know each other"
    return ""


def role(name):
    return next((part for part in ("orchestrator", "trainer") if part in name), name)


def test_the_table_itself_points_down_and_keeps_the_halves_apart():
    for name, room in ROOMS.items():
        for other in allowed(name) - {name, "core"}:
            assert ROOMS[other].floor < room.floor, f"{name} stands no higher than {other}"
            if room.floor < MEETING_FLOOR and "both" not in (room.half, ROOMS[other].half):
                assert ROOMS[other].half == room.half, f"{name} and {other} are of different halves"


def test_every_room_is_in_the_table():
    rooms = {file.relative_to(PACKAGE).parts[0] for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE}
    assert rooms <= set(ROOMS), f"not in the table: {sorted(rooms - set(ROOMS))}"
    assert (PACKAGE / "core" / "trajectory.py").exists()


def test_imports_only_point_down():
    found = violations()
    assert not found, "\n" + "\n".join(found)


def test_the_tensor_files_of_data_exist():
    assert all((PACKAGE / place).exists() for place in TENSOR_FILES_OF_DATA)


BREACHES = {
    "model/a.py": ("from arcforge.chat.tokenizer import Tokenizer", "model imports chat"),
    "agents/a.py": ("def f():\n    import arcforge.rewards.rules", "agents imports rewards"),
    "envs/chat/a.py": ("from ...infer import engine", "envs imports infer"),
    "core/a.py": ("if True:\n    from arcforge import chat", "core imports chat"),
    "view/a.py": ("def f():\n    import torch.nn", "the text half imports torch"),
    "data/filters.py": ("from torch import Tensor", "the text half imports torch"),
    "rollout/a.py": ("import importlib\nimportlib.import_module('arcforge.rl')", "rollout imports rl"),
    "rl/orchestrator.py": ("from arcforge.rl.trainer import Trainer", "orchestrator and trainer know each other"),
    "rl/trainer.py": ("from . import orchestrator", "orchestrator and trainer know each other"),
    "utils/a.py": ("import json", "room utils is not in the table"),
    "top.py": ("from arcforge import model", "the package's root imports model"),
}


@pytest.mark.parametrize("place", BREACHES)
def test_a_breach_is_found(tmp_path, place):
    source, reason = BREACHES[place]
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text(source)
    assert [breach.partition(": ")[2] for breach in violations(tmp_path)] == [reason]


def test_what_the_table_allows_passes(tmp_path):
    (tmp_path / "rl").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "rl" / "trainer.py").write_text("import torch\nfrom arcforge.train import loop\nfrom .samples import S")
    (tmp_path / "data" / "batches.py").write_text("import torch\nfrom arcforge.core.errors import UserError")
    assert violations(tmp_path) == []
