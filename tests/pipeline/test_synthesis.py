"""`arcforge env synthesize`: with a model at a URL, with a checkpoint, and what a user may get wrong."""

import json

import pytest
from parrot import parrot
from scripted_model import scripted_model
from typer.testing import CliRunner

from arcforge.cli.main import app
from arcforge.envs.terminal.harbor import read_task
from arcforge.sandbox.host import bubblewrap_works

needs_bubblewrap = pytest.mark.skipif(not bubblewrap_works(), reason="bubblewrap does not work here")
IDEA = {
    "title": "Count lines",
    "goal": "The number of lines of a file is wanted in another.",
    "difficulty": 1,
    "skills": ["wc"],
}
FILES = """<file path="instruction.md">
Write the number of lines in /app/in.txt to /app/lines.txt.
</file>
<file path="environment/Dockerfile">
FROM debian:bookworm-slim
WORKDIR /app
RUN seq 7 > in.txt
</file>
<file path="solution/solve.sh">
wc -l < in.txt > lines.txt
</file>
<file path="tests/checks.json">
[{"kind": "text", "path": "lines.txt", "text": "7\\n"}]
</file>"""


def synthesize(*words):
    return CliRunner().invoke(app, ["env", "synthesize", *map(str, words)])


def said(prompt):
    if prompt.startswith("You design"):
        return json.dumps({"drafts": [IDEA]})
    if prompt.startswith("You review"):
        asked = json.loads(prompt.rpartition("\n\n")[2])["criteria"]
        return json.dumps({name: {"mark": "pass", "reason": "it holds"} for name in asked})
    return FILES


def model():
    """Designs, builds and reviews."""
    return scripted_model(lambda asked: {"content": said(asked[-1]["messages"][0]["content"])})


@needs_bubblewrap
def test_a_model_at_a_url_makes_a_task_and_the_same_command_goes_on(tmp_path):
    (tmp_path / "topics.txt").write_text("counting\n")
    with model() as (url, asked):
        words = ("--seeds", tmp_path / "topics.txt", "--model", url, "--out", tmp_path / "out", "--count", 1)
        done = synthesize(*words)
        assert done.exit_code == 0 and "1 of 1 tasks wanted" in done.output, done.output
        assert len(asked) == 3 and synthesize(*words).stdout == done.stdout and len(asked) == 3
    task = read_task(next((tmp_path / "out/tasks").iterdir()))
    assert task.config.metadata["model"] == "scripted" and task.config.metadata["seed"] == "counting"


def test_a_checkpoint_that_says_nothing_of_use_is_a_failure_that_is_told(tmp_path):
    folder = parrot(tmp_path / "checkpoint", "</think>no")
    (tmp_path / "topics.txt").write_text("counting\n")
    done = synthesize(
        "--seeds", tmp_path / "topics.txt", "--model", folder, "--out", tmp_path / "out", "--max-tokens", 8
    )
    assert done.exit_code == 0 and "0 drafts of 1 seeds" in done.output and "engine 1" in done.output, done.output
    assert not (tmp_path / "out/tasks").exists()


def test_mistakes_are_one_line(tmp_path):
    (tmp_path / "topics.txt").write_text("counting\n")
    for words, told in (
        (("--seeds", tmp_path / "none", "--model", tmp_path), "cannot be read"),
        (("--seeds", tmp_path / "topics.txt", "--model", tmp_path), "neither a run folder nor a checkpoint"),
        (("--seeds", tmp_path / "topics.txt", "--model", "http://127.0.0.1:9/v1"), "127.0.0.1:9"),
    ):
        done = synthesize(*words, "--out", tmp_path / "out")
        assert done.exit_code == 2 and told in done.output and len(done.output.strip().splitlines()) == 1, done.output


def test_a_plan_needs_no_model_and_is_read_once(tmp_path):
    pages = tmp_path / "pages"
    pages.mkdir()
    text = (
        "The lines of a file that match are written in the order in which they are in the file, and each of them once. "
    )
    (pages / "sorting.md").write_text(
        f"# Sorting lines\n\n{text * 8}\n\n" + "\n\n".join(f"    $ sort -k {i} x.txt" for i in range(4))
    )
    (pages / "changelog.md").write_text("Nothing to see.")
    words = ("--pages", pages, "--out", tmp_path / "out", "--plan")
    done = synthesize(*words)
    assert done.exit_code == 0 and "1 pages first, of 1" in done.stdout and "not drawn" not in done.stdout, done.output
    (pages / "sorting.md").unlink()
    assert synthesize(*words).stdout == done.stdout
    seeds = tmp_path / "topics.txt"
    seeds.write_text("counting\nsorting\n")
    assert "2 seeds, 8 drafts to ask for" in synthesize("--seeds", seeds, "--out", tmp_path / "o", "--plan").stdout
    for more, told in (
        (("--seeds", seeds), "either --seeds FILE or --pages"),
        (("--most-pages", 5), "choose another --out"),
        (("--seed", 5), "choose another --out"),
    ):
        wrong = synthesize(*words, *more)
        assert wrong.exit_code == 2 and told in wrong.output
    assert "--model" in synthesize("--seeds", seeds, "--out", tmp_path / "o").output
