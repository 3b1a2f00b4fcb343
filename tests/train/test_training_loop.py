"""The loop: resumed at any kill with the same bits; a loss that is not a number stops it before anything is saved."""

import random

import pytest
import torch

from arcforge.core.errors import UserError
from arcforge.core.metrics import JsonLines
from arcforge.core.runs import read_jsonl
from arcforge.data.mixing import GeneratedRows, Mixture, StoredRows
from arcforge.data.packing import Tokens, pack
from arcforge.model.initialise import new_model
from arcforge.model.specs import matrix_specs
from arcforge.optim.muon import MuonAdamW, OptimizerConfig
from arcforge.train.loop import Plan, run
from arcforge.train.objectives import language_modelling

LENGTH, STEPS = 24, 7


class Killed(Exception):
    pass


def text(rng: random.Random) -> Tokens:
    return Tokens.of([rng.randrange(100) for _ in range(rng.randint(5, LENGTH))])


def train(config, folder, kill_at: int = 0, break_at: int = 0, save_seconds: float = 0.0) -> dict:
    """A whole run in a new "process": model, optimizer and data are made anew. Returns the weights."""
    model = new_model(config, seed=0).train()
    stored = pack([text(random.Random(i)) for i in range(12)], LENGTH, "best_fit")
    sources = {"stored": StoredRows(stored, 1), "generated": GeneratedRows(text, LENGTH, "texts", 2)}
    rows = Mixture(sources, {"stored": 0.6, "generated": 0.4})
    optimizer = MuonAdamW(model, matrix_specs(model), OptimizerConfig(lr=1e-2))
    calls = 0

    def objective(batch):
        nonlocal calls
        calls += 1
        scalars = language_modelling(model, batch, sparse=False, mtp_steps=2, mtp_weight=0.3, mtp_rows=0.5)
        if calls == kill_at:
            raise Killed
        return {**scalars, "loss": scalars["loss"] * float("nan")} if calls == break_at else scalars

    plan = Plan("test", STEPS, 4, lambda step: 1.0 / (1 + step), lambda: model.update_router_bias(0.01))
    sink = JsonLines(folder / "metrics.jsonl")
    run(plan, model, objective, optimizer, rows, folder / "state.pt", sink, save_seconds)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def losses(folder) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in read_jsonl(folder / "metrics.jsonl")}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kill_at", [2, 5, STEPS])
def test_a_killed_run_ends_with_the_same_bits(config, tmp_path, kill_at):
    whole = train(config, tmp_path / "whole")
    with pytest.raises(Killed):
        train(config, tmp_path / "killed", kill_at=kill_at)
    resumed = train(config, tmp_path / "killed")
    assert same(whole, resumed)
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")
    steps = [row["step"] for row in read_jsonl(tmp_path / "killed" / "metrics.jsonl")]
    assert steps == list(range(1, STEPS + 1)), "every step was saved, so none is done twice"
    assert not same(whole, new_model(config, seed=0).state_dict())


def test_steps_since_the_last_saved_state_are_done_again(config, tmp_path):
    whole = train(config, tmp_path / "whole")
    with pytest.raises(Killed):
        train(config, tmp_path / "killed", kill_at=4, save_seconds=3600)
    assert not (tmp_path / "killed" / "state.pt").exists()
    assert same(whole, train(config, tmp_path / "killed"))


def test_a_finished_run_has_nothing_left_to_do(config, tmp_path):
    whole = train(config, tmp_path)
    assert same(whole, train(config, tmp_path, kill_at=1))
    assert len(read_jsonl(tmp_path / "metrics.jsonl")) == STEPS


def test_a_loss_that_is_no_number_stops_before_it_is_saved(config, tmp_path):
    with pytest.raises(UserError, match="not a number at step 3"):
        train(config, tmp_path, break_at=3)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 2
    assert all(tensor.isfinite().all() for tensor in state["model"].values())


def test_training_learns(config, tmp_path):
    train(config, tmp_path)
    assert losses(tmp_path)[STEPS] < losses(tmp_path)[1] - 0.3
