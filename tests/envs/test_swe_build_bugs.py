"""Injected bugs: every kind, in the bytes of a real file, named for good."""

import ast
import random
from pathlib import Path

import pytest
from small_repository import PRICES, TEXT, commit, git, small_repository

from arcforge.envs.swe.builder.bug_kinds import KINDS
from arcforge.envs.swe.builder.bugs import Bug, bug_patches, choose, sites
from arcforge.envs.swe.builder.clone import Clone, apply
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.source_text import Source

EXAMPLES = {
    "comparison_swapped": ("if (a + b) < c: return 1", {"if (a + b) <= c: return 1"}),
    "wrong_operator": ("return (a) + b", {"return (a) - b"}),
    "off_by_one": ("return a[1]", {"return a[2]", "return a[0]"}),
    "condition_negated": ("x = a if (b or\n  c) else 0", {"x = a if ((not (b or\n  c))) else 0"}),
    "return_dropped": ("return  (a,\n b)", {"(a,\n b)"}),
    "arguments_swapped": ("f(a, g(b), c)", {"f(g(b), a, c)"}),
    "argument_dropped": ("f(a, key=b)", {"f(a)"}),
    "branch_removed": ("if a: return b", {"pass"}),
    "wrong_variable": ("print(a)", {"print(b)"}),
    "exception_swallowed": (
        "try: a()\n  except E: b(); raise",
        {"try: a()\n  except E: pass", "try: a()\n  except E: b(); pass"},
    ),
    "wrong_function": ("return a.startswith(b)", {"return a.endswith(b)"}),
    "loop_left": ("for x in a:\n   continue", {"for x in a:\n   break"}),
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_kind_makes_its_bugs_and_keeps_every_other_byte(kind):
    body, wanted = EXAMPLES[kind]
    frame = "# é, before\ndef f(a, b, c):\n  {}\n# after\n"
    data = frame.format(body).encode()
    made = {Source(data).edited(site.edit).decode() for site in sites("m.py", data, [kind])}
    assert made == {frame.format(text) for text in wanted}


def test_defaults_and_elses_and_what_is_left_alone():
    text = 'def f(a: int = 1, *, b=True, c="x", d=None) -> list[3]:\n  if a:\n    x = 1\n  else:\n    x = 2\n  return f"{a + 1}" % b\n'
    data = text.encode()
    made = {kind: [Source(data).edited(site.edit).decode() for site in sites("m.py", data, [kind])] for kind in KINDS}
    assert [line.split("\n")[0][6:] for line in made["wrong_default"]] == [
        'a: int = 2, *, b=True, c="x", d=None) -> list[3]:',
        'a: int = 1, *, b=False, c="x", d=None) -> list[3]:',
        'a: int = 1, *, b=True, c="", d=None) -> list[3]:',
    ]
    assert made["branch_removed"] == [text.replace("x = 2", "pass")]
    assert not any("list[4]" in line or "a + 2" in line for line in made["off_by_one"])


def test_every_bug_of_a_real_file_is_numbered_and_nearly_all_are_python():
    data = Path(ast.__file__).read_bytes()
    found = sites("ast.py", data)
    assert {site.bug.kind for site in found} >= set(KINDS) - {"loop_left"} and len(found) > 500
    assert len({site.bug for site in found}) == len(found)
    kept = random.Random(0).sample(found, 3)
    for site in kept:
        assert sites("ast.py", data, [site.bug.kind])[site.bug.number] == site
        ast.parse(Source(data).edited(site.edit))


def test_patches_make_and_mend_a_bug(tmp_path):
    small_repository(tmp_path / "shop")
    clone = Clone(tmp_path / "shop")
    bug = Bug(path="shop/text.py", kind="comparison_swapped", number=0)
    broken, mended = bug_patches(clone, clone.head(), bug)
    clone.export(clone.head(), tmp_path / "shop")
    apply(tmp_path / "shop", broken)
    assert (tmp_path / "shop/shop/text.py").read_text() == TEXT.replace("<=", "<")
    apply(tmp_path / "shop", mended)
    assert (tmp_path / "shop/shop/text.py").read_text() == TEXT
    with pytest.raises(Rejected) as caught:
        bug_patches(clone, clone.head(), bug.model_copy(update={"number": 9}))
    assert caught.value.reason == "no_such_bug"


def test_only_functions_that_tests_enter_get_bugs_and_kinds_take_turns(tmp_path):
    root = tmp_path / "shop"
    root.mkdir()
    git(root, "init", "--quiet")
    commit(
        root,
        "start",
        {"shop/prices.py": PRICES, "shop/text.py": TEXT, "tests/test_a.py": "def test_a():\n    assert 1 < 2\n"},
    )
    clone = Clone(root)
    entered = {
        "tests/test_a.py::test_a": [("tests/test_a.py", 1), ("shop/text.py", 1)],
        "tests/test_b.py::test_b[x]": [("shop/text.py", 1)],
        "tests/test_c.py::test_c": [("shop/text.py", 1000)],
    }
    chosen = choose(clone, clone.head(), entered, 4, random.Random(0))
    assert len({bug.kind for bug, _ in chosen}) == 4
    assert all(bug.path == "shop/text.py" and tests == ("tests/test_a.py", "tests/test_b.py") for bug, tests in chosen)
    assert chosen == choose(clone, clone.head(), entered, 4, random.Random(0))
    assert any(chosen != choose(clone, clone.head(), entered, 4, random.Random(seed)) for seed in range(1, 9))
