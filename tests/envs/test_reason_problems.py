"""The problems of the family reason: independent solvers agree with their answers and traces."""

import collections
import re

import pytest

from arcforge.core.words import NAMES
from arcforge.envs.reason import ReasonFamily

COUNT = 2000
FAMILY = ReasonFamily()
PROBLEMS = [FAMILY.problem("train", index) for index in range(COUNT)]
# The tokenizer splits letters, digits, other marks and white space; words of the worlds are one token each.
PIECES = re.compile(r"[^\W\d_]+|\d|[^\s\w]+|\s+|_")


def of(domain, kind=None):
    return [p for p in PROBLEMS if p.domain == domain and kind in (None, p.kind)]


def solve_math(question):
    first, *steps = question.removeprefix("math: ").split(";")
    return str(int(first.removeprefix("a=")) + sum(int(step[1:]) for step in steps))


def solve_code(question):
    functions, call = question.removeprefix("code: ").split(">")
    scope = {text[0]: eval(f"lambda x: x{text[1:]}") for text in functions.split(";")}
    return str(eval(call, scope))


def solve_truth(question):
    clauses = question.removeprefix("logic: ").removesuffix(";result?").split(";")
    words = [word for clause in clauses for word in clause.split()[1:]]
    value, operator, negate = None, "", False
    for word in words:
        if word in ("and", "or"):
            operator = word
        elif word == "not":
            negate = True
        else:
            operand, negate = (word == "true") != negate, False
            value = operand if value is None else (value and operand if operator == "and" else value or operand)
    return str(value).lower()


def solve_replacements(question):
    rules = dict(re.findall(r"(\w+)=(\w+)", question))
    name = question.partition(">")[2].rstrip("?")
    while name in rules:
        name = rules[name]
    return name


def solve_table(question):
    rows = {name: int(value) for name, value in re.findall(r"(\w+)=(\d)", question)}
    word, first, second = re.search(r"(\w+)\((\w+),(\w+)\)", question).groups()
    if word == "larger":
        return max((first, second), key=rows.get)
    return str(rows[first] + rows[second] if word == "sum" else rows[first] - rows[second])


SOLVERS = [
    ("math", "chain", solve_math),
    ("code", "call", solve_code),
    ("logic", "truth", solve_truth),
    ("logic", "replacements", solve_replacements),
    ("table", "comparison", solve_table),
    ("table", "pair", solve_table),
]


@pytest.mark.parametrize(("domain", "kind", "solver"), SOLVERS)
def test_answers(domain, kind, solver):
    problems = of(domain, kind)
    assert len(problems) > 40
    assert [p.question for p in problems if solver(p.question) != p.answer] == []


def test_every_kind_has_a_solver():
    assert {(p.domain, p.kind) for p in PROBLEMS} == {(domain, kind) for domain, kind, _ in SOLVERS}


def test_arithmetic_in_traces_is_right_and_small():
    steps = [
        step
        for p in of("math") + of("code") + of("table", "pair")
        for step in re.findall(r"(?<![a-z])(\d+)([+-])(\d+)=(\d+)", p.trace)
    ]
    assert len(steps) > 1000
    for left, sign, right, result in steps:
        assert int(result) == int(left) + (int(right) if sign == "+" else -int(right))
        assert max(len(left), len(right), len(result)) == 1


def test_traces_end_in_the_answer():
    for problem in PROBLEMS:
        if problem.kind != "comparison":
            assert problem.trace.endswith(problem.answer)


def test_traces_of_lookups_repeat_what_the_question_says():
    for problem in of("logic", "replacements"):
        names = problem.trace.removeprefix(">").split("=")
        assert all(f"{a}={b}" in problem.question for a, b in zip(names, names[1:]))
    for problem in of("table"):
        assert all(row in problem.question for row in re.findall(r"\w+=\d", problem.trace.partition(":")[0]))
    for problem in of("code"):
        assert problem.trace.partition(":")[0].removeprefix(">") in problem.question


def test_traces_and_questions_are_short():
    assert max(len(PIECES.findall(p.trace)) for p in PROBLEMS) <= 40
    assert max(len(PIECES.findall(p.question)) for p in PROBLEMS) <= 45


def test_wrong_answers_are_wrong_and_plausible():
    for problem in PROBLEMS:
        assert problem.wrong and problem.answer not in problem.wrong
        assert len(set(problem.wrong)) == len(problem.wrong)
        kinds = {text.isdigit() for text in (*problem.wrong, problem.answer)}
        assert len(kinds) == 1
        assert problem.answer in {*map(str, range(10)), "true", "false", *NAMES}


@pytest.mark.parametrize(("domain", "most"), [("math", 0.2), ("code", 0.2), ("logic", 0.4), ("table", 0.3)])
def test_no_answer_can_be_guessed_too_often(domain, most):
    counts = collections.Counter(p.answer for p in of(domain))
    assert counts.most_common(1)[0][1] / counts.total() < most
