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
    total = 0
    for word, number in re.findall(r"(start|add|take) (\d)", question):
        total += -int(number) if word == "take" else int(number)
    return str(total)


def solve_code(question):
    *lines, last = question.removeprefix("code: ").split(";")
    scope = {}
    exec("\n".join(lines), {}, scope)
    return str(scope[re.fullmatch(r"print\((\w)\)", last)[1]])


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


def solve_ordering(question):
    clues = re.findall(r"(\w+) before (\w+)", question)
    following = dict(clues)
    order = [next(name for name in following if name not in following.values())]
    while order[-1] in following:
        order.append(following[order[-1]])
    assert len(order) == len(clues) + 1
    asked = re.search(r"who is (\w+)\?", question)[1]
    return order[-1] if asked == "last" else order[("first", "second", "third", "fourth").index(asked)]


def solve_table(question):
    rows = {name: int(value) for name, value in re.findall(r"(\w+) (\d);", question)}
    asked = question.rsplit(";", 1)[1]
    if "largest" in asked or "smallest" in asked:
        return (max if "largest" in asked else min)(rows, key=rows.get)
    if "above" in asked:
        return str(sum(value > int(asked[-2]) for value in rows.values()))
    first, word, second = asked.rstrip("?").split()
    return str(rows[first] + rows[second] if word == "plus" else rows[first] - rows[second])


SOLVERS = [
    ("math", "chain", solve_math),
    ("code", "assignments", solve_code),
    ("logic", "truth", solve_truth),
    ("logic", "ordering", solve_ordering),
    ("table", "largest", solve_table),
    ("table", "smallest", solve_table),
    ("table", "above", solve_table),
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
    steps = [step for p in of("math") + of("table", "pair") for step in re.findall(r"(\d+)([+-])(\d+)=(\d+)", p.trace)]
    assert len(steps) > 1000
    for left, sign, right, result in steps:
        assert int(result) == int(left) + (int(right) if sign == "+" else -int(right))
        assert max(len(left), len(right), len(result)) == 1


def test_code_traces_name_every_value_they_use():
    for problem in of("code"):
        known = {}
        for part in problem.trace.split(";"):
            name, equals, value = part.partition("=")
            if not equals:
                known[part[0]] = int(part[1:])
                continue
            for used, shown in re.findall(r"([a-z])(\d)", value):
                assert known[used] == int(shown)
        assert known[part[0]] == int(problem.answer)


def test_traces_end_in_the_answer():
    for problem in PROBLEMS:
        if problem.kind != "ordering":
            assert (
                problem.trace.endswith(problem.answer)
                or re.split("[;,]", problem.trace)[-1].split()[0] == problem.answer
            )


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
