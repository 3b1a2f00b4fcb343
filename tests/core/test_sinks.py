"""Where rows of metrics go: JSON lines always; TensorBoard files read back by TensorBoard's own reader; W&B when asked."""

import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from arcforge.core import sinks
from arcforge.core.errors import UserError
from arcforge.core.metrics import JsonLines
from arcforge.core.runs import read_jsonl
from arcforge.core.sinks import open_sink

ROWS = [
    {"stage": "pretrain", "step": 1, "loss": 2.5, "note": "text", "flag": True, "list": [1, 2]},
    {"stage": "pretrain", "step": 2, "loss": float("nan"), "tokens": 7},
    {"stage": "agentic_rl", "step": 1, "by_family/swe/reward": 0.25, "by_staleness/3-4/clip_high_share": 0.5},
]


@pytest.fixture(autouse=True)
def no_account(monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)


def write(path, rows, also=()):
    sink = open_sink(path, also)
    for row in rows:
        sink.write(row)
    sink.close()


def curves(folder):
    """Per tag the (step, value) pairs that TensorBoard shows."""
    reader = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def test_json_lines_alone_unless_more_is_asked_for(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert isinstance(open_sink(path), JsonLines)
    write(path, ROWS)
    assert [row["step"] for row in read_jsonl(path)] == [1, 2, 1]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_tensorboard_shows_every_finite_number_stage_by_stage(tmp_path):
    write(tmp_path / "metrics.jsonl", [*ROWS, {"stage": "no step", "loss": 1.0}], ["tensorboard"])
    assert curves(tmp_path / "tensorboard" / "pretrain") == {"loss": [(1, 2.5)], "tokens": [(2, 7.0)]}
    assert curves(tmp_path / "tensorboard" / "agentic_rl") == {
        "by_family/swe/reward": [(1, 0.25)],
        "by_staleness/3-4/clip_high_share": [(1, 0.5)],
    }
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    assert len(rows) == 4 and rows[0]["list"] == [1, 2] and rows[1]["loss"] is None


def test_a_resumed_stage_replaces_the_steps_that_it_repeats(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [{"stage": "sft", "step": step, "loss": 1.0} for step in (1, 2, 3)], ["tensorboard"])
    write(path, [{"stage": "sft", "step": step, "loss": 0.5} for step in (2, 3)], ["tensorboard"])
    assert curves(tmp_path / "tensorboard" / "sft")["loss"] == [(1, 1.0), (2, 0.5), (3, 0.5)]
    assert len(read_jsonl(path)) == 5


def test_writing_to_tensorboard_never_loads_torch(tmp_path):
    code = (
        "import sys, pathlib; from arcforge.core.sinks import open_sink\n"
        "sink = open_sink(pathlib.Path(sys.argv[1]), ['tensorboard'])\n"
        "sink.write({'stage': 's', 'step': 1, 'loss': 1.0}); sink.close()\n"
        "raise SystemExit('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "metrics.jsonl")]
    found = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert not found.stdout and curves(tmp_path / "tensorboard" / "s") == {"loss": [(1, 1.0)]}


def refusal(path, name):
    with pytest.raises(UserError) as error:
        open_sink(path, [name])
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_package_that_is_missing_is_named_with_what_to_install(tmp_path, monkeypatch, name):
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(p for p in sys.path if "site-packages" not in p)])
    assert f"metrics sink {name}: No module named" in refusal(tmp_path / "metrics.jsonl", name)
    (tmp_path / name).mkdir()  # what an earlier run left in the working folder
    monkeypatch.delitem(sys.modules, name, raising=False)
    assert f"pip install arcforge[{name}]" in refusal(tmp_path / "metrics.jsonl", name)
    sys.modules.pop(name, None)


def test_an_unknown_sink_is_refused(tmp_path):
    assert "'csv' is unknown; choose from tensorboard, wandb" in refusal(tmp_path / "metrics.jsonl", "csv")


RECORDER = """
import json, os
calls = open(os.environ["CALLS"], "a")
def note(*call):
    calls.write(json.dumps(call) + chr(10)); calls.flush()
class Settings(dict): pass
class Run:
    def define_metric(self, name, step_metric): note("define", name, step_metric)
    def log(self, values):
        note("log", values)
        if values.get("sft/loss") == 13: raise ConnectionError("gone")
    def finish(self): note("finish")
def init(**options):
    note("init", options["id"], options["name"], options["dir"])
    return Run()
"""


@pytest.fixture
def wandb_calls(tmp_path, monkeypatch):
    """A package named wandb that writes down what it is told; returns the reader of that."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "wandb.py").write_text(RECORDER)
    monkeypatch.syspath_prepend(tmp_path / "package")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    yield lambda: read_jsonl(tmp_path / "calls")
    sys.modules.pop("wandb", None)


def test_wandb_gets_each_stage_on_its_own_axis_and_continues_the_folders_run(tmp_path, monkeypatch, wandb_calls):
    path = tmp_path / "laptop" / "metrics.jsonl"
    assert "set WANDB_API_KEY, or WANDB_MODE=offline" in refusal(path, "wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for _ in range(2):
        write(path, ROWS, ["wandb"])
    calls = wandb_calls()
    inits = [call for call in calls if call[0] == "init"]
    assert inits[0] == inits[1] and inits[0][2:] == ["laptop", str(path.parent)] and len(inits[0][1]) == 16
    assert calls[1:7] == [
        ["define", "pretrain/*", "pretrain/step"],
        ["log", {"pretrain/step": 1, "pretrain/loss": 2.5}],
        ["log", {"pretrain/step": 2, "pretrain/tokens": 7.0}],
        ["define", "agentic_rl/*", "agentic_rl/step"],
        [
            "log",
            {
                "agentic_rl/step": 1,
                "agentic_rl/by_family/swe/reward": 0.25,
                "agentic_rl/by_staleness/3-4/clip_high_share": 0.5,
            },
        ],
        ["finish"],
    ]


def test_a_sink_that_breaks_is_given_up_with_one_line_and_the_run_goes_on(tmp_path, monkeypatch, wandb_calls, capsys):
    monkeypatch.setenv("WANDB_MODE", "offline")
    path = tmp_path / "metrics.jsonl"
    write(path, [{"stage": "sft", "step": step, "loss": loss} for step, loss in [(1, 1), (2, 13), (3, 1)]], ["wandb"])
    assert len(read_jsonl(path)) == 3
    assert [call[0] for call in wandb_calls()] == ["init", "define", "log", "log"]
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "wandb: no longer written (ConnectionError: gone)" in told


def test_the_real_wandb_writes_its_files_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    write(tmp_path / "metrics.jsonl", ROWS, ["wandb"])
    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"agentic_rl/by_family/swe/reward" in file.read_bytes()


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, False),
        ({"WANDB_API_KEY": "k"}, True),
        ({"WANDB_MODE": "offline"}, True),
        ({"WANDB_MODE": "online"}, False),
        ({"WANDB_MODE": "disabled", "WANDB_API_KEY": "k"}, False),
    ],
)
def test_weights_and_biases_is_configured_by_an_account_or_to_write_files(monkeypatch, settings, wanted):
    monkeypatch.setattr(sinks, "find_spec", lambda name: name == "wandb")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert sinks.configured_sinks() == (["wandb"] if wanted else [])
