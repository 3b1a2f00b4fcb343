"""The family chat: requests, replies, rewards, preference pairs."""

import asyncio
import collections
import re

import pytest

from arcforge.core.messages import Message
from arcforge.envs.chat import ChatFamily, preference_pairs
from arcforge.envs.chat.family import SYSTEM, conversation, default_scorer, reference
from arcforge.envs.registry import family
from arcforge.envs.single_turn import split_of
from arcforge.rewards.hybrid import HybridScorer
from arcforge.rewards.judge import Judge
from arcforge.rewards.outcome import OutcomeScorer
from arcforge.rewards.rubric_judge import RubricJudge
from arcforge.rewards.rules import RuleScorer

FAMILY = ChatFamily()
ITEMS = [FAMILY.item("train", index) for index in range(900)]
PIECES = re.compile(r"[^\W\d_]+|\d|[^\s\w]+|\s+|_")


def reward(index, text, built=FAMILY, split="train"):
    async def run():
        task = built.task(split, index)
        return (await (await task.open()).grade((*task.messages, Message(role="assistant", content=text)))).reward

    return asyncio.run(run())


def test_the_registry_builds_it():
    assert isinstance(family("chat"), ChatFamily)
    assert FAMILY.domains == ("correctness", "emotion", "quality")


def test_the_grader_tells_good_replies_from_flawed_ones():
    async def run():
        for index in range(300):
            await FAMILY.validate("train", index)

    asyncio.run(run())


def test_near_misses_of_quality_earn_more_than_nonsense():
    index = next(i for i, item in enumerate(ITEMS) if item.kind == "reverse")
    good = ITEMS[index].good.split()
    near = " ".join([good[1], good[0], *good[2:]])
    assert 0.0 < reward(index, near) < 1.0
    assert reward(index, "completely other thoughts about nothing at all") == 0.0


def test_empathy_after_advice_earns_less_and_dismissal_less_still():
    index = next(i for i, item in enumerate(ITEMS) if item.kind == "heavy")
    item = ITEMS[index]
    advice_first, dismissal = item.flawed[2], item.flawed[3]
    assert reward(index, dismissal) < reward(index, advice_first) < reward(index, item.good) == 1.0


@pytest.mark.parametrize(
    ("kind", "solve"),
    [
        ("reverse", lambda text: " ".join(text.split(": ")[1].split()[::-1])),
        ("longest", lambda text: max(text.split(": ")[1].split(), key=len)),
        ("dedupe", lambda text: " ".join(dict.fromkeys(text.split(": ")[1].split()))),
        ("sort", lambda text: " ".join(sorted(text.split(": ")[1].split()))),
        (
            "replace",
            lambda text: re.sub(rf"\b{text.split()[1]}\b", text.split(":")[0].split()[3], text.split(": ")[1]),
        ),
        ("repeat", lambda text: " ".join([text.split()[1]] * int(text.split()[2]))),
        ("order", lambda text: " ".join(w for _, w in sorted(re.findall(r"(\d) (\w+)", text)))),
    ],
)
def test_good_replies_against_independent_solutions(kind, solve):
    items = [item for item in ITEMS if item.kind == kind]
    assert len(items) > 20
    assert [item.request for item in items if solve(item.request) != item.good] == []


def test_splits_never_meet_whatever_the_seed():
    keys = {
        split: {ChatFamily(seed).item(split, index).key for seed in (0, 1) for index in range(400)}
        for split in ("train", "dev", "test")
    }
    assert not keys["train"] & keys["dev"] and not keys["train"] & keys["test"] and not keys["dev"] & keys["test"]


def test_deterministic():
    assert FAMILY.item("dev", 4) == ChatFamily().item("dev", 4)
    assert FAMILY.demonstration(4) == ChatFamily().demonstration(4)
    assert FAMILY.item("dev", 4) != ChatFamily(1).item("dev", 4)


def test_prompts():
    assert 80 <= len(PIECES.findall(SYSTEM)) <= 110
    task = FAMILY.task("test", 1)
    assert task.messages[0].content == SYSTEM
    assert not task.thinking.enabled
    assert max(len(PIECES.findall(item.good)) for item in ITEMS) < task.max_tokens / 1.5


def test_demonstrations_are_good_three_times_in_five():
    async def run():
        scorer, rewards = default_scorer(), []
        for index in range(600):
            shown, item = FAMILY.demonstration(index), FAMILY.demonstrated(index)
            assert shown.messages[1].content == item.request
            rewards.append((await scorer.score(shown.messages, reference(item))).reward)
        return rewards

    assert 0.54 <= sum(value == 1.0 for value in asyncio.run(run())) / 600 <= 0.66


def test_another_scorer_can_be_handed_in():
    async def liked(messages):
        return 9.0 if "sorry" in messages[-1].content else -9.0

    parts = {"rules": RuleScorer(), "judge": Judge(RubricJudge()), "outcome": OutcomeScorer(liked)}
    built = ChatFamily(scorer=HybridScorer(parts))
    index = next(i for i, item in enumerate(ITEMS) if item.good.startswith("sorry"))
    assert reward(index, ITEMS[index].good, built) == pytest.approx(1.0, abs=1e-3)
    assert reward(index, ITEMS[index].good.replace("sorry", "hard"), built) == pytest.approx(0.7, abs=1e-3)


def test_preference_pairs_prefer_the_better_reply_to_one_request():
    pairs = preference_pairs(200, seed=1)
    assert pairs == preference_pairs(200, seed=1)
    assert pairs != preference_pairs(200, seed=2)
    assert collections.Counter(good.domain for good, _ in pairs) == {"emotion": 100, "quality": 100}
    for good, bad in pairs:
        assert good.messages[:2] == bad.messages[:2]
        assert good.messages[2].content != bad.messages[2].content
        assert split_of(f"{good.domain}:{good.messages[1].content}") == "train"
    assert sum(bad.messages[2].content == "ok" for _, bad in pairs) > 0


def test_conversation_is_ready_for_training():
    item = ITEMS[1]
    made = conversation(item, item.good)
    assert (made.family, made.domain, made.thinking.enabled) == ("chat", "emotion", False)
    assert made.messages[-1] == Message(role="assistant", content=item.good)
