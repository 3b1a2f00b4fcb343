"""Composable rule checks of a reply, each a plain value that can travel in a task's reference as JSON.

Rules are the part of the hybrid reward that cannot be argued with (GLM-5 report, section 3.4). A rule answers with a
`RuleResult`; `RuleScorer` turns the rules of a reference into a Verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from arcforge.core.errors import TaskError
from arcforge.core.messages import Message, Value
from arcforge.core.protocols import Verdict
from arcforge.rewards.reply import final_reply, folded_words, normalised, words


class RuleResult(Value):
    """The outcome of one rule; `detail` says what was seen."""

    name: str
    passed: bool
    detail: str = ""


class Exact(Value):
    """The reply is `expected` and nothing else, up to white space and, unless `cased`, case."""

    kind: Literal["exact"] = "exact"
    expected: str
    cased: bool = False

    def check(self, text: str) -> RuleResult:
        same = text.split() == self.expected.split() if self.cased else normalised(text) == normalised(self.expected)
        return RuleResult(name=self.kind, passed=same, detail=text[:80])


class WordCount(Value):
    """Between `least` and `most` words, both included."""

    kind: Literal["word_count"] = "word_count"
    least: int
    most: int

    def check(self, text: str) -> RuleResult:
        count = len(words(text))
        return RuleResult(name=self.kind, passed=self.least <= count <= self.most, detail=f"{count} words")


class BeginsWith(Value):
    kind: Literal["begins_with"] = "begins_with"
    word: str

    def check(self, text: str) -> RuleResult:
        first = next(iter(folded_words(text)), "")
        return RuleResult(name=self.kind, passed=first == self.word.casefold(), detail=first)


class EndsWith(Value):
    kind: Literal["ends_with"] = "ends_with"
    word: str

    def check(self, text: str) -> RuleResult:
        last = next(reversed(folded_words(text)), "")
        return RuleResult(name=self.kind, passed=last == self.word.casefold(), detail=last)


class Repeats(Value):
    """`word` occurs exactly `times` times."""

    kind: Literal["repeats"] = "repeats"
    word: str
    times: int

    def check(self, text: str) -> RuleResult:
        count = folded_words(text).count(self.word.casefold())
        return RuleResult(name=self.kind, passed=count == self.times, detail=f"{count} times")


class Case(Value):
    """Every letter is lower or upper case; a reply without letters fails."""

    kind: Literal["case"] = "case"
    case: Literal["lower", "upper"]

    def check(self, text: str) -> RuleResult:
        return RuleResult(name=self.kind, passed=text.islower() if self.case == "lower" else text.isupper())


class InOrder(Value):
    """The words occur in this order, other words allowed between them."""

    kind: Literal["in_order"] = "in_order"
    words: tuple[str, ...]

    def check(self, text: str) -> RuleResult:
        rest = iter(folded_words(text))
        missing = next((word for word in self.words if word.casefold() not in rest), "")
        return RuleResult(name=self.kind, passed=not missing, detail=f"{missing} is missing here" if missing else "")


class ContainsAny(Value):
    """At least one of the words occurs."""

    kind: Literal["contains_any"] = "contains_any"
    words: tuple[str, ...]

    def check(self, text: str) -> RuleResult:
        found = _first(self.words, folded_words(text))
        return RuleResult(name=self.kind, passed=found is not None)


class Before(Value):
    """One of `first` occurs, and before the first of `second`; `second` need not occur."""

    kind: Literal["before"] = "before"
    first: tuple[str, ...]
    second: tuple[str, ...]

    def check(self, text: str) -> RuleResult:
        found = folded_words(text)
        first, second = _first(self.first, found), _first(self.second, found)
        passed = first is not None and (second is None or first < second)
        return RuleResult(name=self.kind, passed=passed, detail=f"{first} against {second}")


class Not(Value):
    kind: Literal["not"] = "not"
    rule: Rule

    def check(self, text: str) -> RuleResult:
        inner = self.rule.check(text)
        return RuleResult(name=f"not {inner.name}", passed=not inner.passed, detail=inner.detail)


class AllOf(Value):
    kind: Literal["all_of"] = "all_of"
    rules: tuple[Rule, ...]

    def check(self, text: str) -> RuleResult:
        failed = [result.name for rule in self.rules if not (result := rule.check(text)).passed]
        return RuleResult(name=self.kind, passed=not failed, detail=f"failed: {', '.join(failed)}" if failed else "")


class AnyOf(Value):
    kind: Literal["any_of"] = "any_of"
    rules: tuple[Rule, ...]

    def check(self, text: str) -> RuleResult:
        passed = [result.name for rule in self.rules if (result := rule.check(text)).passed]
        return RuleResult(name=self.kind, passed=bool(passed), detail=", ".join(passed))


Rule = Annotated[
    Exact | WordCount | BeginsWith | EndsWith | Repeats | Case | InOrder | ContainsAny | Before | Not | AllOf | AnyOf,
    Field(discriminator="kind"),
]
for _composed in (Not, AllOf, AnyOf):
    _composed.model_rebuild()

_RULES: TypeAdapter[tuple[Rule, ...]] = TypeAdapter(tuple[Rule, ...])


def dump_rules(rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """Rules as JSON data for a task's reference."""
    return _RULES.dump_python(tuple(rules), mode="json")


def load_rules(data: Any) -> tuple[Rule, ...]:
    """Inverse of `dump_rules`. TaskError when the data are not rules."""
    try:
        return _RULES.validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise TaskError(f"rules of the task: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


class RuleScorer:
    """Scores by `reference["rules"]`: the share of rules that pass, or with `strict` 1.0 if all pass and else 0.0."""

    def __init__(self, strict: bool = True) -> None:
        self._strict = strict

    async def score(self, messages: Sequence[Message], reference: dict[str, Any]) -> Verdict:
        rules = load_rules(reference.get("rules", ()))
        if not rules:
            raise TaskError("the task's reference has no rules")
        reply = final_reply(messages)
        results = [rule.check(reply.content) for rule in rules]
        share = sum(result.passed for result in results) / len(results)
        reward = float(share == 1.0) if self._strict else share
        return Verdict(reward=reward, details={"rules": [result.model_dump() for result in results]})


def _first(wanted: Sequence[str], found: Sequence[str]) -> int | None:
    """Position of the first word of `found` that is wanted."""
    pool = {word.casefold() for word in wanted}
    return next((i for i, word in enumerate(found) if word in pool), None)
