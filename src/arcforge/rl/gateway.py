"""The token-in-token-out gateway (GLM-5 report, section 4.1.2): agents speak messages, the record holds tokens.

Every rollout has a session: an append-only record of the exact ids the engine saw and sampled, with log-probs and
weight versions. The first request renders the whole conversation; every later one only appends the new messages after
checking that the history sent back equals what was recorded. Text is never tokenised a second time. A history that
differs starts a fork: a fresh prompt in a record of its own, with the reason in its first span:

    context    recorded messages are missing (a context policy dropped them)
    drift      a recorded message came back changed
    inserted   the agent wrote an assistant or system message itself
    thinking   a new user turn strips the reasoning of earlier turns (interleaved thinking, GLM-5 report, section 3.1)
    tools      the tools changed

Earlier branches stay open: an agent that returns to one (a main agent after its helper) continues it. What an agent that
speaks JSON cannot be asked to keep is no difference: ids of calls, the order of arguments, 2.0 for 2 (JavaScript writes
whole numbers so), and reasoning left out, which many clients drop. The record keeps what was sampled.

`rl.gateway_http` is the same gateway for agents that are programs of their own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from arcforge.chat.parse import parse
from arcforge.chat.template import bridge, render
from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.errors import EngineError, GatewayError
from arcforge.core.messages import Message, Sampling, Thinking, ToolSpec
from arcforge.core.protocols import Completion, CompletionRequest, TokenEngine
from arcforge.core.tasks import Task
from arcforge.core.trajectory import TokenSpan

Observer = Callable[[dict[str, Any]], None]


class NotOpen(GatewayError):
    """The rollout has no record: it was never opened, or is closed."""


@dataclass(frozen=True)
class Sampled:
    """An answer and its tokens. prompt_ids: all that the engine read. spans: what it sampled, empty where no room was left."""

    completion: Completion
    prompt_ids: list[int]
    spans: list[TokenSpan]


@dataclass
class _Branch:
    """One append-only token record. turns: message index of an assistant turn -> its model spans."""

    reason: str
    tools: tuple[ToolSpec, ...]
    preserved: bool
    messages: list[Message] = field(default_factory=list)
    spans: list[TokenSpan] = field(default_factory=list)
    turns: dict[int, list[TokenSpan]] = field(default_factory=dict)
    think_open: bool = False

    @property
    def ids(self) -> list[int]:
        return [i for span in self.spans for i in span.ids]


@dataclass(frozen=True)
class _Plan:
    """What a request adds: `ids` after the record of `branch`, with `messages` the conversation then recorded."""

    branch: _Branch
    ids: list[int]
    messages: list[Message]
    detail: str = ""


class Gateway:
    """A `Door` over a token engine, and a `Completer` that finds the session by `request.session`.

    max_context: prompt and answer together never exceed it; a conversation that has no room left gets an empty answer
    with finish_reason "length". timeout: seconds per engine call. observe: receives one event per fork.
    """

    def __init__(
        self,
        engine: TokenEngine,
        tokenizer: Tokenizer,
        max_context: int,
        timeout: float = 600.0,
        observe: Observer | None = None,
    ) -> None:
        self._engine, self.tokenizer = engine, tokenizer
        self.max_context, self._timeout = max_context, timeout
        self._observe = observe
        self._sessions: dict[str, Session] = {}

    def open(self, rollout_id: str, task: Task | None = None) -> Session:
        """Begin a record. GatewayError when the rollout has one already."""
        if rollout_id in self._sessions:
            raise GatewayError(f"rollout {rollout_id!r} is already open")
        session = Session(rollout_id, self._engine, self.tokenizer, self.max_context, self._timeout, self._observe)
        self._sessions[rollout_id] = session
        return session

    def close(self, rollout_id: str) -> list[list[TokenSpan]]:
        """End a record and hand it over: spans per fork, in order of forking; empty when nothing was sampled. Requests that
        still run raise NotOpen."""
        session = self.session(rollout_id)
        del self._sessions[rollout_id]
        return session.close()

    def session(self, rollout_id: str) -> Session:
        """The session of a rollout. NotOpen when it has none."""
        if rollout_id not in self._sessions:
            raise NotOpen(f"rollout {rollout_id!r} is not open")
        return self._sessions[rollout_id]

    async def complete(self, request: CompletionRequest) -> Completion:
        return await self.session(request.session).complete(request)


class Session:
    """One rollout's side of the gateway. Requests that come together are answered one after the other, in order of arrival."""

    def __init__(
        self,
        rollout_id: str,
        engine: TokenEngine,
        tokenizer: Tokenizer,
        max_context: int,
        timeout: float,
        observe: Observer | None,
    ) -> None:
        self._id, self._engine, self._tokenizer = rollout_id, engine, tokenizer
        self._max_context, self._timeout, self._observe = max_context, timeout, observe
        self._branches: list[_Branch] = []
        self._turn, self._closed = asyncio.Lock(), False

    def close(self) -> list[list[TokenSpan]]:
        """The record, spans per fork; nothing is added to it any more."""
        self._closed = True
        return [branch.spans for branch in self._branches]

    async def complete(self, request: CompletionRequest) -> Completion:
        return (await self.sample(request)).completion

    async def sample(self, request: CompletionRequest) -> Sampled:
        """Answer one request. The record changes only after the engine answered, so a failed call can be repeated.

        Raises EngineError (the engine failed, aborted or timed out), NotOpen (closed meanwhile) or GatewayError (nothing to
        answer).
        """
        async with self._turn:
            self._check_open()
            plan = self._plan(request)
            prompt_ids = plan.branch.ids + plan.ids
            sampling = self._sampling(request.sampling, room=self._max_context - len(prompt_ids))
            if sampling.max_tokens < 1:
                return self._no_room(prompt_ids)
            spans, finish = await self._generate(prompt_ids, sampling)
            self._check_open()
            sampled_ids = [i for span in spans for i in span.ids]
            parsed = parse(sampled_ids, self._tokenizer, request.tools, request.thinking)
            self._append(plan, spans, parsed.message, thinking=request.thinking)
            completion = Completion(
                message=parsed.message,
                finish_reason=_finish_reason(finish, parsed.problem, parsed.message),
                problem=parsed.problem,
                prompt_tokens=len(prompt_ids),
                completion_tokens=len(sampled_ids),
            )
            return Sampled(completion, prompt_ids, spans)

    def _check_open(self) -> None:
        if self._closed:
            raise NotOpen(f"rollout {self._id!r} is not open")

    def _no_room(self, prompt_ids: list[int]) -> Sampled:
        completion = Completion(
            message=Message(role="assistant"),
            finish_reason="length",
            problem=f"the context of {self._max_context} tokens is full",
            prompt_tokens=len(prompt_ids),
        )
        return Sampled(completion, prompt_ids, [])

    def _plan(self, request: CompletionRequest) -> _Plan:
        """Continue the newest branch that the request extends, else fork (or begin)."""
        messages = list(request.messages)
        if not messages:
            raise GatewayError("a request without messages")
        reasons = []
        for branch in reversed(self._branches):
            reason, detail = _mismatch(branch, request)
            if not reason:
                return self._continue(branch, messages, request.thinking)
            reasons.append((reason, detail))
        reason, detail = reasons[0] if reasons else ("prompt", "")
        rendered = render(messages, request.tools, request.thinking, self._tokenizer, generation_prompt=True)
        return _Plan(_Branch(reason, request.tools, request.thinking.preserved), list(rendered.ids), messages, detail)

    def _continue(self, branch: _Branch, messages: list[Message], thinking: Thinking) -> _Plan:
        recorded = len(branch.messages)
        _mask_errors(branch, messages[:recorded])
        # A turn cut off inside its reasoning is closed here; these ids are prompt, so the loss never sees them.
        closing = [self._tokenizer.id("</think>")] if branch.think_open else []
        last_id = closing[-1] if closing else branch.spans[-1].ids[-1]
        ids = bridge(last_id, messages[recorded:], thinking, self._tokenizer, generation_prompt=True)
        # The messages as they were sampled: what was left out of them on the way back still stands in the tokens.
        return _Plan(branch, closing + list(ids), [*branch.messages, *messages[recorded:]])

    def _append(self, plan: _Plan, spans: list[TokenSpan], answer: Message, thinking: Thinking) -> None:
        branch = plan.branch
        if not branch.spans:
            self._branches.append(branch)
            if branch.reason != "prompt" and self._observe is not None:
                row = {"kind": "fork", "rollout": self._id, "reason": branch.reason, "detail": plan.detail}
                self._observe({"who": "gateway", **row})
        reason = "prompt" if branch.spans else branch.reason
        branch.spans.append(TokenSpan(ids=plan.ids, source="prompt", mask_reason=reason))
        branch.spans.extend(spans)
        branch.turns[len(plan.messages)] = spans
        branch.messages = [*plan.messages, answer]
        closing = {self._tokenizer.id("</think>"), self._tokenizer.id("<tool_call>"), *self._tokenizer.stop_ids}
        branch.think_open = thinking.enabled and not any(closing.intersection(span.ids) for span in spans)

    async def _generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> tuple[list[TokenSpan], str]:
        try:
            async with asyncio.timeout(self._timeout):
                spans, finish = await self._engine.generate(prompt_ids, sampling, self._id)
        except TimeoutError:
            raise EngineError(f"no answer within {self._timeout:g} s") from None
        spans = [span.model_copy(update={"trained": True, "mask_reason": ""}) for span in spans if span.ids]
        if finish == "abort":
            raise EngineError("the engine aborted the request")
        if not spans or any(span.source != "model" for span in spans):
            raise EngineError("the engine returned no sampled tokens")
        return spans, finish

    def _sampling(self, sampling: Sampling, room: int) -> Sampling:
        stop_ids = sampling.stop_ids or self._tokenizer.stop_ids
        return sampling.model_copy(update={"stop_ids": stop_ids, "max_tokens": min(sampling.max_tokens, room)})


def _mismatch(branch: _Branch, request: CompletionRequest) -> tuple[str, str]:
    """Why the request cannot continue the branch, as (reason, detail); ("", "") when it can."""
    recorded, sent = branch.messages, request.messages
    if request.tools != branch.tools:
        return "tools", "the tools changed"
    if request.thinking.preserved != branch.preserved:
        return "thinking", "preserved thinking was switched"
    for index, (ours, theirs) in enumerate(zip(recorded, sent)):
        if not _same(ours, theirs):
            detail = f"message {index} ({theirs.role}) is not the one recorded"
            return ("context" if _shortened(recorded, sent, index) else "drift"), detail
    if len(sent) < len(recorded):
        return "context", f"{len(recorded) - len(sent)} recorded messages are missing"
    new = sent[len(recorded) :]
    if not new:
        raise GatewayError("the request ends with the answer already given")
    if any(message.role not in ("user", "tool") for message in new):
        return "inserted", "the agent wrote a message of its own"
    if any(message.role == "user" for message in new) and _strips(branch):
        return "thinking", "a new user turn strips earlier reasoning"
    return "", ""


def _shortened(recorded: Sequence[Message], sent: Sequence[Message], index: int) -> bool:
    """Whether the first difference looks like a context policy: messages left out, or a tool result folded away."""
    known = any(_same(message, sent[index]) for message in recorded[index:])
    return known or sent[index].role == "tool" or len(sent) < len(recorded)


def _strips(branch: _Branch) -> bool:
    """Whether the record shows reasoning that the template drops once another user message follows."""
    last_user = max((i for i, message in enumerate(branch.messages) if message.role == "user"), default=-1)
    return not branch.preserved and any(m.reasoning is not None for m in branch.messages[last_user + 1 :])


def _same(ours: Message, theirs: Message) -> bool:
    """Whether a message came back as it was recorded. Reasoning that is left out or sent empty is no change."""
    if not theirs.reasoning:
        ours, theirs = (message.model_copy(update={"reasoning": None}) for message in (ours, theirs))
    return _visible(ours) == _visible(theirs)


def _visible(message: Message) -> str:
    """What the template shows of a message; ids of calls and loss marks are not part of it."""
    calls = [(call.name, _plain(call.arguments)) for call in message.tool_calls]
    return json.dumps([message.role, message.content, message.reasoning, calls], sort_keys=True)


def _plain(value: Any) -> Any:
    """A JSON value with whole numbers written one way."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _mask_errors(branch: _Branch, history: Sequence[Message]) -> None:
    """An agent that marks its own earlier message as not trained (an erroneous segment) takes it out of the loss."""
    for index, spans in branch.turns.items():
        if not history[index].trained:
            for span in spans:
                span.trained, span.mask_reason = False, "error"


def _finish_reason(engine_finish: str, problem: str, message: Message) -> str:
    if engine_finish == "length":
        return "length"
    if problem:
        return "malformed"
    return "tool_calls" if message.tool_calls else "stop"
