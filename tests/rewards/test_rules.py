"""Rule checks of replies and their way through a task's reference."""

import asyncio

import pytest

from arcforge.core.errors import TaskError
from arcforge.core.messages import Message, ToolCall
from arcforge.rewards.reply import final_reply, last_request
from arcforge.rewards.rules import (
    AllOf,
    AnyOf,
    Before,
    BeginsWith,
    Case,
    ContainsAny,
    EndsWith,
    Exact,
    InOrder,
    Not,
    Repeats,
    RuleScorer,
    WordCount,
    dump_rules,
    load_rules,
)


def said(text):
    return (Message(role="user", content="ask"), Message(role="assistant", content=text))


@pytest.mark.parametrize(
    ("rule", "passes", "fails"),
    [
        (Exact(expected="owl fox"), [" Owl  fox\n"], ["owl", "owl fox.", "fox owl", ""]),
        (Exact(expected="OWL", cased=True), ["OWL "], ["owl", "Owl"]),
        (WordCount(least=2, most=3), ["a b", "a, b; c."], ["a", "a b c d", ""]),
        (BeginsWith(word="owl"), ["owl", "Owl, fox"], ["the owl", "owls", ""]),
        (EndsWith(word="owl"), ["the owl.", "owl"], ["owl fox", "", "cowl"]),
        (Repeats(word="ha", times=2), ["ha ha", "HA and ha!"], ["ha", "ha ha ha", "haha"]),
        (Case(case="lower"), ["owl 3!"], ["Owl", "3", ""]),
        (Case(case="upper"), ["OWL 3!"], ["OWl", "3", ""]),
        (InOrder(words=("a", "b", "b")), ["a x b, b"], ["a b", "b a b", ""]),
        (ContainsAny(words=("sad", "glad")), ["so Glad"], ["sadly", ""]),
        (
            Before(first=("sorry",), second=("try", "go")),
            ["sorry. try it", "sorry"],
            ["try, sorry", "go. sorry. try", "try", ""],
        ),
        (Not(rule=ContainsAny(words=("no",))), ["yes"], ["no"]),
        (AllOf(rules=(BeginsWith(word="a"), EndsWith(word="b"))), ["a b"], ["a c", "c b"]),
        (AnyOf(rules=(BeginsWith(word="a"), EndsWith(word="b"))), ["a c", "c b"], ["c d"]),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_rule(rule, passes, fails):
    assert [text for text in passes if not rule.check(text).passed] == []
    assert [text for text in fails if rule.check(text).passed] == []
    assert load_rules(dump_rules([rule])) == (rule,)


def test_results_name_the_rule_and_what_was_seen():
    result = WordCount(least=1, most=2).check("a b c")
    assert (result.name, result.passed, result.detail) == ("word_count", False, "3 words")
    assert AllOf(rules=(Case(case="upper"), Exact(expected="x"))).check("y").detail == "failed: case, exact"


def test_strict_is_all_or_nothing_and_lenient_is_the_share():
    reference = {"rules": dump_rules([BeginsWith(word="a"), EndsWith(word="b"), WordCount(least=2, most=2)])}
    strict = [asyncio.run(RuleScorer().score(said(text), reference)).reward for text in ("a b", "a c", "c d e")]
    lenient = [
        asyncio.run(RuleScorer(strict=False).score(said(text), reference)).reward for text in ("a b", "a c", "c d e")
    ]
    assert strict == [1.0, 0.0, 0.0]
    assert lenient == pytest.approx([1.0, 2 / 3, 0.0])


def test_verdict_lists_every_rule():
    verdict = asyncio.run(
        RuleScorer().score(said("a"), {"rules": dump_rules([Exact(expected="a"), Case(case="upper")])})
    )
    assert [(r["name"], r["passed"]) for r in verdict.details["rules"]] == [("exact", True), ("case", False)]


@pytest.mark.parametrize("rules", [[{"kind": "nonsense"}], [{"kind": "exact"}], "text", []])
def test_a_broken_reference_is_a_task_error_not_a_score(rules):
    with pytest.raises(TaskError):
        asyncio.run(RuleScorer().score(said("a"), {"rules": rules}))


def test_only_an_assistant_message_at_the_end_is_a_reply():
    call = Message(role="assistant", tool_calls=(ToolCall(name="x"),))
    assert final_reply([*said("a"), call]) == call
    assert last_request(said("a")) == "ask"
    assert last_request([]) == ""
    for messages in ([], said("a")[:1], [*said("a"), Message(role="tool", content="r")]):
        with pytest.raises(TaskError):
            final_reply(messages)
