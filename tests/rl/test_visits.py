"""What a rollout's owner is told of calls: their seconds, and what stopped them."""

import time

import pytest

from arcforge.core.errors import EngineError, GatewayError
from arcforge.rl import visits
from arcforge.rl.visits import Fixed, Visit
from arcforge.serve.http import ClientLeft


def fails(visit, error, seconds=0.0):
    with pytest.raises(type(error)), visit.call():
        time.sleep(seconds)
        raise error


def test_an_agent_that_hangs_up_says_nothing_of_the_engine_unless_it_had_waited_long(monkeypatch):
    monkeypatch.setattr(visits, "PATIENCE_SECONDS", 0.05)
    visit = Visit(Fixed(), "http://x")
    fails(visit, ClientLeft())
    assert (visit.problem, visit.refused) == ("", "")
    fails(visit, ClientLeft(), 0.1)
    assert "gave no answer" in visit.problem


def test_what_is_refused_is_no_problem_of_the_engine():
    visit = Visit(Fixed(), "http://x")
    fails(visit, GatewayError("not open"))
    assert (visit.problem, visit.refused) == ("", "not open")
    fails(visit, EngineError("gone"))
    assert visit.problem == "gone"


def test_calls_side_by_side_are_counted_once():
    visit = Visit(Fixed(), "http://x")
    started = time.perf_counter()
    with visit.call():
        with visit.call():
            time.sleep(0.05)
        assert visit.model_seconds == 0
    assert 0.05 <= visit.model_seconds <= time.perf_counter() - started
