"""The agent loop: ask the model, act, until an ending. Endings are exceptions that carry the messages still to append."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from arcforge.core.errors import RolloutTimeout
from arcforge.core.messages import Message, Sampling, turn_seed
from arcforge.core.protocols import Completer, Completion, CompletionRequest, ContextPolicy
from arcforge.core.tasks import Episode, Task


class Ending(Exception):
    """The end of a run, no failure: what was done until here is graded as it stands."""

    stop_reason = ""

    def __init__(self, *messages: Message, problem: str = "") -> None:
        super().__init__(problem)
        self.messages, self.problem = messages, problem


class Submitted(Ending):
    """The agent submitted, or the environment ended."""

    stop_reason = "submitted"


class Finished(Ending):
    """An answer without a tool call."""

    stop_reason = "finished"


class OutOfTurns(Ending):
    stop_reason = "max_turns"


class OutOfTokens(Ending):
    """The turn hit its token limit: a truncated tool call is not run."""

    stop_reason = "max_tokens"


class Malformed(Ending):
    """A malformed tool call halts the trace (as GLM-4.5's agentic RL did; GLM-5 report, section 4.1)."""

    stop_reason = "malformed"


@dataclass
class AgentRun:
    """What happened. messages: the whole history, opening included; tokens as the completer counted them, summed over turns.
    model_seconds: spent on calls that the agent did not make through the completer it was given. output: the end of what an
    agent that is a program wrote itself."""

    messages: list[Message]
    stop_reason: str = ""
    problem: str = ""
    turns: int = 0
    tool_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model_seconds: float = 0.0
    output: str = ""
    context_tokens: int = field(default=0, repr=False)


async def run_agent(
    task: Task,
    episode: Episode,
    completer: Completer,
    policy: ContextPolicy,
    sampling: Sampling,
    deadline: float | None = None,
    session: str = "",
) -> AgentRun:
    """Run `task` to an ending. `sampling.max_tokens` is replaced by the task's; every turn gets its own seed.

    deadline: event-loop time (seconds) after which RolloutTimeout is raised. Boundary errors of the completer and the
    episode pass through.
    """
    run = AgentRun(messages=list(task.messages))
    scope = asyncio.timeout_at(deadline)
    try:
        async with scope:
            while True:
                run.messages += await _act(run, episode, await _ask(run, task, completer, policy, sampling, session))
    except Ending as ending:
        run.messages += ending.messages
        run.stop_reason, run.problem = ending.stop_reason, ending.problem
        return run
    except TimeoutError:
        if not scope.expired():
            raise
        raise RolloutTimeout(f"the deadline passed in turn {run.turns}") from None


async def _ask(
    run: AgentRun, task: Task, completer: Completer, policy: ContextPolicy, sampling: Sampling, session: str
) -> Completion:
    if run.turns >= task.max_turns:
        raise OutOfTurns
    turn = {"max_tokens": task.max_tokens, "seed": turn_seed(sampling.seed, run.turns)}
    request = CompletionRequest(
        messages=tuple(policy.view(run.messages, run.context_tokens)),
        tools=task.tools,
        thinking=task.thinking,
        sampling=sampling.model_copy(update=turn),
        session=session,
    )
    run.turns += 1
    completion = await completer.complete(request)
    run.prompt_tokens += completion.prompt_tokens
    run.completion_tokens += completion.completion_tokens
    run.context_tokens = completion.prompt_tokens + completion.completion_tokens
    return completion


async def _act(run: AgentRun, episode: Episode, completion: Completion) -> Sequence[Message]:
    message = completion.message
    if completion.finish_reason == "length":
        raise OutOfTokens(message, problem=completion.problem)
    if completion.finish_reason == "malformed":
        raise Malformed(message, problem=completion.problem)
    if not message.tool_calls:
        raise Finished(message)
    messages = [message]
    for call in message.tool_calls:
        messages.append(Message(role="tool", content=await episode.call(call), tool_call_id=call.id))
        run.tool_calls += 1
        if episode.done:
            raise Submitted(*messages)
    return messages
