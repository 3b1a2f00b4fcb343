"""The family math: its generators against their own checker and against independent computation, and the checker's traps."""

import asyncio
import itertools
import re
from collections import Counter
from fractions import Fraction

import pytest
import sympy
from levelled_checks import (
    DirectChecker,
    hold_solutions_to_their_exercises,
    hold_splits_apart,
    hold_to_the_protocol,
    reward,
)

from arcforge.core.errors import TaskError, UserError
from arcforge.envs.checking import expressions
from arcforge.envs.checking.boxed import last_boxed
from arcforge.envs.checking.client import Checker
from arcforge.envs.math.answers import number, read
from arcforge.envs.math.family import MathFamily
from arcforge.envs.math.notation import latex, surd
from arcforge.envs.math.scorer import MathScorer

DIRECT = MathScorer(DirectChecker(expressions))


def direct_family(seed=0, **options):
    family = MathFamily(seed, **options)
    family.scorer = DIRECT
    return family


def equal(reference, answer):
    return asyncio.run(DIRECT.equal(reference, answer))[0]


def test_it_is_a_levelled_family():
    hold_to_the_protocol(MathFamily(), MathFamily(), MathFamily(1))
    assert len(MathFamily().domains) == 9


def test_every_exercise_is_worked_out_by_itself():
    hold_solutions_to_their_exercises(MathFamily(2), 200)


def test_splits_never_meet_whatever_the_seed():
    hold_splits_apart([MathFamily(0), MathFamily(1)], 225)


@pytest.mark.parametrize("kind", MathFamily.makers)
def test_solutions_pass_and_perturbed_answers_fail(kind):
    family = direct_family(3, kinds=(kind,))
    for index in range(25):
        exercise = family.exercise("train", index)
        assert exercise.wrong, exercise.question
        asyncio.run(family.validate("train", index))


@pytest.mark.slow
@pytest.mark.parametrize("kind", MathFamily.makers)
def test_hundreds_of_solutions_pass_and_perturbed_answers_fail(kind):
    family = direct_family(11, kinds=(kind,))
    for split, index in itertools.product(("train", "dev", "test"), range(100)):
        asyncio.run(family.validate(split, index))


def test_every_level_has_many_exercises():
    for kind, level in itertools.product(MathFamily.makers, (1, 2, 3, 4, 5)):
        family = MathFamily(levels=(level,), kinds=(kind,))
        assert len({family.exercise("train", i).key for i in range(60)}) >= 40, (kind, level)


def numbers(text):
    return [int(found) for found in re.findall(r"-?\d+", text)]


def test_algebra_and_systems_agree_with_sympy():
    x = sympy.Symbol("x")
    family = MathFamily(5, kinds=("algebra",), levels=(3, 5))
    for index in range(20):
        exercise = family.exercise("train", index)
        side = re.search(r"\$(.+?) = 0", exercise.question)[1].replace("^{", "**").replace("}", "")
        found = sympy.solve(sympy.sympify(re.sub(r"(\d)x", r"\1*x", side)), x)
        assert sorted(map(int, found)) == sorted(numbers(exercise.answer))
    family = MathFamily(5, kinds=("systems",))
    for index in range(25):
        exercise = family.exercise("train", index)
        rows, right = exercise.facts
        found = sympy.Matrix(rows).LUsolve(sympy.Matrix(right))
        values = [number(part) for part in exercise.answer.strip("()").split(", ")]
        assert [Fraction(int(v.p), int(v.q)) for v in found] == values


def test_counting_agrees_with_enumeration():
    family = MathFamily(2, kinds=("combinatorics",), levels=(3, 4, 5))
    held = Counter()
    for index in range(60):
        exercise = family.exercise("train", index)
        match exercise.facts:
            case ("letters", letters) if len(letters) <= 7:
                assert len(set(itertools.permutations(letters))) == int(exercise.answer)
            case ("sums", total, least) if len(least) == 3:
                spans = [range(low, total + 1) for low in least]
                assert sum(sum(c) == total for c in itertools.product(*spans)) == int(exercise.answer)
            case ("paths", m, n, p, q):
                ways = {(0, 0): 1}
                for a, b in itertools.product(range(m + 1), range(n + 1)):
                    if (a, b) != (0, 0):
                        ways[a, b] = 0 if (a, b) == (p, q) else ways.get((a - 1, b), 0) + ways.get((a, b - 1), 0)
                assert ways[m, n] == int(exercise.answer)
            case _:
                continue
        held[exercise.facts[0]] += 1
    assert held.keys() == {"letters", "sums", "paths"} and min(held.values()) >= 3, held


def test_number_theory_and_probability_agree_with_enumeration():
    family = MathFamily(4, kinds=("number_theory", "probability"))
    held = Counter()
    for index in range(50):
        exercise = family.exercise("train", index)
        match exercise.facts:
            case ("divisors", n):
                assert sympy.divisor_count(n) == int(exercise.answer)
            case ("power", a, exponent, m):
                assert pow(a, exponent, m) == int(exercise.answer)
            case ("congruences", moduli, remainders):
                found = int(exercise.answer)
                assert all(found % m == r for m, r in zip(moduli, remainders)) and 0 < found <= sympy.prod(moduli)
            case ("dice", a, b, total):
                ways = sum(i + j == total for i in range(1, a + 1) for j in range(1, b + 1))
                assert number(exercise.answer) == Fraction(ways, a * b)
            case ("at least", red, blue, drawn, least) if red + blue <= 16:
                cards = itertools.combinations([1] * red + [0] * blue, drawn)
                hands = [sum(hand) >= least for hand in cards]
                assert number(exercise.answer) == Fraction(sum(hands), len(hands))
            case _:
                continue
        held[exercise.facts[0]] += 1
    assert held.keys() == {"divisors", "power", "congruences", "dice", "at least"} and min(held.values()) >= 3, held


SAME = [
    (r"\frac{1}{2}", "0.5"), (r"\frac{1}{2}", "1/2"), (r"\frac{1}{2}", r"\dfrac{2}{4}"), (r"\frac{1}{2}", r"50\%"),
    (r"50\%", "0.5"), (r"50\%", "50"), ("3.5", r"3\frac{1}{2}"), ("1000", "1,000"), ("1000", r"1{,}000"), ("1000", r"1\,000"),
    ("-5", "−5"), ("5", "x = 5"), ("5", r"5\text{ cm}"), ("5", r"\$5"), ("5", "5."),
    ("30", r"30^\circ"), ("0.25", "1/4"), ("1200", r"1.2 \times 10^{3}"), (r"-\frac{3}{4}", "-0.75"), ("12", r"\{12\}"),
    (r"2\sqrt{3}", r"\sqrt{12}"), (r"12\pi", r"\pi\cdot 12"), ("3x^2+2x", "x(3x+2)"), ("3x^2+2x", "f'(x)=2x+3x^2"),
    ("e^2-1", "-1+e^{2}"), ("(1,2)", r"\left(1, 2\right)"), ("(1,2)", "(x, y) = (1, 2)"), (r"(\frac{1}{2},2)", "(0.5,2)"),
    (r"(-\infty,3]", r"(-\infty, 3]"), (r"(-\infty,-2)\cup(3,\infty)", r"(3,\infty)\cup(-\infty,-2)"),
    (r"\{1,2\}", r"\{2, 1\}"), (r"\{1,2\}", "1, 2"), (r"\{1,2\}", r"x=1 \text{ or } x=2"), ("1,2", r"\{1,2\}"),
    (r"\{1-\sqrt{2}, 1+\sqrt{2}\}", r"1\pm\sqrt{2}"), (r"\emptyset", r"\{\}"), (r"\text{Monday}", "monday"), (r"\infty", r"+\infty"),
]  # fmt: skip
DIFFERENT = [
    ("5", "6"), ("5", ""), ("5", "five"), ("5", r"3 \text{ or } 5"), ("5", "3, 5"), ("5", "4=5"), ("5", "5=5=5"), ("5", "5<6"),
    ("50", r"50\%"), ("391", r"17 \cdot 23"), ("8", r"\int_0^2 3x^2 dx"), ("6", "3!"), ("6", r"\binom{4}{2}"), ("1024", "2^{10}"),
    (r"\frac{1}{3}", "0.333333"), (r"\frac{1}{3}", r"33.3\%"), (r"2\sqrt{3}", "3.4641016"), (r"12\pi", "37.699"), ("10", "1 0"),
    ("(1,2)", "(2,1)"), ("(1,2)", "[1,2]"), ("(1,2)", r"\{1,2\}"), ("(1,2)", "(1,2,3)"), ("(1,2)", "1,2"), ("[1,2)", "[1,2]"),
    (r"(-\infty,3]", r"(-\infty,3)"), (r"(-\infty,3]", "3"), (r"(1,2)\cup(3,4)", "(1,2)"), (r"(1,2)\cup(3,4)", "(1,4)"),
    (r"\{1,2\}", r"\{1,2,3\}"), (r"\{1,2\}", "1"), (r"\{1,2\}", "(1,2)"), (r"\{1,2\}", r"\{1,1\}"), (r"\emptyset", "0"),
    (r"\{1-\sqrt{2}, 1+\sqrt{2}\}", r"1+\sqrt{2}"), (r"2\sqrt{3}", r"3\sqrt{2}"), (r"\text{Monday}", r"\text{Modnay}"),
    ("3x^2+2x", r"\frac{d}{dx}(x^3+x^2)"), ("e^2", "e^3"), (r"\pi", r"\frac{"), (r"\pi", "}{"), (r"\infty", r"-\infty"),
    ("x+1", r"x+1 \text{ or } x+2"), (r"\sqrt{2}", r"\sqrt{2}, \sqrt{3}"), ("5", "5 6"), ("12", "1 2"), (r"\{1\}", r"\{1,1\}"),
]  # fmt: skip


@pytest.mark.parametrize(("reference", "answer"), SAME)
def test_forms_of_one_value_are_equal(reference, answer):
    assert equal(reference, answer)


@pytest.mark.parametrize(("reference", "answer"), DIFFERENT)
def test_other_values_hedges_and_restatements_are_not(reference, answer):
    assert not equal(reference, answer)


def test_the_answer_does_not_decide_how_many_comparisons_it_costs():
    class Counting(DirectChecker):
        asked = 0

        async def equal(self, kind, reference, answer):
            self.asked += 1
            return await super().equal(kind, reference, answer)

    def asked(reference, answer):
        checker = Counting(expressions)
        assert not asyncio.run(MathScorer(checker).equal(reference, answer))[0]
        return checker.asked

    dear = ", ".join(f"\\sqrt{{{n}}}" for n in range(50, 70))
    assert asked(r"\{\sqrt{2}, \sqrt{3}\}", f"\\{{{dear}\\}}") == asked(r"\{\sqrt{2}, \sqrt{3}\}", r"\sqrt{2}") == 0
    assert asked(r"\{\sqrt{2}, \sqrt{3}\}", r"\{\sqrt{5}, \sqrt{3}\}") == 2


def test_numbers_are_literals():
    assert number("-1,234.50") == Fraction(-2469, 2) and number(r"\frac{-1}{3}") == Fraction(-1, 3)
    for text in ("2+3", "1/0", r"\frac{1}{0}", "1,23", "--5", "1e5", "", "x", r"9 \times 10^{999999999}", "1/2/3"):
        assert number(text) is None, text


def test_shapes():
    assert [read(text).shape for text in ("5", "(1,2]", r"\{1\}", r"[0,1]\cup[2,3]", "Tuesday", "x+1", "(x+1)(x-2)")] == [
        "number", "bracketed", "set", "union", "text", "expression", "expression",
    ]  # fmt: skip


def test_the_last_box_counts():
    assert last_boxed(r"\boxed{1} no, \boxed{\frac{1}{2}}.") == r"\frac{1}{2}"
    assert last_boxed(r"\boxed{\{1, 2\}}") == r"\{1, 2\}"
    for text in ("5", r"\boxed{5", r"\boxed{}", r"\boxed{" + "9" * 2000 + "}", ""):
        assert last_boxed(text) is None


def test_notation():
    assert [latex(Fraction(-3, 4)), surd(72), surd(Fraction(1, 2)), surd(3, Fraction(2, 5))] == [
        r"-\frac{3}{4}", r"6\sqrt{2}", r"\frac{\sqrt{2}}{2}", r"\frac{2\sqrt{3}}{5}",
    ]  # fmt: skip


def test_unknown_kinds_and_levels_are_refused():
    with pytest.raises(UserError, match="no kind 'algebr'; choose from algebra"):
        MathFamily(kinds=("algebr",))
    with pytest.raises(UserError, match="levels"):
        MathFamily(levels=(0, 6))


def test_the_checking_process_survives_what_it_is_given():
    """One process throughout: a tower of powers costs its child's limit, a bad reference is the task's fault."""

    async def run():
        checker = Checker()
        try:
            assert (await checker.equal("expression", r"2\sqrt{3}", r"\sqrt{12}")).equal
            process = checker._process
            tower = await checker.equal("expression", r"\sqrt{2}", "9^{9^{9^{9^{9}}}}+\\sqrt{2}")
            assert not tower.equal and tower.note
            assert not (await checker.equal("expression", r"\pi", "(" * 400)).equal
            with pytest.raises(TaskError, match="expression"):
                await checker.equal("expression", r"\frac{", "1")
            assert not (await checker.equal("expression", r"2\sqrt{3}", r"\sqrt{13}")).equal
            assert checker._process is process
            process.kill()
            process.wait()
            scorer = MathScorer(checker)
            task = MathFamily(kinds=("geometry",), levels=(2,)).task("train", 0)
            object.__setattr__(task, "scorer", scorer)
            assert await reward(task, f"\\boxed{{{task.reference['answer']}+0\\pi}}") == 1.0
        finally:
            await checker.close()

    asyncio.run(run())


def test_a_reference_without_an_answer_is_the_tasks_fault():
    with pytest.raises(TaskError, match="no answer"):
        asyncio.run(DIRECT.score([DIRECT_REPLY], {}))


DIRECT_REPLY = MathFamily().reply("5")
