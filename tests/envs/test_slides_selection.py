"""Slides: what is asked for, the tools, and which pages and attempts are trained on. No browser."""

import asyncio
import random

import pytest
from slide_pages import slide

from arcforge.core.errors import TaskError
from arcforge.core.messages import Message, ToolCall
from arcforge.envs.registry import family
from arcforge.envs.slides import selection
from arcforge.envs.slides.briefs import DOMAINS, make
from arcforge.envs.slides.check import check
from arcforge.envs.slides.content import Content, normalised, says
from arcforge.envs.slides.demonstrations import write_slides
from arcforge.envs.slides.family import Grader, SlidesFamily, work
from arcforge.envs.slides.grading import DeckScore, SlideScore
from arcforge.envs.slides.markup import parse
from arcforge.envs.slides.markup_checks import markup_level
from arcforge.envs.slides.score import PageScore
from arcforge.envs.slides.writing import BAD_ARGUMENTS, NO_TOOL, OK, Deck


def scored(quality=1.0, content=1.0, duplicate=False, parsable=1.0):
    page = PageScore(quality=quality, checks=(check(1, "parsable", parsable),))
    return SlideScore(page=page, content=Content(share=content), duplicate=duplicate)


@pytest.mark.parametrize("domain", DOMAINS)
def test_templates_say_what_is_asked_for_in_clean_markup(domain):
    for seed in range(3):
        brief = make(domain, random.Random(seed))
        files = {name: text.encode() for name, text in brief.files.items()}
        for asked, html in zip(brief.slides, write_slides(brief, random.Random(seed)), strict=True):
            tree = parse(html)
            text = normalised(" ".join(node.text for node in tree.texts()))
            assert all(says(text, fact) for point in asked.points for fact in point.facts), (text, asked)
            assert says(text, asked.heading)
            assert [c for c in markup_level(tree, files) if c.score < 1] == []


def test_every_fact_stands_in_the_request():
    for seed in range(30):
        brief = make("deck", random.Random(seed))
        request = normalised(brief.request)
        assert all(says(request, fact) for s in brief.slides for point in s.points for fact in point.facts), brief
        assert [row[1] for row in brief.slides[2].table.rows] == [row[1] for row in brief.slides[3].table.rows]


def test_numbers_of_steps_and_pages_are_no_plans():
    """What a deck says anyway, in any order of its plans."""
    for seed in range(30):
        closing = make("deck", random.Random(seed)).slides[-1]
        counts = [point.facts[0] for point in closing.points]
        numbers = normalised(" ".join(str(number) for number in range(30)))
        assert all(says(normalised(p.text), p.facts[0]) for p in closing.points)
        assert not any(says(numbers, count) for count in counts), counts


def test_a_grader_that_likes_headings_is_no_grader():
    class Lenient(Grader):
        async def grade(self, brief, written):
            return DeckScore(slides=tuple(scored() for _ in brief.slides))

    made = SlidesFamily(3, Lenient())
    with pytest.raises(TaskError, match="headings 1"):
        asyncio.run(made.validate("test", 0))


def test_briefs_are_repeatable_and_splits_do_not_meet():
    made, again = family("slides", 1), family("slides", 1)
    try:
        assert [made.brief("test", i) for i in range(6)] == [again.brief("test", i) for i in range(6)]
        keys = {split: {made.brief(split, i).key for i in range(40)} for split in ("train", "dev", "test")}
        assert not keys["train"] & keys["test"] and not keys["dev"] & keys["test"] and not keys["train"] & keys["dev"]
        assert made.demonstration(4) == again.demonstration(4) != family("slides", 2).demonstration(4)
    finally:
        asyncio.run(made.close())


def test_a_demonstration_uses_its_tools_rightly():
    made = family("slides")
    for index in range(3):
        conversation = made.demonstration(index)
        messages = conversation.messages[2:]
        count = len(messages) // 2 - 1
        assert count == (1, 1, 5)[index] and selection.tools_correct(messages, count)
        deck = Deck(count)
        answers = [deck.call(call) for message in messages for call in message.tool_calls]
        assert answers == [m.content for m in messages if m.role == "tool"] and deck.done and len(deck.slides) == count


def test_mistakes_are_answered_in_words():
    deck = Deck(2)
    calls = [
        ToolCall(name="write_slide", arguments={"number": 3, "html": "x"}),
        ToolCall(name="write_slide", arguments={"number": True, "html": "x"}),
        ToolCall(name="write_slide", arguments={"number": "1", "html": "x"}),
        ToolCall(name="write_slide", arguments={"number": 1, "html": "x", "more": 1}),
        ToolCall(name="submit", arguments={"now": True}),
        ToolCall(name="fly"),
        ToolCall(name="write_slide", arguments={"number": 1, "html": "x" * 100_001}),
    ]
    answers = [deck.call(call) for call in calls]
    assert answers[:2] == ["there are slides 1 to 2"] * 2 and answers[2:5] == [BAD_ARGUMENTS] * 3
    assert answers[5] == NO_TOOL and answers[6].startswith("too long") and not deck.done and not deck.slides


def test_an_episode_that_wrote_nothing_needs_no_browser():
    async def attempt():
        made = family("slides", 3)
        episode = await made.task("train", 2).open()
        assert await episode.call(ToolCall(name="submit")) == OK and episode.done
        verdict = await episode.grade(())
        await made.close()
        return verdict

    verdict = asyncio.run(attempt())
    assert verdict.reward == 0 and len(verdict.details["slides"]) == 5


def test_trivial_pages_are_dropped_by_chance():
    trivial, rich = parse("<!DOCTYPE html><body><h1>Hello</h1>"), parse(slide())
    assert selection.is_trivial(trivial) and not selection.is_trivial(rich)
    assert not selection.is_trivial(parse("<svg><rect/></svg>"))
    kept = selection.drop_trivial([trivial, rich] * 200, 0.25, random.Random(0))
    assert sum(place % 2 for place in kept) == 200 and 30 < sum(place % 2 == 0 for place in kept) < 70
    assert selection.drop_trivial([trivial], 0.0, random.Random(0)) == []


def test_rollouts_of_a_sample_are_spread_over_batches():
    assert selection.spread([1, 2, 3, 4, 5], 3) == [[1, 4], [2, 5], [3]]


def test_pages_are_rejected_for_each_fault():
    assert selection.accept_page(scored(0.9, 0.9))
    for bad in (scored(0.5), scored(content=0.5), scored(duplicate=True), scored(parsable=0)):
        assert not selection.accept_page(bad)
    assert selection.defective(DeckScore(slides=(scored(), scored(0.1), scored(content=0)))) == {2, 3}


def test_trajectories_are_rejected_for_wrong_tools_and_for_saying_the_same():
    good = work(["one", "two"])
    different = ["tides and berths of the year", "plans for nine cranes"]
    assert selection.accept_trajectory(good, different)
    assert not selection.accept_trajectory(good, [different[0], different[0] + " again"])
    assert not selection.accept_trajectory(good[:-2], different)  # not submitted
    assert not selection.accept_trajectory(good[2:], different)  # slide 1 is missing
    wrong = [*good[:1], Message(role="tool", content=BAD_ARGUMENTS), *good[2:]]
    assert not selection.accept_trajectory(wrong, different)


def write(number, answer):
    call = ToolCall(name="write_slide", arguments={"number": number, "html": "x"}, id="call")
    return [Message(role="assistant", tool_calls=(call,)), Message(role="tool", content=answer, tool_call_id="call")]


def test_only_writes_that_the_deck_took_are_writes():
    taken, refused, odd = write(1, OK), write(1, "too long"), write(True, BAD_ARGUMENTS)
    submit = work([])
    assert selection.tools_correct([*taken, *submit], 1)
    assert not selection.tools_correct([*odd, *submit], 1) and not selection.tools_correct([*refused, *submit], 1)
    masked = selection.mask_pages([*taken, *refused, *odd, *submit], ())
    assert all(message.trained for message in masked)  # nothing replaced the first version
    calls = (*taken[0].tool_calls, *write(2, OK)[0].tool_calls)
    both = [Message(role="assistant", tool_calls=calls), taken[1], write(2, "no")[1], *write(2, OK)]
    assert [m.trained for m in selection.mask_pages(both, {2}) if m.role == "assistant"] == [True, False]


def test_the_best_attempt_is_one_that_was_judged():
    assert selection.best_of([0.2, None, 0.9, 0.9]) == 2
    assert selection.best_of([None, None]) is None and selection.best_of([]) is None
    assert selection.best_of([None, 0.0]) == 1


def test_only_defective_pages_and_replaced_versions_are_masked():
    draft, second, final = work(["draft"])[:2], work(["x", "second"])[2:4], work(["final"])
    messages = [*draft, *second, *final]
    odd = Message(role="assistant", tool_calls=(ToolCall(name="write_slide", arguments={"number": [1]}),))
    masked = selection.mask_pages([*messages, odd], {2})
    assert [m.trained for m in masked if m.role == "assistant"] == [False, False, True, True, True]
    assert [m.content for m in masked] == [m.content for m in [*messages, odd]]
    assert all(m.trained for m in selection.mask_pages(final, ()))
