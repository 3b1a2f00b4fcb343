"""The seams between rooms, as Protocols: what a completer, a sandbox, a scorer and a context policy promise.

Tasks, episodes and families are in `core.tasks`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from arcforge.core.messages import Message, Sampling, Thinking, ToolSpec, Value
from arcforge.core.trajectory import TokenSpan


class CompletionRequest(Value):
    """One call of a model: the whole conversation so far. `session` is the rollout id (append-only token record)."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    thinking: Thinking = Thinking()
    sampling: Sampling = Sampling()
    session: str = ""


class Completion(Value):
    """The answer. finish_reason: "stop" | "tool_calls" | "length" | "malformed"; `problem` says what was malformed."""

    message: Message
    finish_reason: str
    problem: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


@runtime_checkable
class Completer(Protocol):
    """Anything that answers conversations: our gateway, our server, any OpenAI- or Anthropic-style endpoint, a script.

    Raises EngineError or GatewayError when no answer can be had.
    """

    async def complete(self, request: CompletionRequest) -> Completion: ...


@runtime_checkable
class TokenEngine(Protocol):
    """Token ids in, token ids out. Returned spans are model spans in order, split where the weight version changed."""

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, session: str = ""
    ) -> tuple[list[TokenSpan], str]:
        """Returns (spans, finish_reason "stop" | "length" | "abort"); the stop id itself is the last sampled id."""
        ...

    async def score(self, ids: Sequence[int]) -> list[float]:
        """Log-probability of ids[1:] under the current weights (temperature 1), len(ids) - 1 floats."""
        ...


class ExecResult(Value):
    """One command in a sandbox. stdout and stderr are capped; timed_out and out_of_memory say who killed it."""

    exit_code: int
    stdout: str
    stderr: str
    timed_out: bool = False
    truncated: bool = False
    out_of_memory: bool = False
    seconds: float = 0.0


class FileChange(Value):
    """A file or link that differs. before, after: the text (of a link, where it leads); None where there is none, or it is not
    UTF-8 or larger than 1 MiB. mode_after: permission bits now, 0 for what is gone. link: whether it is a link now."""

    path: str
    kind: Literal["added", "changed", "removed"]
    before: str | None = None
    after: str | None = None
    mode_after: int = 0
    link: bool = False


class Sandbox(Protocol):
    """A working directory that commands run in, with limits. Raises SandboxError when its own machinery fails; what the caller
    does wrong with a path is an OSError or UnicodeDecodeError."""

    async def exec(self, argv: Sequence[str], timeout: float | None = None, stdin: str = "") -> ExecResult:
        """timeout: wall seconds; the sandbox's own limit if not given."""
        ...

    async def read(self, path: str) -> str: ...
    async def write(self, path: str, text: str) -> None: ...
    async def files(self) -> list[str]: ...

    async def changes(self) -> list[FileChange]:
        """What differs in the working directory from what it was made of, sorted by path."""
        ...

    async def diff(self) -> str:
        """The same as a unified diff, as far as it is text; `git apply` reads it."""
        ...

    async def snapshot(self) -> Snapshot: ...

    async def fork(self) -> Sandbox:
        """A sandbox of its own that starts with this one's files, none of its processes."""
        ...

    async def kill(self) -> None:
        """End every process inside; the files stay."""
        ...

    async def stats(self) -> dict[str, float]:
        """What it uses: disk_bytes, and cpu_seconds, memory_bytes, memory_peak_bytes, processes where that is known."""
        ...

    async def close(self) -> None: ...


class Snapshot(Protocol):
    """Files of a sandbox at one moment."""

    async def create(self) -> Sandbox: ...
    async def drop(self) -> None: ...


class Verdict(Value):
    """What a grader says. reward is None when the grader could not judge (a failure, never a score)."""

    reward: float | None
    details: dict[str, Any] = {}


class Scorer(Protocol):
    """A reward from a conversation. Raises JudgeError when it cannot score."""

    async def score(self, messages: Sequence[Message], reference: dict[str, Any]) -> Verdict: ...


class ContextEvent(Value):
    """One decision of a context policy, in indices of the history, which itself never changes (GLM-5 report, section 4.2.4).

    action: "omit" (the tool results in [start, stop) become a note), "discard" (the messages in [start, stop) are left out) or
    "summarize" (left out, with `text` as a user's message in their place). at: length of the history at the decision, so the
    index of the answer asked for next. count and characters: messages concerned, and how much text they had. tokens_before: of
    the last request and its answer. prompt_tokens and completion_tokens: what the decision itself took, a summary's.
    """

    policy: str
    action: Literal["omit", "discard", "summarize"]
    at: int
    start: int
    stop: int
    count: int
    characters: int
    tokens_before: int
    text: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ContextPolicy(Protocol):
    """Which messages of the history are sent with the next request (keep-recent-k, discard-all, hierarchical, summary).

    Made for one episode. Before each request `prepare` is awaited, then `view` called with the same arguments; prompt_tokens are
    those of the last request and its answer, 0 before the first. `events` grows by what they decided.
    """

    @property
    def events(self) -> Sequence[ContextEvent]: ...

    async def prepare(self, messages: Sequence[Message], prompt_tokens: int) -> None:
        """What a view needs and has to be waited for. Raises EngineError or GatewayError when it cannot be had."""
        ...

    def view(self, messages: Sequence[Message], prompt_tokens: int) -> list[Message]: ...
