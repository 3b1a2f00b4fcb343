"""Generated repositories and demonstrations."""

import ast
import random
import subprocess
import sys
import time

from arcforge.agents.tools import TOOLS
from arcforge.core.words import NAMES
from arcforge.envs.registry import family
from arcforge.envs.swe.demonstrations import MODES
from arcforge.envs.swe.family import SweFamily, demonstration_pass_rate
from arcforge.envs.swe.repository import EXPRESSIONS, PASSED, TEST_FILE, generate, split_of
from arcforge.envs.swe.task import MAX_TURNS, THINKING

FAMILY = SweFamily(0)
SPLITS = ("train", "dev", "test")


def repositories(count=200, split="train"):
    return [generate(random.Random(seed), split) for seed in range(count)]


def test_expressions_are_what_they_spell():
    for text, function in EXPRESSIONS.items():
        assert all(eval(text, {"a": a, "b": b}) == function(a, b) for a in range(1, 10) for b in range(1, 10))


def test_shape_of_a_repository():
    for repository in repositories():
        modules = repository.modules
        names = [m.name for m in modules] + [f.name for m in modules for f in m.functions]
        assert len(set(names)) == len(names) and set(names) <= set(NAMES)
        assert 1 <= len(modules) <= 3 and all(1 <= len(m.functions) <= 2 for m in modules)
        wrong = [(m.path, f) for m in modules for f in m.functions if f.shown != f.right]
        assert wrong == [(repository.bug_file, repository.bug)]
        assert repository.files[repository.bug_file].startswith(f"def {repository.bug.name}(a,b):")
        for path, text in repository.files.items():
            ast.parse(text, path)
    assert {len(r.modules) for r in repositories()} == {1, 2, 3}


def test_the_largest_repositories_have_names_enough():
    """Three modules of two functions use more names than are drawn at first, where the bug's own are among those."""
    rng, largest = random.Random(0), 0
    for _ in range(6000):
        modules = generate(rng, "train").modules
        names = [m.name for m in modules] + [f.name for m in modules for f in m.functions]
        assert len(set(names)) == len(names)
        largest += len(names) == 9
    assert largest > 30


def test_tests_tell_the_right_expression_from_every_other():
    for repository in repositories():
        bug = repository.bug
        passing = [text for text in EXPRESSIONS if repository.test_answer({bug.name: text}) == PASSED]
        assert passing == [bug.right]
        assert repository.test_answer({}).startswith(f"{repository.bug_file} {bug.name}(")
        assert all(1 <= value <= 9 for case in repository.cases for value in (case.a, case.b))


def test_the_test_file_is_plain_python(tmp_path):
    """`python test.py` agrees: it fails with the bug and passes with the right expression."""
    repository = repositories(1)[0]
    for path, text in repository.files.items():
        (tmp_path / path).write_text(text)

    def exit_code():
        return subprocess.run(
            [sys.executable, TEST_FILE], cwd=tmp_path, stderr=subprocess.DEVNULL, timeout=30, check=False
        ).returncode

    assert exit_code() == 1
    bug = tmp_path / repository.bug_file
    bug.write_text(bug.read_text().replace(repository.bug.shown, repository.bug.right, 1))
    assert exit_code() == 0


def _bug(repository):
    return (repository.bug_file, repository.bug.name, repository.bug.shown, repository.bug.right)


def test_splits_are_disjoint_and_tasks_deterministic():
    bugs = {
        split: {_bug(SweFamily(s).task(split, i).repository) for s in (0, 1) for i in range(300)} for split in SPLITS
    }
    bugs["demonstrations"] = {_bug(FAMILY.demonstrate(i).repository) for i in range(300)}
    assert not bugs["train"] & bugs["dev"] and not bugs["train"] & bugs["test"] and not bugs["dev"] & bugs["test"]
    assert not bugs["demonstrations"] & (bugs["dev"] | bugs["test"])
    for split in SPLITS:
        assert all(split_of(path.removesuffix(".py"), *rest) == split for path, *rest in bugs[split])
        assert SweFamily(3).task(split, 7).repository == SweFamily(3).task(split, 7).repository
        assert FAMILY.task(split, 7).messages == SweFamily(0).task(split, 7).messages
    assert FAMILY.task("train", 1).repository != SweFamily(1).task("train", 1).repository
    assert FAMILY.demonstration(3) == SweFamily(0).demonstration(3)


def test_tasks_carry_one_fixed_thinking_mode():
    tasks = [FAMILY.task("train", i) for i in range(20)]
    assert {task.thinking for task in tasks} == {THINKING} and not THINKING.enabled
    assert len({task.messages[1].content for task in tasks}) > 3
    assert family("swe", 2).task("dev", 0).task_id == "swe/dev/0"


def test_demonstrations_pass_about_a_quarter():
    assert 0.22 < demonstration_pass_rate(FAMILY, 3000) < 0.32


def test_demonstrations_mix_modes_openings_and_mistakes():
    found = [FAMILY.demonstration(i) for i in range(1000)]
    for mode, share in MODES:
        assert abs(sum(c.thinking == mode for c in found) / len(found) - share) < 0.06
    assert sum(c.thinking == THINKING for c in found) >= 0.6 * len(found)
    firsts = [c.messages[2].tool_calls[0].name for c in found]
    assert {"test", "list", "search"} == set(firsts)
    mistakes = [c for c in found if any(not m.trained for m in c.messages)]
    assert 0.08 < len(mistakes) / len(found) < 0.25
    for c in found:
        turns = [m for m in c.messages if m.role == "assistant"]
        assert len(turns) <= MAX_TURNS and c.tools == TOOLS
        assert turns[-1].tool_calls[0].name == "submit" and c.messages[-1] is turns[-1]
        assert all((m.reasoning is not None) == c.thinking.enabled for m in turns)
    for c in mistakes:
        for before, after in zip(c.messages, c.messages[1:]):
            assert before.trained or after.content in ("no file", "not found")


def test_demonstrations_are_fast():
    """Faster than 500 per CPU second in the best of three tries: the machine may be busy."""

    def seconds(first):
        start = time.process_time()
        for index in range(first, first + 200):
            FAMILY.demonstration(index)
        return time.process_time() - start

    assert min(seconds(first) for first in (0, 200, 400)) < 200 / 500


def test_an_episode_costs_200_to_330_tokens():
    """With a byte-level BPE trained on the world's own text."""
    from arcforge.chat.template import render, tool_json, tools_block
    from arcforge.chat.tokenizer import Tokenizer

    found = [FAMILY.demonstration(i) for i in range(300)]
    texts = [tool_json(tool) for tool in TOOLS] * 20
    for c in found:
        for m in c.messages:
            texts += [m.content, m.reasoning or ""]
            texts += [" ".join([call.name, *call.arguments, *call.arguments.values()]) for call in m.tool_calls]
    tokenizer = Tokenizer.train([*texts, *[" ".join(NAMES)] * 30], 1024)
    assert 70 < len(tools_block(TOOLS, tokenizer)) < 130
    lengths = [len(render(c.messages, c.tools, c.thinking, tokenizer).ids) for c in found]
    assert 200 < sum(lengths) / len(lengths) < 330
