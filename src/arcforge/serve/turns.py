"""One assistant turn over the token engine: messages in, pieces of text, tool calls and tokens out.

What every chat API shares: rendering, stop strings, a tool call that is asked for, reading the turn while it is sampled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from arcforge.chat.stop_strings import StopStrings
from arcforge.chat.stream import CallReady, ContentDelta, Event, TurnReader
from arcforge.chat.template import render
from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.messages import Message, Sampling, Thinking, ToolSpec, Value
from arcforge.core.trajectory import TokenSpan
from arcforge.serve.engine import EnginePaused, Output
from arcforge.serve.forced_call import ForcedCall
from arcforge.serve.loop import EngineLoop
from arcforge.serve.token_answers import output_ids


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

        def part(ids: list[int], sampling: Sampling, name: str) -> AsyncGenerator[Output, None]:
            return self._stream(ids, sampling, f"{request_id}-{name}", end)

        forced = ForcedCall(self._tokenizer, prompt, turn.sampling, part)
        if turn.thinking.enabled:
            async with aclosing(forced.reasoning()) as outputs:
                async for output in outputs:
                    yield output
        tool = await self._chosen(turn, forced.so_far)
        async with aclosing(forced.call(tool)) as outputs:
            async for output in outputs:
                yield output

    async def _chosen(self, turn: Turn, ids: list[int]) -> ToolSpec:
        """The tool that was named, else the one whose name is likeliest here, by the mean over the name's tokens."""
        if turn.forced or len(turn.tools) == 1:
            return next(tool for tool in turn.tools if tool.name == turn.forced or not turn.forced)
        names = [[self._tokenizer.id("<tool_call>"), *self._tokenizer.encode(tool.name)] for tool in turn.tools]
        scored = await self._engine.score([ids + name for name in names], self._timeout)
        means = [sum(row[len(ids) :]) / (len(name) - 1) for row, name in zip(scored, names, strict=True)]
        return turn.tools[max(range(len(means)), key=means.__getitem__)]

    async def _stream(
        self, ids: list[int], sampling: Sampling, request_id: str, end: float
    ) -> AsyncGenerator[Output, None]:
        left = max(end - asyncio.get_running_loop().time(), 0.0)
        async with aclosing(self._engine.stream(ids, sampling, request_id, left)) as outputs:
            async for output in outputs:
                yield output


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
