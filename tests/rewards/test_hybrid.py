"""The outcome scorer and the weighted sum of the three parts."""

import asyncio
import math

import pytest

from arcforge.core.errors import EngineError, JudgeError, TaskError
from arcforge.core.messages import Message
from arcforge.rewards import criteria
from arcforge.rewards.hybrid import WEIGHTS, HybridScorer
from arcforge.rewards.judge import Judge
from arcforge.rewards.outcome import OutcomeScorer, sigmoid
from arcforge.rewards.rubric_judge import RubricJudge
from arcforge.rewards.rules import BeginsWith, RuleScorer, dump_rules

REFERENCE = {
    "dimension": "emotion",
    "rules": dump_rules([BeginsWith(word="sorry")]),
    "rubric": [criteria.uses_one_of(("sad",)), criteria.has_length(1, 3)],
}


def said(text):
    return (Message(role="user", content="I feel sad."), Message(role="assistant", content=text))


def outcome(value, **options):
    async def reward(messages):
        if isinstance(value, Exception):
            raise value
        return value

    return OutcomeScorer(reward, **options)


def parts(raw=0.0):
    return {"rules": RuleScorer(), "judge": Judge(RubricJudge()), "outcome": outcome(raw)}


def score(scorer, text, reference=REFERENCE):
    return asyncio.run(scorer.score(said(text), reference))


def test_sigmoid_against_known_values():
    assert sigmoid(0) == 0.5
    assert sigmoid(math.log(3)) == pytest.approx(0.75)
    assert sigmoid(-2) == pytest.approx(0.11920292202211755)
    assert (sigmoid(1e9), sigmoid(-1e9)) == (1.0, pytest.approx(0.0))


def test_outcome_is_squashed_and_keeps_the_raw_value():
    verdict = score(outcome(3.0, centre=1.0, scale=2.0), "x")
    assert verdict.reward == pytest.approx(0.7310585786300049)
    assert verdict.details == {"raw": 3.0}


@pytest.mark.parametrize("value", [math.nan, math.inf, EngineError("down")])
def test_outcome_without_a_number_is_a_judge_error(value):
    with pytest.raises(JudgeError):
        score(outcome(value), "x")


def test_a_slow_reward_model_is_a_judge_error():
    async def slow(messages):
        await asyncio.sleep(30)
        return 0.0

    with pytest.raises(JudgeError, match="within"):
        score(OutcomeScorer(slow, timeout=0.01), "x")


def test_weighted_sum_of_the_three_parts():
    verdict = score(HybridScorer(parts(raw=math.log(3))), "sorry you feel sad")
    # rules 1.0, outcome 0.75, judge 1 of 2
    assert verdict.reward == pytest.approx(0.2 * 1.0 + 0.3 * 0.75 + 0.5 * 0.5)
    assert verdict.details["rules"]["reward"] == 1.0
    assert verdict.details["outcome"]["raw"] == pytest.approx(math.log(3))
    assert [entry["met"] for entry in verdict.details["judge"]["rubric"]] == [True, False]
    assert sum(verdict.details[part]["weight"] for part in ("rules", "outcome", "judge")) == pytest.approx(1.0)


def test_a_missing_part_leaves_its_weight_to_the_others():
    without = {name: part for name, part in parts().items() if name != "outcome"}
    verdict = score(HybridScorer(without), "sorry you feel sad")
    assert verdict.reward == pytest.approx((0.2 * 1.0 + 0.5 * 0.5) / 0.7)
    assert "outcome" not in verdict.details


@pytest.mark.parametrize("dimension", list(WEIGHTS))
def test_full_marks_are_exactly_one(dimension):
    scorer = HybridScorer({"rules": RuleScorer(), "judge": Judge(RubricJudge())})
    assert score(scorer, "sorry sad", REFERENCE | {"dimension": dimension}).reward == 1.0
    assert score(scorer, "no", REFERENCE | {"dimension": dimension}).reward < 0.5


def test_a_failing_part_fails_the_whole():
    with pytest.raises(JudgeError):
        score(HybridScorer(parts() | {"outcome": outcome(math.nan)}), "sorry sad")


def test_an_unknown_dimension_is_a_task_error():
    with pytest.raises(TaskError, match="poetry"):
        score(HybridScorer(parts()), "x", REFERENCE | {"dimension": "poetry"})


def test_weights_that_cannot_be_used_are_refused():
    with pytest.raises(ValueError, match="none of its parts"):
        HybridScorer({"rules": RuleScorer()}, {"emotion": {"judge": 1.0}})
    with pytest.raises(ValueError, match="negative"):
        HybridScorer({"rules": RuleScorer()}, {"emotion": {"rules": -1.0}})
