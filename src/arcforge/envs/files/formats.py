"""What a row of each kind of file asks, and what its answer is held against."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from arcforge.core.errors import UserError
from arcforge.core.messages import Message
from arcforge.envs.checking.boxed import last_boxed
from arcforge.envs.code.family import SYSTEM as CODE_SYSTEM
from arcforge.envs.files.lines import field, texts
from arcforge.envs.math.answers import number
from arcforge.envs.math.family import SYSTEM as MATH_SYSTEM

NUMBER_SYSTEM = 'Solve the problem step by step. End with a line "#### " and the answer, one number.'
_HASHES = re.compile(r"^\s*####[ \t]*(.+?)\s*$", re.M)
_CALCULATION = re.compile(r"<<[^<>]*>>")


@dataclass(frozen=True)
class Row:
    """key: the content that decides the split. graded: the scorer that reads `reference`. demonstration: a right reply."""

    name: str
    key: str
    system: str
    question: str
    graded: Literal["hashes", "math", "tests"]
    reference: dict[str, Any]
    demonstration: Message | None = None


def last_hashes(text: str) -> str | None:
    """What follows the last `####` at the beginning of a line; None where there is none."""
    found = _HASHES.findall(text)
    return found[-1] if found else None


def gsm8k(row: dict[str, Any], where: str) -> Row:
    """{"question", "answer"}: a worked solution that ends in `#### number`."""
    question, answer = field(row, where, "question"), field(row, where, "answer")
    final = last_hashes(answer)
    if final is None or number(final) is None:
        raise UserError(f"{where}: answer: a last line `#### NUMBER` is wanted")
    worked = _CALCULATION.sub("", answer).rpartition("####")[0].strip()
    demonstration = Message(role="assistant", content=f"{worked}\n#### {final}", reasoning="")
    return Row("", question, NUMBER_SYSTEM, question, "hashes", {"answer": final}, demonstration)


def problems(row: dict[str, Any], where: str) -> Row:
    """{"problem" or "question", "answer"} with a LaTeX answer, as MATH-500 has it; without "answer", the last box of
    "solution"."""
    question = field(row, where, "problem", "question")
    solution = row.get("solution", "") if isinstance(row.get("solution", ""), str) else ""
    if "answer" in row:
        value = row["answer"]
        answer = (
            str(value)
            if isinstance(value, int | float) and not isinstance(value, bool)
            else field(row, where, "answer")
        )
    else:
        answer = last_boxed(field(row, where, "solution")) or ""
        if not answer:
            raise UserError(f"{where}: solution: no \\boxed{{}} to read the answer from")
    content = f"The answer is \\boxed{{{answer}}}."
    demonstration = Message(role="assistant", content=content, reasoning=solution) if solution else None
    name = str(row.get("unique_id", row.get("id", "")))
    return Row(name, question, MATH_SYSTEM, question, "math", {"answer": answer}, demonstration)


def humaneval(row: dict[str, Any], where: str) -> Row:
    """{"task_id", "prompt", "entry_point", "test", "canonical_solution"}: `test` defines check(candidate)."""
    prompt, entry, test = (field(row, where, name) for name in ("prompt", "entry_point", "test"))
    _parsed(prompt + "\n    pass\n", where, "prompt")
    _parsed(test, where, "test")
    if not entry.isidentifier() or "def check" not in test:
        raise UserError(f"{where}: entry_point: a name, and test: a function check(candidate), are wanted")
    solution = prompt + field(row, where, "canonical_solution") if "canonical_solution" in row else ""
    program = {"tests": [f"{test}\ncheck({entry})"], "names": [entry], "preamble": prompt, "setup": prompt}
    question = f"Complete this function. Write all of it again, with its imports.\n\n```python\n{prompt.strip()}\n```"
    return Row(
        str(row.get("task_id", "")), prompt, CODE_SYSTEM, question, "tests", {"program": program}, _program(solution)
    )


def mbpp(row: dict[str, Any], where: str) -> Row:
    """{"text" or "prompt", "test_list", "code", "test_setup_code" or "test_imports"}: the first test is shown, all are run."""
    text, tests = field(row, where, "text", "prompt"), texts(row, where, "test_list")
    imports = texts(row, where, "test_imports") if "test_imports" in row else ()
    setup = "\n".join([*imports, str(row.get("test_setup_code") or "")])
    if not tests:
        raise UserError(f"{where}: test_list: at least one test is wanted")
    called = _called("\n".join(tests), setup, where)
    if not called:
        raise UserError(f"{where}: test_list: the tests call no function")
    program = {"tests": list(tests), "names": called, "preamble": setup, "setup": setup}
    question = f"{text.strip()}\n\nA test that must pass:\n{tests[0]}"
    solution = field(row, where, "code") if "code" in row else ""
    return Row(
        str(row.get("task_id", "")), text, CODE_SYSTEM, question, "tests", {"program": program}, _program(solution)
    )


FORMATS: dict[str, Callable[[dict[str, Any], str], Row]] = {
    "gsm8k": gsm8k,
    "humaneval": humaneval,
    "mbpp": mbpp,
    "problems": problems,
}


def _program(source: str) -> Message | None:
    return Message(role="assistant", content=f"```python\n{source.rstrip()}\n```", reasoning="") if source else None


def _called(tests: str, setup: str, where: str) -> list[str]:
    """Names that the tests call and that neither they, their setup nor Python defines: functions of the solution."""
    trees = [_parsed(setup, where, "test_setup_code"), _parsed(tests, where, "test_list")]
    bound: set[str] = set(dir(builtins))
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
    calls = [node.func for node in ast.walk(trees[1]) if isinstance(node, ast.Call)]
    names = [function.id for function in calls if isinstance(function, ast.Name)]
    return list(dict.fromkeys(name for name in names if name not in bound))


def _parsed(source: str, where: str, name: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{where}: {name}: not Python: {error}") from None
