"""A turn that ends in a call which the caller asked for (`tool_choice`): the model thinks and fills in the arguments, the rest of
the call is written for it, so that it always comes out whole.

The reasoning is sampled first where the turn has one. Then the tool: the one that was named, else the one whose name the
model finds likeliest. Then, for each argument that the tool requires (each that it has, where it requires none), its key is
written and its value sampled.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.messages import Sampling, ToolSpec
from arcforge.core.trajectory import TokenSpan
from arcforge.infer.output import Output as Given
from arcforge.serve.engine import Output
from arcforge.serve.token_answers import output_ids

WRITTEN = -1
"""Weight version of tokens that nobody sampled; their log-probability is told as 0: they were certain."""

Stream = Callable[[list[int], Sampling, str], AsyncGenerator[Output, None]]


class ForcedCall:
    """One such turn. stream(ids, sampling, name): runs a part of it on the engine."""

    def __init__(self, tokenizer: Tokenizer, prompt: list[int], sampling: Sampling, stream: Stream) -> None:
        self._tokenizer, self._prompt, self._sampling, self._stream = tokenizer, prompt, sampling, stream
        self._ids: list[int] = []
        self._parts = 0
        self._ended = ""

    @property
    def so_far(self) -> list[int]:
        """Prompt and turn up to here."""
        return self._prompt + self._ids

    async def reasoning(self) -> AsyncGenerator[Output, None]:
        """Up to what ends the reasoning; </think> is written where the model would end the turn instead."""
        async with aclosing(self._sampled(("</think>",))) as outputs:
            async for output in outputs:
                yield output

    async def call(self, tool: ToolSpec) -> AsyncGenerator[Output, None]:
        """The whole call, and the token that ends the turn."""
        if self._ended:  # no tokens were left after the reasoning
            return
        yield self._write("<tool_call>", text=tool.name)
        for key in _arguments(tool):
            yield self._write("<arg_key>", text=key)
            yield self._write("</arg_key>", "<arg_value>")
            async with aclosing(self._sampled(("</arg_value>",))) as outputs:
                async for output in outputs:
                    yield output
            if self._ended:
                return
        last = self._write("</tool_call>", "<|observation|>")
        last.finish_reason = "stop"
        yield last

    async def _sampled(self, ends: tuple[str, ...]) -> AsyncGenerator[Output, None]:
        """Text up to one of `ends`; another control token is taken back and the first of `ends` written in its place. A piece
        has a finish_reason only where the turn is over."""
        left = self._sampling.max_tokens - len(self._ids)
        if left < 1:
            self._ended = "length"
            yield Given([], "length", len(self._prompt), 0)
            return
        asked = {
            "max_tokens": left,
            "seed": (self._sampling.seed + len(self._ids)) % 2**63,
            "stop_ids": tuple({*self._sampling.stop_ids, *self._tokenizer.control.values()}),
        }
        self._parts += 1
        sampling = self._sampling.model_copy(update=asked)
        async with aclosing(self._stream(self.so_far, sampling, f"part-{self._parts}")) as outputs:
            async for output in outputs:
                # Later parts find in the cache what the first one computed: that was no cached part of the caller's prompt.
                cached = min(output.cached_tokens, len(self._prompt)) if self._parts == 1 else 0
                if output.finish_reason != "stop":
                    self._ids += output_ids(output.spans)
                    self._ended = output.finish_reason
                    yield Given(output.spans, self._ended, len(self._prompt), cached, output.top_logprobs)
                    continue
                spans = [span.model_copy(deep=True) for span in output.spans]
                ended = spans[-1].ids[-1] in {self._tokenizer.id(name) for name in ends}
                if not ended:
                    spans[-1].ids.pop()
                    spans[-1].logprobs.pop()
                spans = [span for span in spans if span.ids]
                self._ids += output_ids(spans)
                tops = output.top_logprobs if ended else output.top_logprobs[:-1]
                yield Given(spans, "", len(self._prompt), cached, tops)
                if not ended:
                    yield self._write(ends[0])

    def _write(self, *names: str, text: str = "") -> Given:
        ids = [self._tokenizer.id(name) for name in names] + (self._tokenizer.encode(text) if text else [])
        self._ids += ids
        span = TokenSpan(ids=ids, source="model", logprobs=[0.0] * len(ids), version=WRITTEN)
        return Given([span], "", len(self._prompt), 0, [[] for _ in ids] if self._sampling.top_logprobs else [])


def _arguments(tool: ToolSpec) -> list[str]:
    properties, required = tool.parameters.get("properties"), tool.parameters.get("required")
    if isinstance(required, list) and required:
        return [str(key) for key in required]
    return [str(key) for key in properties] if isinstance(properties, dict) else []
