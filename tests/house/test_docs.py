"""What the documentation names exists: links, paths, make targets, command lines, recipe keys; and nothing of one machine."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer
from test_floors import PACKAGE, ROOMS

from arcforge.cli.main import app

ROOT = Path(__file__).parents[2]
TRACKED = subprocess.run(
    ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
)
FILES = [ROOT / name for name in TRACKED.stdout.split("\n") if name and (ROOT / name).is_file()]
DOCS = [file for file in FILES if file.suffix == ".md"]
TEXTS = [file for file in FILES if file.suffix in {".md", ".py", ".toml", ".txt", ".j2", ".js", ".css", ""}]
HOMES = ("home", "root", "Users", "mnt", "work")
PLACEHOLDER = "FI" + "LL:"


def names(files):
    return [str(file.relative_to(ROOT)) for file in files]


def fenced(text):
    """(language, body) of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)


def command_lines(text):
    """Commands in shell blocks, and those in single backquotes that say more than the verb."""
    lines = [line for language, body in fenced(text) if language in ("bash", "console") for line in body.splitlines()]
    inline = re.findall(r"`((?:arcforge|make) [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    stripped = [line.strip().removeprefix("$ ").removeprefix(".venv/bin/") for line in [*lines, *inline]]
    return [line for line in stripped if line.startswith(("arcforge ", "make "))]


def paths(text):
    """Things in backquotes that look like a path into this repository."""
    tops = {file.relative_to(ROOT).parts[0] for file in FILES} | set(ROOMS)
    quoted = re.findall(r"`([\w.-]+(?:/[\w.-]+)+/?)`", text)
    return [path for path in quoted if path.split("/")[0] in tops]


def exists(path, near):
    return any((base / path).exists() for base in (ROOT, PACKAGE, near))


def parse(words):
    """Parse `arcforge ...` as the program would, without running it."""
    group = typer.main.get_command(app)
    context = group.make_context("arcforge", words[:1], resilient_parsing=True)
    if words[0].startswith("--"):
        return
    verb = group.get_command(context, words[0])
    assert verb is not None, f"arcforge has no verb {words[0]}"
    if words[1:]:
        verb.make_context(words[0], words[1:], parent=context)


def test_git_lists_the_documentation():
    assert {"README.md", "CONTRIBUTING.md", "docs/tour.md"} <= set(names(DOCS))


@pytest.mark.parametrize("doc", names(DOCS))
def test_links_and_paths_exist(doc):
    text, near = (ROOT / doc).read_text(), (ROOT / doc).parent
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (near / link).exists()]
    missing += [path for path in paths(text) if not exists(path, near)]
    assert not missing, f"{doc} names {missing}"


@pytest.mark.parametrize("doc", names(DOCS))
def test_commands_parse(doc):
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    for line in command_lines((ROOT / doc).read_text()):
        words = shlex.split(line, comments=True)
        if words[0] == "make":
            assert set(words[1:]) <= set(targets), f"{doc}: {line}"
            continue
        try:
            parse(words[1:])
        except Exception as error:
            raise AssertionError(f"{doc}: {line}: {error}") from error


@pytest.mark.parametrize("doc", names(DOCS))
def test_toml_blocks_are_toml(doc):
    for language, body in fenced((ROOT / doc).read_text()):
        if language == "toml":
            tomllib.loads(body)


@pytest.mark.parametrize("doc", names(DOCS))
def test_no_place_is_left_to_fill_in(doc):
    assert PLACEHOLDER not in (ROOT / doc).read_text()


def test_nothing_names_a_path_of_one_machine():
    pattern = re.compile(rf"(?<![\w.])/(?:{'|'.join(HOMES)})/[\w.]")
    named = [
        f"{file.relative_to(ROOT)}: {m[0]}" for file in TEXTS for m in pattern.finditer(file.read_text(errors="ignore"))
    ]
    assert not named, named


def test_the_map_in_the_readme_is_the_table_of_the_rooms_that_are_built():
    rows = re.findall(r"^\| (\d) \| `(\w+)` \| (\w+) \|", (ROOT / "README.md").read_text(), re.M)
    told = {name: (int(floor), half) for floor, name, half in rows}
    built = {path.parent.name for path in (ROOT / "src" / "arcforge").glob("*/*.py")}
    assert told == {name: (room.floor, room.half) for name, room in ROOMS.items() if name in built}


def test_wrong_documentation_is_found():
    text = "See `model/nowhere.py`.\n```bash\n$ arcforge fly away  # up\n.venv/bin/arcforge serve x --port abc\nmake tea\n```\n"
    assert paths(text) == ["model/nowhere.py"] and not exists("model/nowhere.py", ROOT)
    fly, serve, tea = command_lines(text)
    assert tea == "make tea"
    for line in (fly, serve):
        with pytest.raises((AssertionError, typer.BadParameter)):
            parse(shlex.split(line, comments=True)[1:])
