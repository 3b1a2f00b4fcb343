"""What a model writes, read strictly: files, drafts, findings; and the criteria that rules decide, each with a case that fails."""

import json

import pytest
from synthetic_tasks import GOOD, IDEAS, answer, easy

from arcforge.core.errors import UserError
from arcforge.envs.terminal.generate import FAMILIES, generate
from arcforge.envs.terminal.handwritten.collection import handwritten
from arcforge.envs.terminal.harbor import write_task
from arcforge.envs.terminal.synthesis.assembly import assemble
from arcforge.envs.terminal.synthesis.files import Malformed, parse_files, show_files
from arcforge.envs.terminal.synthesis.ideas import Candidate, Idea, distinct, read_ideas
from arcforge.envs.terminal.synthesis.judge import read_findings
from arcforge.envs.terminal.synthesis.literal import writes_it_down
from arcforge.envs.terminal.synthesis.rules import decided
from arcforge.envs.terminal.synthesis.seeds import Seed, read_seeds


def test_files_are_read_as_they_were_shown():
    text = show_files(GOOD)
    assert {path: body.rstrip() for path, body in parse_files(text).items()} == GOOD
    assert parse_files(text.replace("\n", "\r\n")) == parse_files(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no <file"),
        ("Sure!\n" + show_files(GOOD), "line 1 stands outside"),
        (show_files(GOOD)[:-8], "no </file> at its end"),
        (show_files({"../x": "a"}), "'../x' is neither"),
        (show_files({"/app/x": "a"}), "is neither"),
        (show_files({"tests/../../x": "a"}), "is neither"),
        (show_files({"README.md": "a"}), "is neither"),
        (show_files({"tests/a": "x"}) + "\n" + show_files({"tests/a": "y"}), "given twice"),
        (show_files({"tests/a": "x", "tests/a/b": "y"}), "a file and a folder"),
        (show_files({"tests/a": "\0"}), "zero byte"),
        (show_files({f"tests/{i}": "x" for i in range(41)}), "41 files"),
        (show_files({"tests/a": "x" * 200_001}), "200002 characters"),
    ],
)
def test_what_is_not_in_the_form_is_refused(text, told):
    with pytest.raises(Malformed) as error:
        parse_files(text)
    assert told in str(error.value) and "\n" not in str(error.value)


MALFORMED = {
    "missing or empty: solution/solve.sh": {"solution/solve.sh": ""},
    "fewer than 40": {"instruction.md": "Do it."},
    "not valid TOML": {"task.toml": "[agent"},
    "verifier.timeout_sec is over": {"task.toml": "[verifier]\ntimeout_sec = 10000"},
    "task.toml: agent.timeout_sec": {"task.toml": "[agent]\ntimeout_sec = -1"},
    "docker_image are not used": {"task.toml": '[environment]\ndocker_image = "x:1"'},
    "USER is not followed": {"environment/Dockerfile": "FROM x:1\nWORKDIR /app\nUSER me"},
    "No closing quotation": {"environment/Dockerfile": "FROM x:1\nWORKDIR /app\nENV A='b"},
    "the last WORKDIR is /": {"environment/Dockerfile": "FROM x:1"},
    "move 'echo 1 > /app/x'": {
        "environment/Dockerfile": "FROM x:1\nWORKDIR /app\nRUN apt-get update && apt-get install -y jq && \\\n echo 1 > /app/x"
    },
    "not JSON": {"tests/checks.json": "[}"},
    "not an empty one": {"tests/checks.json": "[]"},
    "kind 'dance' is not one of": {"tests/checks.json": '[{"kind": "dance"}]'},
    "text: missing a required argument": {"tests/checks.json": '[{"kind": "text", "path": "sum.txt"}]'},
    "steps are not run here": {"task.toml": '[[steps]]\nname = "one"'},
}


@pytest.mark.parametrize("told", MALFORMED)
def test_files_that_are_no_task_are_refused(told):
    with pytest.raises(Malformed) as error:
        assemble("x", parse_files(answer(MALFORMED[told])), {})
    assert told in str(error.value)


def test_what_a_model_says_of_itself_is_not_kept():
    task = assemble(
        "x",
        parse_files(answer({"task.toml": '[metadata]\nmodel = "a better one"\n[agent]\ntimeout_sec = 60'})),
        {"model": "m"},
    )
    assert task.config.metadata == {"model": "m"} and task.config.agent.timeout_sec == 60
    with pytest.raises(Malformed, match=r"neither tests/test\.sh"):
        assemble("x", parse_files(answer(leave=("tests/checks.json",))), {})


LOOKS = "cd /\nif grep -qx 12 /app/sum.txt; then echo 1; else echo 0; fi > /logs/verifier/reward.txt"
FAILING = {
    "file_reference_mentioned": {"instruction.md": "Sum up the numbers in /app/amounts.txt and store what comes out."},
    "tests_or_solution_in_image": {"environment/hint.sh": GOOD["solution/solve.sh"]},
    "pinned_dependencies": {
        "environment/Dockerfile": GOOD["environment/Dockerfile"] + "\nRUN pip install rich requests==2.32.0"
    },
    "test_deps_in_image": {
        "environment/Dockerfile": GOOD["environment/Dockerfile"] + "\nRUN apt-get install -y python3-pytest"
    },
    "hardcoded_solution": {"solution/solve.sh": "#!/bin/bash\nset -eu\ncd /app && echo 12 > sum.txt"},
}


@pytest.mark.parametrize("criterion", FAILING)
def test_a_rule_fails_what_breaks_it_and_nothing_else(criterion):
    good = decided(assemble("x", parse_files(answer()), {}))
    bad = decided(assemble("x", parse_files(answer(FAILING[criterion])), {}))
    assert criterion not in good or good[criterion].mark != "fail"
    assert [name for name, finding in bad.items() if finding.mark == "fail"] == [criterion] and bad[criterion].reason


def test_rules_read_tests_of_their_own_too():
    found = decided(assemble("x", parse_files(easy({"tests/test.sh": LOOKS})), {}))
    assert found["file_reference_mentioned"].mark == "pass" and found["structured_data_schema"].mark == "not applicable"
    downloads = easy({"tests/test.sh": "pip install pytest\n" + LOOKS})
    assert decided(assemble("x", parse_files(downloads), {}))["test_deps_in_image"].mark == "fail"
    unsaid = easy({"tests/test.sh": LOOKS, **FAILING["file_reference_mentioned"]})
    assert decided(assemble("x", parse_files(unsaid), {}))["file_reference_mentioned"].mark == "fail"


def test_no_rule_fails_a_task_that_people_wrote_or_that_is_generated():
    tasks = [*handwritten(), *(generate(family, 1, level) for family in FAMILIES for level in (1, 3))]
    failed = [(task.name, f.criterion, f.reason) for task in tasks for f in decided(task).values() if f.mark == "fail"]
    assert not failed


@pytest.mark.parametrize(
    ("script", "written"),
    [
        ("echo 12 > a.txt", ["12"]),
        ("set -e\nmkdir -p out; printf 'a\\nb\\n' > out/x.txt", ["a", "b"]),
        ("cat > a.csv <<'EOF'\n1,2\nEOF", ["1,2"]),
        ("cat > a.py <<'EOF'\nprint(1)\nEOF\npython3 a.py > b", None),
        ("cat > a.py <<'EOF'\nprint(1)\nEOF", None),
        ("sort in.txt > out.txt", None),
        ("echo $(wc -l < in.txt) > out.txt", None),
        ("cat in.txt > out.txt", None),
        ("chmod 600 key", []),
    ],
)
def test_scripts_that_only_write_down_what_they_know(script, written):
    assert writes_it_down(script) == written


def test_ideas_are_read_strictly():
    text = json.dumps({"drafts": IDEAS})
    assert read_ideas(text, 4) == read_ideas(f"```json\n{text}\n```", 4) and len(read_ideas(text, 1)) == 1
    for wrong in (
        "",
        "[]",
        '{"drafts": []}',
        text[:-1],
        f"Here: {text}",
        json.dumps({"drafts": [{**IDEAS[0], "difficulty": 9}]}),
    ):
        with pytest.raises(ValueError):
            read_ideas(wrong, 4)


def test_near_duplicates_are_dropped_in_order():
    seed = Seed(kind="topic", name="x")
    again = {**IDEAS[0], "title": "Sum of a column"}
    candidates = [Candidate(seed=seed, idea=Idea.model_validate(idea)) for idea in (IDEAS[0], again, IDEAS[1])]
    kept, dropped = distinct(candidates)
    assert kept == [candidates[0], candidates[2]] and dropped == [candidates[1]]
    assert len({candidate.name for candidate in candidates}) == 3


def test_findings_are_read_strictly():
    asked = ["typos", "behavior_in_tests"]
    told = {name: {"mark": "pass", "reason": "none"} for name in asked}
    assert [finding.mark for finding in read_findings(json.dumps(told), asked)] == ["pass", "pass"]
    for wrong in (
        "pass",
        json.dumps({"typos": told["typos"]}),
        json.dumps({**told, "more": told["typos"]}),
        json.dumps({**told, "typos": {"mark": "yes", "reason": "none"}}),
        json.dumps({**told, "typos": {"mark": "pass", "reason": " "}}),
        json.dumps({**told, "typos": "pass"}),
        json.dumps(told).replace('"behavior_in_tests"', '"typos"'),
    ):
        with pytest.raises(ValueError):
            read_findings(wrong, asked)


def test_seeds_are_topics_and_tasks(tmp_path):
    folder = write_task(generate("csv", 1, 1), tmp_path)
    (tmp_path / "seeds.txt").write_text(f"# a comment\n\nlog rotation\ntask: {folder.name}\nlog rotation\n")
    topic, task = read_seeds(tmp_path / "seeds.txt")
    assert (topic.kind, topic.name) == ("topic", "log rotation")
    assert task.kind == "task" and task.name == folder.name and "Its solution" in task.text
    for text, told in (("", "no seeds here"), ("task: nowhere", r"no instruction\.md"), ("x" * 401, ":1: longer")):
        (tmp_path / "seeds.txt").write_text(text)
        with pytest.raises(UserError, match=told):
            read_seeds(tmp_path / "seeds.txt")
