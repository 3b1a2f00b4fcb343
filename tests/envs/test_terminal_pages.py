"""From a folder of pages to those that tasks are made of: every way of being left out, strata, sampling, and a task of a page."""

import asyncio
from collections import Counter

import pytest
from synthetic_tasks import GOOD, Script, answer

from arcforge.core.errors import UserError
from arcforge.envs.search.pages.page import Builder
from arcforge.envs.terminal.harbor import read_task
from arcforge.envs.terminal.synthesis.factory import SynthesisSettings, build_candidates
from arcforge.envs.terminal.synthesis.pages.alike import Alike
from arcforge.envs.terminal.synthesis.pages.funnel import candidates, plan
from arcforge.envs.terminal.synthesis.pages.glance import glance
from arcforge.envs.terminal.synthesis.pages.quality import features, poor
from arcforge.envs.terminal.synthesis.pages.strata import Placed, sample
from arcforge.envs.terminal.synthesis.pages.suitability import suitability
from arcforge.envs.terminal.synthesis.pages.tables import funnel_table, strata_table
from arcforge.sandbox.host import bubblewrap_works

SENTENCES = (
    "The lines of a file that match a pattern are written to the standard output, each of them once and in the order of the file. ",
    "When a second file is given, the lines of both are read one after the other, and the name of each file stands before its lines. ",
    "This is used where the text of a program has to be searched for a word that may stand in more than one of its files. ",
    "If no pattern is given, all lines are written as they are, which can be of use when only their number is to be known. ",
)
PROSE = "".join(SENTENCES) * 2
USE = "\n\n".join(f"    $ sort -n -k {i} file-{i}.txt" for i in range(1, 6))
GOOD_PAGE = f"# Sorting lines\n\n{PROSE}\n\n{USE}\n"


def page(*blocks, page_id="guide.md", links=()):
    builder = Builder(page_id, "md")
    for block in blocks:
        builder.block(block)
    for text in links:
        start = len(builder.buffer)
        builder.inline(text)
        builder.link(start, "other.md")
        builder.end_block()
    return builder.build()


@pytest.mark.parametrize(
    ("page_id", "told"),
    [
        ("man/fr/man1/ls.1", "another language"),
        ("man/pt_BR/man8/x.8", "another language"),
        ("man/man1/sort.1", ""),
        ("man1/sort.1", ""),
        ("fr/man1/sort.1", "another language"),
        ("doc/x/copyright", "a record"),
        ("doc/x/changelog.Debian", "a record"),
        ("doc/git/RelNotes/2.1.txt", "a record"),
        ("man/man1/gcloud_beta_run.1", "more than a sandbox"),
        ("man/man1/curl.1", "more than a sandbox"),
        ("man/man1/no-such-command.1", "not here"),
        ("man/man3/printf.3", ""),
        ("doc/python/howto/regex.html", ""),
    ],
)
def test_what_the_name_of_a_page_tells(page_id, told):
    assert glance(page_id).startswith(told) if not told else told in glance(page_id)


POOR = {
    "fewer than 150 words": page("Few words."),
    "codes or drawings": page(PROSE, "0x3f 0x40 | 17 18 19 " * 400),
    "no English prose": page(" ".join(f"libfoo{chr(97 + i % 26)}bar" for i in range(400))),
    "links to other pages": page(PROSE, links=[" ".join(SENTENCES)] * 4),
    "repeats itself": page(*SENTENCES, *[SENTENCES[0]] * 12),
    "a record of changes": page(PROSE, *(f"2021-04-{i:02} something was changed" for i in range(1, 20))),
}


@pytest.mark.parametrize("reason", POOR)
def test_a_page_of_poor_quality_is_told_by_its_feature(reason):
    assert poor(features(POOR[reason])) == reason


def test_a_table_drawn_with_lines_is_no_page_of_codes():
    assert poor(features(page(PROSE, "─" * 20_000))) == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{PROSE}\n{USE}", ""),
        (f"{PROSE} The server of this network speaks to its clients over a socket. " * 2 + USE, "needs a network"),
        (f"{PROSE} The kernel driver of the device is mounted. " * 2 + USE, "needs the machine"),
        (f"{PROSE} The window has widgets for the mouse and a display. " * 2 + USE, "needs a screen"),
        (PROSE, "nothing that can be run here"),
        (f"{PROSE}\n    $ sort -n file", "tells of a thing"),
        (f"{PROSE} such as -x, and file -y as -z", "nothing that can be run here"),
    ],
)
def test_what_suits_a_terminal(text, told):
    found = suitability(page(text))
    assert found.reason.startswith(told) and (told or found.reason == "")
    assert told or found.tools[0] == "sort"


def test_a_page_that_says_what_another_says_is_left_out():
    alike = Alike()
    other = " ".join(f"word{i}" for i in range(2000))
    assert not alike.seen(other) and alike.seen(f"A new beginning. {other} and an end")
    assert not alike.seen(" ".join(f"word{i * 7 % 2000}" for i in range(2000)))


def test_strata_take_turns_and_the_seed_decides():
    pages = [Placed(page_id=f"{topic}{level}{i}", title="t", topic=topic, difficulty=level, tools=("sort",))
             for topic, number in (("text", 50), ("files", 3)) for level in (1, 2) for i in range(number)]  # fmt: skip
    chosen = sample(pages, 20, seed=1)
    assert Counter(p.topic for p in chosen) == {"text": 14, "files": 6} and len({p.page_id for p in chosen}) == 20
    assert chosen == sample(pages[::-1], 20, seed=1) != sample(pages, 20, seed=2)
    assert len(sample(pages, 1000)) == len(pages) and sample(pages, 20, 1) == sample(pages, 1000, 1)[:20]


@pytest.fixture
def folder(tmp_path):
    """Seven files: one that suits, a copy of it, nearly a copy of it, and one for each of four steps."""
    root = tmp_path / "pages"
    root.mkdir()
    files = {
        "a-good.md": GOOD_PAGE, "b-copy.md": GOOD_PAGE, "c-near.md": GOOD_PAGE.replace("Sorting lines", "Lines, sorted"),
        "changelog.md": GOOD_PAGE, "empty.md": "Nothing.", "short.md": " ".join(["word"] * 30), "plain.md": PROSE,
    }  # fmt: skip
    for name, text in files.items():
        (root / name).write_text(text)
    return root


def test_the_funnel_of_a_small_folder(folder):
    funnel = plan([folder], workers=2)
    assert funnel.listed == 7 and [page.page_id for page in funnel.pages] == ["a-good.md"]
    assert funnel.dropped == {
        "by name": {"a record, an index or a licence": 1},
        "drawn": {},
        "copies": {"the same file": 1},
        "reading": {"fewer than 20 words": 1},
        "quality": {"fewer than 150 words": 1},
        "suitability": {"nothing that can be run here": 1},
        "near-copies": {"says what another page says": 1},
    }
    assert funnel.entering("by name") == 7 and funnel.entering("near-copies") == 2
    assert funnel.strata == {"text": {1: 0, 2: 1, 3: 0}} or funnel.strata == {"text": {1: 1, 2: 0, 3: 0}}
    shown = funnel_table(funnel) + strata_table(funnel, funnel.pages)
    assert "says what another page says" in shown and "1 of 1" in shown
    drawn = plan([folder], most=4, seed=1)
    assert drawn.dropped["drawn"] == {"not drawn": 2} and drawn.entering("copies") == 4
    assert drawn == plan([folder], most=4, seed=1) and plan([folder], most=6) == funnel
    with pytest.raises(UserError, match="no such folder"):
        plan([folder / "none"])


@pytest.mark.skipif(not bubblewrap_works(), reason="bubblewrap does not work here")
def test_a_page_becomes_a_task_that_names_it(folder, tmp_path):
    tries = candidates(plan([folder]).pages)
    script = Script(answer({"instruction.md": GOOD["instruction.md"]}))
    settings = SynthesisSettings(count=3, oracle_runs=1)
    account = asyncio.run(build_candidates(tries, script.models, tmp_path / "out", settings))
    assert account.outcomes == {"kept": 1} and script.asked == ["build", "judge"]
    assert "The lines of a file that match" in script.completer.requests[0].messages[0].content
    held = read_task(next((tmp_path / "out/tasks").iterdir())).config.metadata
    assert held["seed_kind"] == "page" and held["seed"] == "a-good.md" and "sort" in held["skills"]
