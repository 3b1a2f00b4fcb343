"""Distillation against its teachers, on rewards that are there already: those of a killed comparison are not made again."""

import json

import pytest

from arcforge.claims import teachers
from arcforge.claims.pairs import gains, paired

TASKS = 200
REWARDS = {
    "sft-recall": 0.9, "general_rl-recall": 0.5, "distill-recall": 0.88,
    "reasoning_rl-reasoning": 0.5, "general_rl-reasoning": 0.5, "distill-reasoning": 0.51,
    "general_rl-general": 0.6, "distill-general": 0.6,
    "agentic_rl-agentic": 0.7, "general_rl-agentic": 0.7, "distill-agentic": 0.2,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Rewards of nested sets of tasks, so that differences are those of the shares."""
    for name, share in REWARDS.items():
        write(tmp_path, name, share)
    return tmp_path


def write(folder, name, share):
    (folder / f"{name}.json").write_text(json.dumps([float(i < share * TASKS) for i in range(TASKS)]))


def test_the_three_that_taught_decide_and_agentic_rl_is_told_beside_them(folder, work, record):
    result = teachers.compare(work, record.record, folder)
    told = {row["teacher"]: (row["capability"], row["taught"], round(row["value"], 3)) for row in result["rows"]}
    assert told == {
        "sft": ("recall", True, -0.02),
        "reasoning_rl": ("reasoning", True, 0.01),
        "general_rl": ("general", True, 0.0),
        "agentic_rl": ("agentic", False, -0.5),
    }
    assert result["held"] is True
    assert [row["teacher"] for row in result["lost"]] == ["sft", "reasoning_rl", "agentic_rl"]
    assert "General RL had lost, in points: -40.0" in result["says"][-1] and "recall" in result["says"][-1]
    assert "agentic_rl (did not teach)" in teachers.markdown({"0": result})


def test_one_capability_beyond_three_points_is_a_claim_not_held(folder, work, record):
    write(folder, "distill-reasoning", 0.46)
    result = teachers.compare(work, record.record, folder)
    assert result["held"] is False and any("beyond 3 points" in said for said in result["says"])


def test_where_general_rl_lost_nothing_the_record_says_so(folder, work, record):
    write(folder, "general_rl-recall", 0.9)
    assert "nothing was there to recover" in teachers.compare(work, record.record, folder)["says"][-1]


def test_an_agentic_teacher_is_held_to_the_target_too(folder, work, record):
    recipe = work.recipe
    with_fourth = recipe.distill_teachers.model_copy(update={"agentic_teacher": True})
    changed = type(work)(recipe.model_copy(update={"distill_teachers": with_fourth}), work.run)
    result = teachers.compare(changed, record.record, folder)
    assert len(result["rows"]) == 4 and result["held"] is False


def test_tasks_that_the_infrastructure_failed_are_left_out_in_pairs():
    found = paired([1.0, 0.0, None, 0.0, 1.0], [1.0, 1.0, 1.0, None, 0.0])
    assert (found["tasks"], found["failed"]) == (3, 2)
    assert found["before"] == found["after"] == pytest.approx(2 / 3) and found["value"] == 0
    with pytest.raises(ValueError, match="cannot be paired"):
        paired([1.0], [1.0, 0.0])


def test_gains_come_from_the_rewards_of_the_evaluation(tmp_path):
    rewards = tmp_path / "stages" / "10-evaluate" / "rewards"
    rewards.mkdir(parents=True)
    for name, share in {
        "sft-reasoning": 0.2, "reasoning_rl-reasoning": 0.4,
        "sft-agentic": 0.1, "reasoning_rl-agentic": 0.05, "agentic_rl-agentic": 0.5,
    }.items():  # fmt: skip
        write(rewards, name, share)
    told = [(row["first"], row["second"], row["capability"], round(row["value"], 3)) for row in gains(tmp_path)]
    assert told == [
        ("sft", "reasoning_rl", "reasoning", 0.2),
        ("reasoning_rl", "agentic_rl", "agentic", 0.45),
        ("sft", "agentic_rl", "agentic", 0.4),
    ]
