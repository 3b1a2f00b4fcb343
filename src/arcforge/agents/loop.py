"""The agent loop: ask the model, act, until an ending. Endings are exceptions that carry the messages still to append."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from arcforge.core.errors import RolloutTimeout
from arcforge.core.messages import Message, Sampling, Value, turn_seed
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


class OutOfTotalTokens(Ending):
    """The turns together took their tokens."""

    stop_reason = "max_total_tokens"


class OutOfToolCalls(Ending):
    """One more call than allowed: it is not run."""

    stop_reason = "max_tool_calls"


class OutOfTime(Ending):
    """The agent's own time is over. What it did is graded; a deadline that cuts it off is a RolloutTimeout and is not."""

    stop_reason = "max_seconds"


class Malformed(Ending):
    """A malformed tool call halts the trace (as GLM-4.5's agentic RL did; GLM-5 report, section 4.1)."""

    stop_reason = "malformed"


class Budget(Value):
    """What one run may take beside the task's turns and tokens per turn; None: no limit. Looked at before each turn, tool_calls
    before each call.

    total_tokens: of prompts and completions, summed over turns. seconds: wall time, tools included.
    """

    total_tokens: int | None = None
    tool_calls: int | None = None
    seconds: float | None = None


NO_LIMITS = Budget()


@dataclass
class AgentRun:
    """What happened. messages: the whole history, opening included; tokens as the completer counted them, summed over turns,
    with those of the context policy's own requests. model_seconds: spent on calls that the agent did not make through the
    completer it was given. output: the end of what an agent that is a program wrote itself."""

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
    started: float = field(default_factory=time.monotonic, repr=False)


async def run_agent(
    task: Task,
    episode: Episode,
    completer: Completer,
    policy: ContextPolicy,
    sampling: Sampling,
    deadline: float | None = None,
    session: str = "",
    budget: Budget = NO_LIMITS,
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
                _check(run, task, budget)
                context = await _context(run, policy)
                completion = await _ask(run, task, completer, context, sampling, session)
                run.messages += await _act(run, episode, completion, budget)
    except Ending as ending:
        run.messages += ending.messages
        run.stop_reason, run.problem = ending.stop_reason, ending.problem
        return run
    except TimeoutError:
        if not scope.expired():
            raise
        raise RolloutTimeout(f"the deadline passed in turn {run.turns}") from None


def _check(run: AgentRun, task: Task, budget: Budget) -> None:
    """Raises the ending whose budget leaves no room for one more turn."""
    if run.turns >= task.max_turns:
        raise OutOfTurns
    if budget.total_tokens is not None and run.prompt_tokens + run.completion_tokens >= budget.total_tokens:
        raise OutOfTotalTokens
    if budget.seconds is not None and time.monotonic() - run.started >= budget.seconds:
        raise OutOfTime


async def _context(run: AgentRun, policy: ContextPolicy) -> tuple[Message, ...]:
    """What the model sees next; what the policy's decisions took goes into the run."""
    known = len(policy.events)
    await policy.prepare(run.messages, run.context_tokens)
    context = tuple(policy.view(run.messages, run.context_tokens))
    decided = policy.events[known:]
    run.prompt_tokens += sum(event.prompt_tokens for event in decided)
    run.completion_tokens += sum(event.completion_tokens for event in decided)
    return context


async def _ask(
    run: AgentRun, task: Task, completer: Completer, context: tuple[Message, ...], sampling: Sampling, session: str
) -> Completion:
    turn = {"max_tokens": task.max_tokens, "seed": turn_seed(sampling.seed, run.turns)}
    request = CompletionRequest(
        messages=context,
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


async def _act(run: AgentRun, episode: Episode, completion: Completion, budget: Budget) -> Sequence[Message]:
    message = completion.message
    if completion.finish_reason == "length":
        raise OutOfTokens(message, problem=completion.problem)
    if completion.finish_reason == "malformed":
        raise Malformed(message, problem=completion.problem)
    if not message.tool_calls:
        raise Finished(message)
    messages = [message]
    for call in message.tool_calls:
        if budget.tool_calls is not None and run.tool_calls >= budget.tool_calls:
            raise OutOfToolCalls(*messages)
        messages.append(Message(role="tool", content=await episode.call(call), tool_call_id=call.id))
        run.tool_calls += 1
        if episode.done:
            raise Submitted(*messages)
    return messages
