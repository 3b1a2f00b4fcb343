"""Families over files: what is read, how it is split and graded, and that a bad line is told by its number."""

import asyncio
import gzip
import json

import pytest
from levelled_checks import reward

from arcforge.core.errors import UserError
from arcforge.core.tasks import Family
from arcforge.envs.files.family import FileFamily
from arcforge.envs.registry import family

GSM = {"question": "Ann has {} pens and buys 3. How many?", "answer": "She has <<{}+3={}>>{} pens.\n#### {}"}
HUMAN = {
    "task_id": "HumanEval/0",
    "prompt": 'def helper(x):\n    return x + 1\n\n\ndef add(a: int, b: int) -> int:\n    """Add."""\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == helper(2)\n    assert candidate(-1, 1) == 0\n",
}
MBPP = {
    "task_id": 7,
    "text": "Write a function to sort a list.",
    "code": "def order(a):\n    return sorted(a)",
    "test_setup_code": "import math",
    "test_list": ["assert order([2, 1]) == [1, 2]", "assert math.isclose(sum(order([0.5])), 0.5)"],
}


def gsm_rows(count):
    return [
        {"question": GSM["question"].format(n), "answer": GSM["answer"].format(n, n + 3, n + 3, f"{n + 3:,}")}
        for n in range(count)
    ]


def write(path, rows):
    text = "\n".join(json.dumps(row) for row in rows) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_splits_by_hash_hold_every_row_once_and_never_meet(tmp_path):
    path = write(tmp_path / "gsm.jsonl", gsm_rows(300))
    made: Family = family(f"gsm8k:{path}", 3)
    assert isinstance(made, FileFamily)
    again = FileFamily("gsm8k", path, 3)
    told = {
        split: [made.task(split, i).messages[1].content for i in range(made.size(split))]
        for split in ("train", "dev", "test")
    }
    assert told["dev"] == [again.task("dev", i).messages[1].content for i in range(again.size("dev"))]
    assert (
        200 < made.size("train") < 270
        and sum(map(len, told.values())) == len({text for texts in told.values() for text in texts}) == 300
    )
    assert made.task("dev", 0).messages == made.task("dev", made.size("dev")).messages
    other = FileFamily("gsm8k", path, 4)
    for split, texts in told.items():
        again_told = [other.task(split, i).messages[1].content for i in range(other.size(split))]
        assert again_told != texts and sorted(again_told) == sorted(texts), (
            "another seed, the same rows in another order"
        )


def test_rows_of_one_content_are_of_one_split(tmp_path):
    rows = gsm_rows(40)
    made = FileFamily("gsm8k", write(tmp_path / "twice.jsonl", rows + rows))
    told = [
        {made.task(s, i).messages[1].content for i in range(made.size(s))}
        for s in ("train", "dev", "test")
        if made.size(s)
    ]
    assert sum(map(len, told)) == 40


def test_a_given_split_holds_all(tmp_path):
    made = family(f"gsm8k@test:{write(tmp_path / 'gsm.jsonl.gz', gsm_rows(20))}")
    assert isinstance(made, FileFamily) and (made.size("test"), made.size("train")) == (20, 0)
    with pytest.raises(UserError, match="no rows of the split train"):
        made.task("train", 0)


def test_gsm8k_is_graded_by_the_last_hashes(tmp_path):
    made = FileFamily(
        "gsm8k",
        write(tmp_path / "gsm.jsonl", [*gsm_rows(1), {"question": "Many?", "answer": "#### 1,200"}]),
        split="train",
    )
    tasks = [made.task("train", i) for i in range(2)]
    few, many = sorted(tasks, key=lambda task: task.reference["answer"], reverse=True)
    assert "<<" not in made.demonstration(0).messages[-1].content

    async def every():
        assert await reward(few, "Three.\n#### 3") == await reward(few, "#### 5\n#### 3.0") == 1.0
        assert await reward(many, "#### $1200") == await reward(many, "#### 1,200 ") == 1.0
        for text in (
            "3",
            "#### 4",
            "#### 3\n#### 4",
            "#### three",
            "so #### 3 it is",
            "####",
            "#### 2+1",
            "#### 3 or 4",
        ):
            assert await reward(few, text) == 0.0, text

    asyncio.run(every())


def test_humaneval_and_mbpp_run_their_tests(tmp_path):
    human = FileFamily("humaneval", write(tmp_path / "human.jsonl.gz", [HUMAN]), split="test")
    mbpp = FileFamily("mbpp", write(tmp_path / "mbpp.jsonl", [MBPP]), split="train")
    task, other = human.task("test", 0), mbpp.task("train", 0)
    assert task.task_id == "humaneval/HumanEval/0" and other.task_id == "mbpp/7"
    assert "isclose" not in other.messages[1].content and "order([2, 1])" in other.messages[1].content

    async def every():
        try:
            assert await reward(task, "```python\ndef add(a, b):\n    return a + b\n```") == 1.0
            assert (
                await reward(task, "```python\ndef helper(x):\n    return 0\ndef add(a, b):\n    return 0\n```") == 0.0
            )
            assert await reward(task, "```python\n```") == 0.0
            assert await reward(other, mbpp.demonstration(0).messages[-1].content) == 1.0
            assert await reward(other, "```python\ndef order(a):\n    return a\n```") == 0.0
        finally:
            await human.close()
            await mbpp.close()

    asyncio.run(every())


def test_problems_have_latex_answers(tmp_path):
    rows = [
        {"problem": "Half?", "answer": "\\frac{1}{2}"},
        {"problem": "Boxed?", "solution": "So \\boxed{7}."},
        {"question": "AIME?", "answer": 204},
    ]
    made = FileFamily("problems", write(tmp_path / "p.jsonl", rows), split="test")
    tasks = {task.reference["answer"]: task for task in (made.task("test", i) for i in range(3))}
    assert set(tasks) == {"\\frac{1}{2}", "7", "204"}

    async def every():
        assert await reward(tasks["\\frac{1}{2}"], r"\boxed{0.5}") == 1.0
        assert await reward(tasks["204"], r"\boxed{205}") == 0.0

    asyncio.run(every())


GOOD = json.dumps(gsm_rows(1)[0])
BAD = [
    ("gsm8k", f"{GOOD}\n\n{{bad\n", r":3: not JSON"),
    ("gsm8k", f"{GOOD}\n[1]\n", r":2: an object is wanted, not list"),
    ("gsm8k", '{"question": "x"}', r":1: no field 'answer'"),
    ("gsm8k", '{"question": "x", "answer": "no mark"}', r":1: answer: a last line `#### NUMBER`"),
    ("gsm8k", '{"question": 3, "answer": "#### 1"}', r":1: question: a text is wanted"),
    ("gsm8k", "\n\n", r"no rows"),
    ("humaneval", json.dumps({**HUMAN, "test": "x ="}), r":1: test: not Python"),
    ("humaneval", json.dumps({**HUMAN, "entry_point": "a b"}), r":1: entry_point"),
    ("mbpp", json.dumps({**MBPP, "test_list": "assert 1"}), r":1: test_list: a list of texts"),
    ("mbpp", json.dumps({**MBPP, "test_list": []}), r":1: test_list: at least one"),
    ("mbpp", json.dumps({**MBPP, "test_list": ["assert 1 == 1"]}), r"call no function"),
    ("problems", '{"problem": "x", "solution": "no box"}', r":1: solution: no"),
]


@pytest.mark.parametrize(("format", "text", "told"), BAD)
def test_a_bad_line_is_told_by_its_number(tmp_path, format, text, told):
    (tmp_path / "f.jsonl").write_text(text)
    with pytest.raises(UserError, match=told):
        family(f"{format}:{tmp_path / 'f.jsonl'}")


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "torn.gz").write_bytes(gzip.compress(GOOD.encode() * 50)[:40])
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "\xe4"}')
    for name in ("torn.gz", "latin.jsonl", "missing.jsonl"):
        with pytest.raises(UserError, match=rf"{name}: cannot be read"):
            family(f"gsm8k:{tmp_path / name}")
