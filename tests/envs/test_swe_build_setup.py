"""What a project needs, patches and statements: the parts that run nothing, and an installation without a network."""

import json
import sys
import zipfile

import pytest
from small_repository import git, small_repository, this_interpreter

from arcforge.clients.scripted import ScriptedCompleter
from arcforge.core.errors import EngineError, UserError
from arcforge.core.messages import Message
from arcforge.envs.swe.builder.checkouts import ProcessCheckouts
from arcforge.envs.swe.builder.clone import Clone, commit_everything
from arcforge.envs.swe.builder.detection import detect, import_roots
from arcforge.envs.swe.builder.interpreter import install
from arcforge.envs.swe.builder.layout import LAYOUTS
from arcforge.envs.swe.builder.manifest import environment_row, read_shard, shard_name
from arcforge.envs.swe.builder.mining import sift
from arcforge.envs.swe.builder.patches import take_apart
from arcforge.envs.swe.builder.rebuild import restore
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.setup_agent import set_up
from arcforge.envs.swe.builder.statements import broken_statement, from_message, required_names, task_type

PROJECTS = {
    "dependency_groups": (
        {"pyproject.toml": '[project]\nname="x"\n[dependency-groups]\ntests=["a>1", {include-group="b"}]\nb=["c"]'},
        ((), (), ("a>1", "c")),
    ),
    "extras": ({"setup.cfg": "[options.extras_require]\ndocs = a\ntest =\n  b\n", "setup.py": ""}, (("test",), (), ())),
    "poetry": (
        {
            "pyproject.toml": '[tool.poetry.group.dev.dependencies]\npython="^3.8"\na="^1.2"\nb={version="~2.0"}\nc="*"\nd="<3"'
        },
        ((), (), ("a>=1.2", "b>=2.0", "c", "d<3")),
    ),
    "requirement_files": (
        {"requirements/tests.txt": "a", "requirements.txt": "b"},
        ((), ("requirements/tests.txt",), ()),
    ),
    "tox": (
        {"tox.ini": "[testenv]\ndeps =\n  a>=1\n  py39: b\n  {c}\n  -r r.txt\n", "r.txt": "d"},
        ((), ("r.txt",), ("a>=1", "b")),
    ),
    "none": ({"pyproject.toml": "not = [ toml", "x.py": ""}, ((), (), ())),
}


@pytest.mark.parametrize("handler", PROJECTS)
def test_a_project_is_read_by_the_handler_for_its_files(handler, tmp_path):
    files, wanted = PROJECTS[handler]
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    needs = detect(tmp_path)
    assert (needs.handler, (needs.extras, needs.files, needs.requirements)) == (handler, wanted)
    assert needs.packaged == (handler in ("dependency_groups", "extras"))


def test_of_a_projects_pytest_options_only_those_stay_that_tests_need(tmp_path):
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = -n auto --cov=x --import-mode=importlib -p pytester -p no:warnings -m 'not slow'"
    )
    (tmp_path / "src" / "x").mkdir(parents=True)
    assert import_roots(tmp_path) == (".",)
    (tmp_path / "src" / "x" / "__init__.py").write_text("")
    assert detect(tmp_path).options == ("--import-mode=importlib", "-p", "pytester", "-m", "not slow")
    assert import_roots(tmp_path) == ("src", ".")


@pytest.mark.slow
def test_an_installation_writes_exact_versions_down_and_is_taken_as_it_is(tmp_path):
    small_repository(tmp_path / "shop")
    (tmp_path / "shop" / "requirements-test.txt").write_text("demo-dep\n")
    git(tmp_path / "shop", "add", "--all")
    git(tmp_path / "shop", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "needs")
    clone, wheels = Clone(tmp_path / "shop"), tmp_path / "wheels"
    wheel(wheels, "demo_dep", "1.2.3")
    wheel(wheels, "demo_dep", "1.2.4")
    wheel(wheels, "pytest", "99.0")
    offline = ("--no-index", f"--find-links={wheels}")
    first = install(clone, clone.head(), tmp_path / "venv", pip=offline)
    assert {"demo-dep==1.2.4", "pytest==99.0"} <= {line.replace("_", "-") for line in first.requirements}
    assert first.version == ".".join(map(str, sys.version_info[:3])) and first.commit == clone.head()
    row = environment_row("corner/shop", first.commit, first)
    again = restore(row, clone, tmp_path / "again", pip=offline)
    assert (again.requirements, again.version) == (first.requirements, first.version)
    with pytest.raises(UserError, match=r"measured with Python 3\.2"):
        restore(row.model_copy(update={"python": "3.2.1"}), clone, tmp_path / "again", pip=offline)
    (wheels / "demo_dep-1.2.4-py3-none-any.whl").unlink()
    assert install(clone, clone.head(), tmp_path / "venv", pip=offline) == first
    with pytest.raises(Rejected) as caught:
        install(clone, clone.head(), tmp_path / "other", requirements=["demo-dep==1.2.4"], pip=offline)
    assert caught.value.reason == "install" and not (tmp_path / "other" / "interpreter.json").exists()


@pytest.mark.slow
def test_a_model_is_asked_where_rules_do_not_find_out_and_is_told_what_fails(tmp_path, monkeypatch):
    small_repository(tmp_path / "shop")
    clone, wheels = Clone(tmp_path / "shop"), tmp_path / "wheels"
    wheel(wheels, "demo_dep", "1.2.3")
    wheel(wheels, "pytest", "99.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))

    def trial(interpreter):
        found = any(line.lower().startswith(("demo-dep", "demo_dep")) for line in interpreter.requirements)
        return "" if found else "ModuleNotFoundError: demo_dep"

    right = '```json\n{"packaged": false, "requirements": ["demo-dep"], "options": ["-p", "no:demo"]}\n```'
    texts = ["I do not know.", '{"packaged": false, "requirements": ["--index-url=http://x"]}', right]
    script = ScriptedCompleter([Message(role="assistant", content=text) for text in texts])
    found = set_up(clone, clone.head(), tmp_path / "venv", None, trial, lambda: script)
    assert found.options == ("-p", "no:demo") and trial(found) == ""
    assert install(clone, clone.head(), tmp_path / "venv") == found  # what was found is kept
    first, *later = [request.messages[-1].content for request in script.requests]
    assert "ModuleNotFoundError: demo_dep" in first and "shop/prices.py" in first and "=== README.md" in first
    assert len(later) == 2 and all("not what was asked for" in text for text in later)
    useless = ScriptedCompleter(lambda request: Message(role="assistant", content="I do not know."))
    with pytest.raises(Rejected, match="after 3 answers of the model: the answer is not"):
        set_up(clone, clone.head(), tmp_path / "other", None, trial, lambda: useless)
    silent = ScriptedCompleter(lambda request: EngineError("down"))
    with pytest.raises(Rejected, match=r"does not answer: .*down"):
        set_up(clone, clone.head(), tmp_path / "other", None, trial, lambda: silent)


def wheel(folder, name, version):
    folder.mkdir(exist_ok=True)
    information = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{information}/RECORD", "")


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("src/click/core.py", "source"), ("click/core.py", "source"), ("setup.py", "other"), ("docs/conf.py", "other"),
        ("tests/test_core.py", "test"), ("click/testing.py", "source"), ("click/testing/data.json", "source"),
        ("testing/data.json", "test"), ("conftest.py", "test"),
        ("CHANGES.rst", "other"), (".github/workflows/test.yaml", "other"), ("click/data.json", "source"),
        ("pyproject.toml", "other"), ("examples/a/a.py", "other"), ("test_top.py", "test"), ("click/py.typed", "source"),
    ],
)  # fmt: skip
def test_sides_of_paths(path, wanted):
    assert LAYOUTS["python"].side(path) == wanted


def test_commits_are_sifted_with_reasons_and_taken_apart(tmp_path):
    names = small_repository(tmp_path / "shop")
    clone = Clone(tmp_path / "shop")
    taken, reasons = sift(clone.commits(10), LAYOUTS["python"])
    assert [commit.sha for commit in taken] == [names["feature"], names["unnoticed"], names["fixed"]]
    assert reasons == {"message": 1, "no_source": 1}
    fixed = taken[-1]
    pair = take_apart(clone, fixed, LAYOUTS["python"])
    assert pair.tests == ("tests/test_prices.py",) and b"[:count]" in pair.gold
    assert b"README" not in pair.gold + pair.test and b"cheapest" in pair.test and b"test_" not in pair.gold


def test_a_clone_is_read_whatever_the_settings_of_git_and_of_its_attributes(tmp_path, monkeypatch):
    names = small_repository(tmp_path / "shop")
    (tmp_path / "settings").write_text("[diff]\n noprefix = true\n context = 9\n[core]\n autocrlf = true\n")
    before = Clone(tmp_path / "shop").patch(names["start"], names["fixed"], ["shop/prices.py"])
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "settings"))
    git(tmp_path / "shop", "clone", "--quiet", "--bare", ".", str(tmp_path / "bare"))
    clone = Clone(tmp_path / "bare")
    assert clone.patch(names["start"], names["fixed"], ["shop/prices.py"]) == before
    (tmp_path / "tree").mkdir()
    (tmp_path / "bare" / "info").mkdir(exist_ok=True)
    clone.export(names["fixed"], tmp_path / "tree")
    assert b"\r" not in (tmp_path / "tree/shop/prices.py").read_bytes() and (tmp_path / "tree/docs/use.md").exists()
    sha = commit_everything(tmp_path / "tree", "base")
    assert git(tmp_path / "tree", "rev-list", "--all", "--count") == "1" and len(sha) == 40
    with pytest.raises(UserError, match="not a git repository"):
        Clone(tmp_path / "tree" / "shop")


def test_messages_become_statements():
    message = "Fix the prompt (#12)\n\nIt hid the default.\n\nCo-authored-by: A <a@example.org>\nCloses #3"
    assert from_message(message) == "Fix the prompt\n\nIt hid the default."
    assert [from_message(text) for text in ("wip", "Merge branch x of y", "Bump version to 2", "typo")] == [""] * 4
    subjects = ("Fix a crash", "Add colours", "Rename a module", "Pin versions")
    assert [task_type(text) for text in subjects] == ["bug fix", "feature", "refactor", "other"]


def test_names_that_only_the_tests_know_are_told():
    test = b"+++ b/t.py\n+from shop import extra\n+result = prices.discount(old, percent=5) == result\n-removed\n"
    gold = b"+++ b/p.py\n+def discount(old, percent):  # assert\n+    result = 1\n+extra = 0\n+hidden = 2\n"
    assert required_names(test, gold, "def total(old): ...") == ["discount", "extra", "percent"]


def test_a_bug_is_told_by_what_the_tests_want(tmp_path):
    names = small_repository(tmp_path / "shop")
    assert names
    failing = ["tests/test_text.py::test_shorten[a b - c-a b - c]", "tests/test_prices.py::test_no_prices"]
    text = broken_statement(tmp_path / "shop", failing)
    assert "2 tests that passed before fail now" in text and "shop/" not in text
    assert (
        "Long texts end with dots (`tests/test_text.py::test_shorten[a b - c-a b - c]`): `assert shorten(text, 7) == short`"
        in text
    )
    assert "no prices (`tests/test_prices.py::test_no_prices`): `pytest.raises(ValueError)`" in text


def test_commands_run_frozen_limited_and_with_nothing_of_this_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    (tmp_path / "kept").write_text("1")
    with ProcessCheckouts().open(tmp_path) as checkout:
        seen = json.loads(checkout.run([sys.executable, "-c", script], {"A": "1"}, 20).stdout)
        assert checkout.run([sys.executable, "-c", "while True: pass"], {}, 0.5).timed_out
        checkout.write("made/in it", "2")
        assert (checkout.read("kept"), checkout.read("made/in it")) == ("1", "2")
    assert seen["TZ"] == "UTC" and seen["PYTHONHASHSEED"] == "0" and seen["A"] == "1" and "SECRET" not in seen
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_bad_names_and_shards_are_told_in_one_line(tmp_path):
    assert shard_name("pallets/click") == "pallets+click"
    for name in ("click", "../x", "a/b/c", "a/..", "a+b/c"):
        with pytest.raises(UserError, match="owner/name"):
            shard_name(name)
    with pytest.raises(UserError, match="no shard"):
        read_shard(tmp_path, "a/b")
    (tmp_path / "a+b.environment.json").write_text(
        '{"repository":"a/b","commit":"c","python":"3.11.1","requirements":[]}'
    )
    (tmp_path / "a+b.jsonl").write_text('{"task_id": "x"}\n')
    with pytest.raises(UserError, match=r"a\+b.jsonl:1: "):
        read_shard(tmp_path, "a/b")


def test_the_interpreter_of_these_tests_has_the_programs_it_names():
    assert this_interpreter().python.exists()
