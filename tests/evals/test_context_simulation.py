"""The simulated searcher sees only its request, and each policy does to it what it is made for."""

import asyncio
import random

import pytest

from arcforge.agents.context import OMITTED
from arcforge.agents.policies import DiscardAll, KeepAll, KeepRecent
from arcforge.agents.summaries import summary_request
from arcforge.core.messages import Message, Sampling, ToolCall
from arcforge.core.protocols import CompletionRequest
from arcforge.evals.context_simulation.run import in_papers_order, outcome, policies, simulate, summed
from arcforge.evals.context_simulation.searcher import Reading, Searcher, Seen, Summarizer, count_tokens, notes_of
from arcforge.evals.context_simulation.world import World

SURE, BLIND = Reading(best=1.0, half=1e12), Reading(best=0.0)
SMALL = World(hops=2, pages=6, found=4, page_tokens=300, thought_tokens=40, max_turns=60, window=10_000)


def one(policy, reading=SURE, world=SMALL, seed=3):
    return asyncio.run(outcome(world.task(seed, 0), reading, policy, seed))


def call(task, name, **arguments):
    async def work():
        episode = await task.open()
        return await episode.call(ToolCall(name=name, arguments=arguments))

    return asyncio.run(work())


def test_the_world_is_the_same_for_one_id_and_its_chain_can_be_walked():
    task = SMALL.task(0, 1)
    assert task.facts == SMALL.task(0, 1).facts != SMALL.task(0, 2).facts
    for hop, fact in enumerate(task.facts[:-1]):
        holding = [page for page in task.pages(fact) if "It says" in call(task, "open", page=page)]
        assert holding == [task.right[hop]]
        assert call(task, "open", page=holding[0]).startswith(f"It says: {task.facts[hop + 1]}\n")
        names = call(task, "search", query=fact, wording=1).split("\n")
        assert len(names) == 4 and set(names) <= set(task.pages(fact))
        assert names != call(task, "search", query=fact, wording=2).split("\n")
    assert call(task, "search", query=task.facts[-1]) == "nothing found"


def test_reading_is_half_as_good_at_half():
    reading = Reading(best=0.8, half=1000)
    chances = [reading.chance(tokens) for tokens in (0, 1000, 10_000)]
    assert chances[:2] == [0.8, 0.4] and 0 < chances[2] < 0.01


def test_a_perfect_reader_finds_the_answer_and_a_blind_one_never():
    found = one(KeepAll())
    assert (found.correct, found.stop_reason, found.resets) == (True, "finished", 0)
    lost = one(KeepAll(), BLIND)
    assert not lost.correct and lost.stop_reason in ("max_tokens", "max_turns") and lost.turns > found.turns


def test_keep_recent_keeps_the_context_short_and_none_is_left_of_a_result_at_zero():
    full, recent = one(KeepAll(), BLIND), one(KeepRecent(2), BLIND)
    assert full.stop_reason == "max_tokens" and full.longest_context > SMALL.window
    assert recent.stop_reason == "max_turns" and recent.longest_context < 0.7 * full.longest_context
    assert not one(KeepRecent(0)).correct


def test_a_discard_forgets_and_starts_over():
    found = one(DiscardAll(2000), BLIND)
    assert found.resets > 2 and found.longest_context < 2000 + 1000


def test_the_searcher_knows_only_what_it_sees():
    task = SMALL.task(0, 0)
    start, first, page = task.facts[0], task.facts[1], task.pages(task.facts[0])[2]
    opened = ToolCall(name="open", arguments={"page": page}, id="1")
    held = Message(role="assistant", reasoning=f"{page} holds what follows {start}: {first} thought thought")
    assert Seen(task.messages).position("") == (start, False)
    assert Seen([*task.messages, held]).position("") == (first, False)
    told = Message(role="user", content=f"notes\n{page} holds what follows {start}: {first}")
    assert Seen([*task.messages, told]).position("") == (first, False)
    asked = Message(role="assistant", tool_calls=(opened,))
    for text, verdict in ((OMITTED, "lacks"), (f"It says: {first}\n", "holds")):
        result = Message(role="tool", content=text, tool_call_id="1")
        request = CompletionRequest(messages=(*task.messages, asked, result), sampling=Sampling(seed=1))
        answer = asyncio.run(Searcher(SURE, 20_000, 10).complete(request)).message
        assert answer.reasoning.startswith(f"{page} {verdict} what follows {start}")


def test_pages_it_dismissed_are_not_opened_again_until_several_searches_found_nothing():
    task = SMALL.task(0, 0)
    start, pages = task.facts[0], task.pages(task.facts[0])[:2]
    search = Message(role="assistant", tool_calls=(ToolCall(name="search", arguments={"query": start}),))
    found = Message(role="tool", content="\n".join(pages))
    dismissal = f"{pages[0]} lacks what follows {start}"
    seen = Seen([*task.messages, search, found])
    assert seen.next_page(start, "") == pages[0] and seen.next_page(start, dismissal) == pages[1]
    both = f"{dismissal} {pages[1]} lacks what follows {start}"
    assert seen.next_page(start, both) == ""
    assert Seen([*task.messages, *[search, found] * 5]).next_page(start, both) == pages[0]


def test_the_summarizer_carries_the_notes_that_it_sees():
    start = SMALL.task(0, 0).facts[0]
    thoughts = [Message(role="assistant", reasoning=f"page-{n} lacks what follows {start}") for n in range(200)]
    request = summary_request([*SMALL.task(0, 0).messages, *thoughts], 100)

    def kept(reading):
        return notes_of(asyncio.run(Summarizer(reading).complete(request)).message.content)

    assert [note[0] for note in kept(SURE)] == [f"page-{n}" for n in range(200)] and kept(BLIND) == ()
    assert 60 < len(kept(Reading(best=1.0, half=count_tokens(request.messages)))) < 140


def test_seeds_decide_everything_and_policies_share_them():
    makers = policies(keep=2, threshold=3000)
    reading = Reading(best=0.8, half=4000)
    state = random.getstate()
    first = simulate(SMALL, reading, makers, seeds=[0, 1], tasks=2)
    assert first == simulate(SMALL, reading, makers, seeds=[0, 1], tasks=2) and random.getstate() == state
    assert list(first) == ["keep-all", "keep-recent", "discard-all", "summary", "hierarchical"]
    told = summed("hierarchical", first["hierarchical"])
    assert told.runs == 4 and sum(told.stop_reasons.values()) == 4
    assert told.accuracy.value == sum(one.correct for one in first["hierarchical"]) / 4


@pytest.mark.parametrize(("right", "held"), [((1, 2, 3), True), ((1, 3, 3), False), ((2, 2, 3), False)])
def test_the_order_is_strict(right, held):
    names = ("keep-all", "keep-recent", "hierarchical")
    win, loss = one(KeepAll()), one(KeepAll(), BLIND)
    rows = [summed(name, [win] * count + [loss] * (4 - count)) for name, count in zip(names, right)]
    assert in_papers_order(rows) == held
