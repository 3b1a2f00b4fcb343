"""One assistant turn over the token engine: messages in, pieces of text, tool calls and tokens out.

What every chat API shares: rendering, stop strings, a tool call that is asked for, reading the turn while it is sampled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from arcforge.chat.stop_strings import StopStrings
from arcforge.chat.stream import CallReady, ContentDelta, Event, TurnReader
from arcforge.chat.template import render
from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.messages import Message, Sampling, Thinking, ToolSpec, Value
from arcforge.core.trajectory import TokenSpan
from arcforge.serve.engine import EnginePaused, Output
from arcforge.serve.loop import EngineLoop
from arcforge.serve.token_answers import output_ids

FORCED = -1
"""Weight version of tokens that nobody sampled: the beginning of a call that the caller asked for."""


class Turn(Value):
    """A turn to be sampled. stop: strings that end the content. forced: None, "" for a call of any tool, or a tool's name."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    thinking: Thinking = Thinking()
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    forced: str | None = None


@dataclass
class Piece:
    """events: what the new tokens say; spans and top_logprobs: the new tokens. The last piece has a finish_reason ("stop" |
    "length" | "tool_calls"), the stop string that was met, if one was, and what is malformed in the turn, "" if nothing is."""

    events: list[Event] = field(default_factory=list)
    spans: list[TokenSpan] = field(default_factory=list)
    top_logprobs: list[list[tuple[int, float]]] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    finish_reason: str = ""
    stop_string: str | None = None
    problem: str = ""


class Turns:
    """Runs turns on one engine. timeout: seconds for a whole turn."""

    def __init__(self, engine: EngineLoop, tokenizer: Tokenizer, timeout: float) -> None:
        self._engine, self._tokenizer, self._timeout = engine, tokenizer, timeout

    def prompt(self, turn: Turn) -> list[int]:
        return render(turn.messages, turn.tools, turn.thinking, self._tokenizer, generation_prompt=True).ids

    async def run(self, turn: Turn, prompt: list[int], request_id: str) -> AsyncGenerator[Piece, None]:
        """Pieces as they are sampled. Closing the iterator early ends the request. EnginePaused when the request was aborted
        on the server."""
        reader = TurnReader(self._tokenizer, turn.tools, turn.thinking)
        stops, calls = StopStrings(turn.stop), 0
        async with aclosing(self._outputs(turn, prompt, request_id)) as outputs:
            async for output in outputs:
                if output.finish_reason == "abort":
                    raise EnginePaused("the request was aborted on the server; send it again")
                events, problem = reader.feed(output_ids(output.spans)), ""
                if output.finish_reason:
                    rest, parsed = reader.finish()
                    events, problem = [*events, *rest], parsed.problem
                events, stopped = _until_stop(events, stops)
                if output.finish_reason and not stopped and (held := stops.rest()):
                    events.append(ContentDelta(held))
                calls += sum(isinstance(event, CallReady) for event in events)
                piece = Piece(events, output.spans, output.top_logprobs, len(prompt), output.cached_tokens)
                if stopped or output.finish_reason:
                    ended = "stop" if stopped else output.finish_reason
                    piece.finish_reason = "tool_calls" if calls and ended == "stop" and not stopped else ended
                    piece.stop_string = stops.matched or None
                    piece.problem = "" if stopped else problem
                if piece.events or piece.spans or piece.finish_reason:
                    yield piece
                if stopped:
                    return

    async def _outputs(self, turn: Turn, prompt: list[int], request_id: str) -> AsyncGenerator[Output, None]:
        end = asyncio.get_running_loop().time() + self._timeout
        if turn.forced is None:
            async with aclosing(self._stream(prompt, turn.sampling, request_id, end)) as outputs:
                async for output in outputs:
                    yield output
            return
        begun: list[int] = []
        if turn.thinking.enabled:
            async with aclosing(self._reasoning(turn, prompt, request_id, end)) as outputs:
                async for output in outputs:
                    begun += output_ids(output.spans)
                    yield output
                    if output.finish_reason:
                        return
        forced = self._opening(turn, begun)
        yield _Given([TokenSpan(ids=forced, source="model", logprobs=[0.0] * len(forced), version=FORCED)], len(prompt))
        left = turn.sampling.max_tokens - len(begun) - len(forced)
        sampling = turn.sampling.model_copy(
            update={"max_tokens": max(left, 1), "seed": (turn.sampling.seed + len(begun)) % 2**63}
        )
        async with aclosing(self._stream(prompt + begun + forced, sampling, f"{request_id}-call", end)) as outputs:
            async for output in outputs:
                yield output

    async def _reasoning(
        self, turn: Turn, prompt: list[int], request_id: str, end: float
    ) -> AsyncGenerator[Output, None]:
        """Up to what ends the reasoning; a piece with a finish_reason only where no tokens are left for a call. A token that
        would end the turn is not among them."""
        ends = (self._tokenizer.id("</think>"), self._tokenizer.id("<tool_call>"))
        sampling = turn.sampling.model_copy(update={"stop_ids": (*turn.sampling.stop_ids, *ends)})
        async with aclosing(self._stream(prompt, sampling, f"{request_id}-think", end)) as outputs:
            async for output in outputs:
                if output.finish_reason != "stop":
                    yield output
                    continue
                spans = [span.model_copy(deep=True) for span in output.spans]
                if spans and spans[-1].ids[-1] not in ends:
                    spans[-1].ids.pop()
                    spans[-1].logprobs.pop()
                yield _Given([span for span in spans if span.ids], output.prompt_tokens, output.cached_tokens)

    def _opening(self, turn: Turn, begun: Sequence[int]) -> list[int]:
        """What is written for the model before it goes on: the end of its reasoning, the call, the tool's name."""
        end_think, call = self._tokenizer.id("</think>"), self._tokenizer.id("<tool_call>")
        last = begun[-1] if begun else None
        opening = [] if last in (end_think, call) or not turn.thinking.enabled else [end_think]
        opening += [] if last == call else [call]
        return opening + (self._tokenizer.encode(turn.forced) if turn.forced else [])

    async def _stream(
        self, ids: list[int], sampling: Sampling, request_id: str, end: float
    ) -> AsyncGenerator[Output, None]:
        left = max(end - asyncio.get_running_loop().time(), 0.0)
        async with aclosing(self._engine.stream(ids, sampling, request_id, left)) as outputs:
            async for output in outputs:
                yield output


@dataclass
class _Given:
    """An Output that goes on, made here."""

    spans: list[TokenSpan]
    prompt_tokens: int
    cached_tokens: int = 0
    finish_reason: str = ""
    top_logprobs: list[list[tuple[int, float]]] = field(default_factory=list)
    prompt_logprobs: list[float] | None = None
    replay: None = None
    seconds: float = 0.0
    first_seconds: float = 0.0


def _until_stop(events: list[Event], stops: StopStrings) -> tuple[list[Event], bool]:
    """The events with as much content as may be shown; True when a stop string ended them."""
    shown: list[Event] = []
    for event in events:
        if not isinstance(event, ContentDelta):
            shown.append(event)
            continue
        text, stopped = stops.feed(event.text)
        if text:
            shown.append(ContentDelta(text))
        if stopped:
            return shown, True
    return shown, False
