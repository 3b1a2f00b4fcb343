"""The report is one self-contained page, and its trajectory browser works in a real browser."""

import json
import re
import shutil
import subprocess

import pytest
from synthetic_run import HALF_CHARACTER, WORDS, append, trajectory, write_json, write_run

from arcforge.core.errors import UserError
from arcforge.view.report import TRAJECTORIES_PER_STAGE, write_report
from arcforge.view.table import summary

CHROMIUM = next((found for n in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(n))), None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("view") / "run")


@pytest.fixture(scope="module")
def page(run):
    return write_report(run).read_text()


def embedded(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def test_page_is_self_contained(page):
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", page)
    assert "@import" not in page and "<link" not in page
    assert all(href.startswith("#") for href in re.findall(r'href="([^"]*)"', page))
    assert len(page) < 1_000_000


def test_every_part_is_there(page):
    for part in ("stages", "capabilities", "curves", "context", "async", "trajectories", "recipe"):
        assert f'<section id="{part}">' in page
    assert "128 tasks" in page and "10.3 – 25.7" in page and ">18.0<" in page  # sft, agentic, its interval
    assert "trainer waited" in page and "order-2 byte model" in page and "sandbox <b>" in page


def test_stage_rows_carry_the_share_beyond_topk(page):
    rows = re.findall(r"<tr>.*?</tr>", page, re.S)
    sft = next(row for row in rows if "</span> sft<" in row)
    pretrain = next(row for row in rows if "</span> pretrain<" in row)
    assert "41%" in sft and "41%" not in pretrain


def test_token_text_cannot_end_the_script(page):
    data = embedded(page)
    assert data["pieces"][str(WORDS.index("</script>"))] == "</script>"
    assert data["pieces"][str(len(WORDS))] == "".join(f"\\x{byte:02x}" for byte in HALF_CHARACTER)


def test_picks_failed_best_and_worst_of_each_stage(page):
    shown = embedded(page)["trajectories"]
    for stage in ("reasoning_rl", "agentic_rl"):
        rewards = [t["reward"] for t in shown if t["stage"] == stage]
        assert len(rewards) == TRAJECTORIES_PER_STAGE
        assert rewards.count(None) == 4 and rewards.count(1.0) >= 12 and rewards.count(0.0) >= 12


def test_an_unfinished_run_gives_a_report(tmp_path):
    (tmp_path / "stages" / "01-tokenizer").mkdir(parents=True)
    page = write_report(tmp_path).read_text()
    assert "0 of 1" in page and '<section id="trajectories">' not in page


def test_a_cell_that_could_not_be_graded_is_a_dash(tmp_path):
    cells = [
        {"checkpoint": "sft", "capability": "chat", "correct": 0, "total": 0, "value": None, "low": None, "high": None}
    ]
    write_json(tmp_path / "stages" / "10-evaluate" / "results.json", {"cells": cells})
    assert '<td class="none">–</td>' in write_report(tmp_path).read_text()
    assert summary(tmp_path).splitlines()[-1].split() == ["sft", "–"]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        write_report(tmp_path)


def test_a_trajectory_without_a_tokenizer_shows_ids(tmp_path, rng):
    (tmp_path / "stages").mkdir()
    append(tmp_path / "trajectories" / "sft-0.jsonl.zst", [trajectory(rng, "sft", 1)])
    assert embedded(write_report(tmp_path).read_text())["pieces"]["3"] == "#3"


def dom(report, tmp_path, script="", address=""):
    """The page's HTML after it ran in headless Chromium, with `script` appended to a copy of it."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine; the browser tests need one")
    copy = tmp_path / "copy.html"
    copy.write_text(report.replace("</body>", f"<script>{script}</script></body>"))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [CHROMIUM, *flags, "--virtual-time-budget=3000", "--dump-dom", f"file://{copy}{address}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout


def fields(html):
    return dict(re.findall(r'<dd data-field="([^"]+)">([^<]*)</dd>', html))


@pytest.mark.browser
def test_the_address_opens_a_token(page, tmp_path):
    shown = embedded(page)["trajectories"]
    masked = next(n for n, t in enumerate(shown) if any(s["mask_reason"] == "error" for s in t["spans"]))
    position = len(shown[masked]["spans"][0]["ids"])
    seen = fields(dom(page, tmp_path, address=f"#trajectory={masked}&token={position}"))
    span = shown[masked]["spans"][1]
    assert seen["token id"] == str(span["ids"][0]) and seen["version"] == str(span["version"])
    assert seen["trained"] == "no" and seen["why not"] == "error" and float(seen["logprob"]) == span["logprobs"][0]


@pytest.mark.browser
def test_clicks_filter_and_open(page, tmp_path):
    shown = embedded(page)["trajectories"]
    clicks = """
      const choose = (id, value) => { const s = document.getElementById(id); s.value = value; s.dispatchEvent(new Event("input")); };
      choose("filter-stage", "agentic_rl");
      choose("filter-outcome", "high");
      document.body.dataset.listed = document.querySelectorAll("#list a").length;
      document.querySelectorAll("#list a")[1].click();
      setTimeout(() => document.querySelector('#pane [data-token="2"]').click(), 200);
    """
    html = dom(page, tmp_path, script=clicks)
    wanted = [t for t in shown if t["stage"] == "agentic_rl" and t["reward"] == 1.0]
    assert f'data-listed="{len(wanted)}"' in html
    assert f"rollout {wanted[1]['rollout_id']}" in html
    assert fields(html)["token id"] == str(wanted[1]["spans"][0]["ids"][2]) and fields(html)["why not"] == "prompt"
