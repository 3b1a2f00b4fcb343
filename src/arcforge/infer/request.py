"""One request on its way through the engine. Legend: D hidden."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from torch import Tensor

from arcforge.core.messages import Sampling
from arcforge.core.trajectory import TokenSpan
from arcforge.infer.output import Output
from arcforge.infer.replay import Replay
from arcforge.infer.sampler import Likeliest, RequestSampler


@dataclass(eq=False)
class Request:
    """tokens: prompt and what was sampled; the first `computed` of them are in the cache, in the blocks of `table`.

    oldest: version of the oldest weights that the cached contents depend on. hidden_D: of token computed - 1. pending: for
    speculation, what the MTP layer's cache lacks from position `drafted_to` on: (next token, hidden).
    """

    request_id: str
    prompt: list[int]
    sampler: RequestSampler
    salt: bytes = b""
    tokens: list[int] = field(default_factory=list)
    computed: int = 0
    table: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    oldest: int = -1
    cached_tokens: int = 0
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    top_logprobs: list[Likeliest] = field(default_factory=list)
    prompt_logprobs: list[float] = field(default_factory=list)
    replay: Replay | None = None
    hidden_D: Tensor | None = None
    drafted_to: int = 0
    pending: list[tuple[int, Tensor]] = field(default_factory=list)
    arrived: float = field(default_factory=time.monotonic)
    first_token: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)

    @property
    def sampling(self) -> Sampling:
        return self.sampler.sampling

    @property
    def ids(self) -> list[int]:
        """Sampled so far."""
        return self.tokens[len(self.prompt) :]

    @property
    def sampled(self) -> int:
        return len(self.tokens) - len(self.prompt)

    @property
    def left(self) -> int:
        """Tokens that are not in the cache yet; 1 while it is being decoded."""
        return len(self.tokens) - self.computed

    @property
    def decoding(self) -> bool:
        return self.left == 1 and self.sampled > 0 and self.hidden_D is not None

    @property
    def reads_whole_prompt(self) -> bool:
        """Something is asked for about every token of the prompt, so none may come from the cache of another request."""
        return self.sampling.prompt_logprobs or self.sampling.replay

    def output(self, reason: str, start: int = 0) -> Output:
        """What came of it, from its token number `start` on."""
        spans: list[TokenSpan] = []
        ids = self.tokens[len(self.prompt) + start :]
        for token, logprob, version in zip(ids, self.logprobs[start:], self.versions[start:], strict=True):
            if not spans or spans[-1].version != version:
                spans.append(TokenSpan(ids=[], source="model", logprobs=[], version=version, trained=True))
            spans[-1].ids.append(token)
            spans[-1].logprobs.append(logprob)
        return Output(
            spans,
            reason,
            len(self.prompt),
            self.cached_tokens,
            self.top_logprobs[start:],
            self.prompt_logprobs if self.sampling.prompt_logprobs else None,
            self.replay,
            time.monotonic() - self.arrived,
            self.first_token - self.arrived if self.first_token else 0.0,
        )
