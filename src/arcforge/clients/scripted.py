"""Deterministic answers from a list or a function: what tests, demonstrations and examples run on instead of a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from arcforge.core.errors import BoundaryError, EngineError
from arcforge.core.messages import Message, Sampling
from arcforge.core.protocols import Completion, CompletionRequest
from arcforge.core.trajectory import TokenSpan

Answer = Message | Completion | BoundaryError


class ScriptedCompleter:
    """Answers from a script: a list, played from its start in every session, or a function of the request.

    A `Completion` is answered as it is, a `Message` with the finish reason it implies, an error is raised. A list that has
    come to its end raises EngineError. `requests` keeps every request, in order.
    """

    def __init__(self, answers: Sequence[Answer] | Callable[[CompletionRequest], Answer]) -> None:
        self._answers = answers
        self._played: dict[str, int] = defaultdict(int)
        self.requests: list[CompletionRequest] = []

    async def complete(self, request: CompletionRequest) -> Completion:
        self.requests.append(request)
        answer = self._answers(request) if callable(self._answers) else self._next(self._answers, request.session)
        if isinstance(answer, BoundaryError):
            raise answer
        if isinstance(answer, Message):
            return Completion(message=answer, finish_reason="tool_calls" if answer.tool_calls else "stop")
        return answer

    def _next(self, answers: Sequence[Answer], session: str) -> Answer:
        index = self._played[session]
        if index >= len(answers):
            raise EngineError(f"the script ends after {len(answers)} answers; session {session!r} asks for one more")
        self._played[session] = index + 1
        return answers[index]


class ScriptedTokenEngine:
    """A `TokenEngine` that samples what a function says.

    fn(prompt_ids, sampling) gives the ids of the turn, or model spans when log-probs or weight versions matter. Ids are
    sampled with probability 1 (log-prob 0) by weights `version`. What is longer than max_tokens is cut off. `prompts`
    keeps every prompt, in order. `score` asks score_fn, and raises EngineError without one.
    """

    def __init__(
        self,
        fn: Callable[[Sequence[int], Sampling], Sequence[int] | Sequence[TokenSpan]],
        score_fn: Callable[[Sequence[int]], Sequence[float]] | None = None,
        version: int = 0,
    ) -> None:
        self._fn, self._score_fn = fn, score_fn
        self.version = version
        self.prompts: list[list[int]] = []

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, session: str = ""
    ) -> tuple[list[TokenSpan], str]:
        self.prompts.append(list(prompt_ids))
        spans = _cut(self._as_spans(self._fn(prompt_ids, sampling)), sampling.max_tokens)
        if not spans:
            raise EngineError("the script gives no token for this prompt")
        stopped = spans[-1].ids[-1] in sampling.stop_ids
        return spans, "stop" if stopped else "length"

    async def score(self, ids: Sequence[int]) -> list[float]:
        if self._score_fn is None:
            raise EngineError("the script does not score")
        return list(self._score_fn(ids))

    def _as_spans(self, answer: Sequence[int] | Sequence[TokenSpan]) -> list[TokenSpan]:
        spans = [item for item in answer if isinstance(item, TokenSpan)]
        ids = [item for item in answer if not isinstance(item, TokenSpan)]
        if ids:
            spans.append(TokenSpan(ids=ids, source="model", logprobs=[0.0] * len(ids), version=self.version))
        return spans


def _cut(spans: list[TokenSpan], length: int) -> list[TokenSpan]:
    """The first `length` tokens."""
    kept: list[TokenSpan] = []
    for span in spans:
        room = length - sum(len(before.ids) for before in kept)
        if room > 0 and span.ids:
            kept.append(span.model_copy(update={"ids": span.ids[:room], "logprobs": span.logprobs[:room]}))
    return kept
