"""Reading a run's files: torn frames, repeated steps, waits that never ended, byte-level pieces."""

import pytest
from synthetic_run import append, trajectory, write_run, write_tokenizer

from arcforge.core.errors import UserError
from arcforge.view.charts import histogram, number, ticks
from arcforge.view.pieces import Pieces
from arcforge.view.runs import load_run, series
from arcforge.view.table import summary, table
from arcforge.view.timeline import lanes, stages_with_waits
from arcforge.view.trace import listing, trace
from arcforge.view.trajectories import choose, load, scan


def test_a_torn_frame_hides_neither_earlier_nor_later_trajectories(tmp_path, rng):
    file = tmp_path / "trajectories" / "agentic_rl-0.jsonl.zst"
    rows = [trajectory(rng, "agentic_rl", index) for index in range(6)]
    append(file, rows[:2])
    append(file, rows[2:4])
    file.write_bytes(file.read_bytes()[:-25])
    append(file, rows[4:])
    found = scan(tmp_path)
    assert [outline.rollout_id for outline in found] == [rows[i].rollout_id for i in (0, 1, 4, 5)]
    assert load(found[-1:]) == rows[-1:]


def test_outlines_count_turns_tokens_and_versions(tmp_path, rng):
    row = trajectory(rng, "agentic_rl", 9)
    append(tmp_path / "trajectories" / "agentic_rl-3.jsonl.zst", [row])
    (outline,) = scan(tmp_path, "agentic_rl")
    sampled = [span for span in row.spans if span.source == "model"]
    assert outline.stage == "agentic_rl" and outline.turns == len(sampled) and list(outline.versions) == row.versions
    assert outline.tokens == len(row.ids) and outline.sampled == sum(len(span.ids) for span in sampled)
    assert scan(tmp_path, "sft") == []


def test_choose_keeps_a_small_stage_whole(tmp_path, rng):
    append(tmp_path / "trajectories" / "sft-0.jsonl.zst", [trajectory(rng, "sft", index) for index in range(10)])
    outlines = scan(tmp_path)
    assert choose(outlines, 40) == outlines and len(choose(outlines, 4)) == 4


def test_a_resumed_stage_counts_each_step_once(tmp_path):
    run = load_run(write_run(tmp_path / "run", trajectories=2))
    points = series(run.curves["pretrain"], "loss")
    assert [x for x, _ in points] == [float(step) for step in range(400)]


def test_a_wait_that_never_ended_lasts_to_the_end(tmp_path):
    rows = [
        {"who": "trainer", "kind": "stage_start", "time": 10.0},
        {"who": "trainer", "kind": "wait_start", "for": "samples", "time": 12.0},
        {"who": "trainer", "kind": "wait_end", "time": 13.0},
        {"who": "trainer", "kind": "wait_start", "time": 17.0},
        {"who": "engine", "kind": "publish", "time": 20.0},
    ]
    events = [{**row, "stage": "agentic_rl"} for row in rows]
    assert stages_with_waits(events) == ["agentic_rl"]
    (trainer, engine), sittings = lanes(events, "agentic_rl")
    assert sittings == 1 and [(w.start, w.end, w.note) for w in trainer.waits] == [(2, 3, "for samples"), (7, 10, "")]
    assert trainer.waiting_share == pytest.approx(0.4) and engine.marks == [(10.0, "publish")]


def test_a_night_between_two_sittings_is_not_drawn():
    times = [0.0, 5.0, 40_000.0, 40_050.0, 40_100.0]
    events = [{"who": "engine", "kind": "update", "stage": "rl", "time": t} for t in times]
    (lane,), sittings = lanes(events, "rl")
    assert sittings == 2 and lane.end == 100.0


def test_pieces_decode_byte_level_bpe(tmp_path):
    write_tokenizer(tmp_path)
    pieces = Pieces.load(tmp_path)
    assert [pieces.text(i) for i in (0, 4, 5, 17)] == ["ant", " ", "\n", "\\xe2\\x82"]
    assert pieces.text(18) == "<|user|>" and pieces.control == frozenset(range(18, 25)) and pieces.text(99) == "#99"


def test_pieces_agree_with_the_tokenizers_library(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(["größe 東京\t naïve ~\x00"] * 3, trainers.BpeTrainer(initial_alphabet=alphabet))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    pieces = Pieces.load(tmp_path)
    ids = tokenizer.encode("größe 東京\t naïve ~\x00").ids
    assert "".join(pieces.text(i) for i in ids) == "größe 東京\t naïve ~\x00"


def test_a_broken_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        Pieces.load(tmp_path)


def test_broken_results_are_named(tmp_path):
    (tmp_path / "stages" / "10-evaluate").mkdir(parents=True)
    (tmp_path / "stages" / "10-evaluate" / "results.json").write_text("{")
    with pytest.raises(UserError, match=r"results\.json: not valid JSON"):
        load_run(tmp_path)


def test_table_aligns():
    assert table(["name", "n"], [["a", "10"], ["bcdef", "2"]]) == "name    n\n-----  --\na      10\nbcdef   2"


def test_summary_shows_stages_and_matrix(tmp_path):
    text = summary(write_run(tmp_path / "run", trajectories=2))
    assert "7 agentic_rl" in text and "18.0 [10.3, 25.7]" in text and "1,058" in text


def test_trace_shows_text_versions_and_masks(tmp_path):
    run = write_run(tmp_path / "run", trajectories=6)
    text = trace(run, "agentic_rl-0004", colour=False)
    assert "── model v0" in text and "masked: error" in text and "<|assistant|>" in text and "\033" not in text
    assert "\033[" in trace(run, "agentic_rl-0004")
    tokens = trace(run, "agentic_rl-0004", tokens=True, colour=False)
    shown = next(t for t in load(scan(run)) if t.rollout_id == "agentic_rl-0004")
    assert "'</think>'" in tokens and len(tokens.splitlines()) == 1 + len(shown.spans) + len(shown.ids)
    assert "agentic_rl-0005" in listing(run, "agentic_rl") and "reasoning_rl-" not in listing(run, "agentic_rl")
    with pytest.raises(UserError, match="no trajectory of rollout 'x'"):
        trace(run, "x")


def test_ticks_cover_and_are_round():
    assert ticks(0.0, 0.93) == [0.0, 0.25, 0.5, 0.75, 1.0] and ticks(3.0, 3.0) == [3.0, 4.0]
    for low, high in ((-2.3, 7.7), (0.0012, 0.0013), (5e4, 9.1e6)):
        marks = ticks(low, high)
        assert marks[0] <= low and marks[-1] >= high and 2 <= len(marks) <= 8


def test_number_is_short():
    assert [number(v) for v in (None, 0.0, 0.12345, 1234.5, 3e-7, 2)] == ["–", "0", "0.123", "1,234", "3.00e-07", "2"]


def test_a_histogram_cuts_empty_ends_and_uses_log2_for_wide_ranges():
    assert histogram([0, 1], [0], "staleness") == ""
    cut = histogram([float(i) for i in range(17)], [5, 3, 1] + [0] * 13, "staleness")
    assert cut.count("<rect") == 3 and ">3</text>" in cut and ">16</text>" not in cut
    wide = histogram([2.0 ** (i / 4) for i in range(-16, 17)], [1] + [0] * 15 + [9] + [0] * 14 + [2], "ratio")
    assert all(f">{label}</text>" in wide for label in ("0.0625", "0.25", "1", "4", "16"))
