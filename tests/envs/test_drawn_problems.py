"""How problems are drawn, and what a programming problem is held to when it is made."""

import itertools
import random

import pytest

from arcforge.core.errors import TaskError
from arcforge.envs.code.family import CodeFamily
from arcforge.envs.code.problem import problem
from arcforge.envs.single_turn import draw, split_of


def test_a_drawn_problem_is_of_the_split_and_fits():
    for split, seed in itertools.product(("train", "dev", "test"), range(20)):
        drawn = draw(lambda rng: rng.randrange(10**6), str, split, random.Random(seed), lambda number: number % 3 == 0)
        assert split_of(str(drawn)) == split and drawn % 3 == 0
    with pytest.raises(TaskError, match="split dev that fits"):
        draw(lambda rng: rng.randrange(10**6), str, "dev", random.Random(0), lambda number: False)
    with pytest.raises(TaskError, match="split dev"):
        draw(lambda rng: "x" if split_of("x") != "dev" else "y", str, "dev", random.Random(0))


SOURCE = "def solve(x):\n    return x + 1"
CALLS = [(1,), (1,), (2,), (3,)]


def made(source=SOURCE, calls=CALLS, broken=("+ 1", "+ 2")):
    return problem("kind", 1, ("facts",), "Add one.", source, calls, broken)


def test_two_examples_differ_and_both_wrong_programs_are_there():
    exercise = made()
    assert exercise.question.endswith("Examples:\nsolve(1) == 2\nsolve(2) == 3") and exercise.solution == ""
    assert exercise.wrong == ("def solve(*_):\n    return 2", "def solve(x):\n    return x + 2")
    assert exercise.reference["program"]["tests"] == [
        f"assert solve({x}) == {x + 1}" for x in (1, 2, 1, 3)
    ]  # fmt: skip
    assert made(calls=[(1,), (1,)]).wrong == ("def solve(x):\n    return x + 2",)
    assert made(broken=("+ 1", "- -1")).wrong == ("def solve(*_):\n    return 2",)


def test_a_problem_whose_tests_refuse_only_one_is_not_asked():
    family = CodeFamily()
    assert (
        family.fits(made())
        and not family.fits(made(calls=[(1,), (1,)]))
        and not family.fits(made(broken=("+ 1", "- -1")))
    )


def test_the_reference_may_not_fail_and_the_change_hits_one_place():
    with pytest.raises(ZeroDivisionError):
        made("def solve(x):\n    return 1 // (x - 2)", broken=("- 2", "- 3"))
    for broken, times in (("x", 2), ("+ 3", 0)):
        with pytest.raises(ValueError, match=f"is {times} times in the source"):
            made(broken=(broken, "y"))


def test_the_wrong_programs_of_every_kind_and_level_run():
    """A program that crashes at once would be refused by any test; these answer, and answer wrongly."""
    for make, level in itertools.product(CodeFamily.makers.values(), (1, 2, 3, 4, 5)):
        assert any(len(make(random.Random(seed), level).wrong) == 2 for seed in range(12)), (make, level)


def test_a_level_of_strings_has_one_step_more_than_the_last():
    steps = [len(CodeFamily.makers["strings"](random.Random(1), level).facts) for level in (1, 2, 3, 4, 5)]
    assert steps == [2, 3, 4, 5, 6]
