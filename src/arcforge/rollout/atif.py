"""Conversations as ATIF 1.8, the Agent Trajectory Interchange Format that Harbor and others read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from arcforge.core.messages import Message, ToolSpec

SCHEMA = "ATIF-v1.8"


def atif(
    messages: Sequence[Message],
    *,
    session_id: str,
    agent: str,
    version: str,
    model: str = "",
    tools: Sequence[ToolSpec] = (),
    metrics: Sequence[Mapping[str, Any]] = (),
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The trajectory as JSON. metrics: of each assistant turn in order (prompt_tokens, completion_tokens, logprobs ...). extra: of
    the whole: the reward, say.

    A tool's answer belongs to the call of its id, or to the first one without an answer where it names none. ValueError: an
    answer to nothing.
    """
    steps: list[dict[str, Any]] = []
    told = iter(metrics)
    for message in messages:
        if message.role == "tool":
            _observe(steps, message)
            continue
        step: dict[str, Any] = {"step_id": len(steps) + 1, "message": message.content}
        step["source"] = "agent" if message.role == "assistant" else message.role
        if message.role == "assistant":
            step |= _of_agent(message, len(steps) + 1, model, dict(next(told, {})))
        steps.append(step)
    about: dict[str, Any] = {"name": agent, "version": version}
    if model:
        about["model_name"] = model
    if tools:
        about["tool_definitions"] = [{"type": "function", "function": tool.model_dump()} for tool in tools]
    whole = {"schema_version": SCHEMA, "session_id": session_id, "agent": about, "steps": steps}
    return {**whole, "final_metrics": _totals(steps), **({"extra": dict(extra)} if extra else {})}


def _of_agent(message: Message, number: int, model: str, metrics: dict[str, Any]) -> dict[str, Any]:
    calls = [
        {
            "tool_call_id": call.id or f"call-{number}-{place}",
            "function_name": call.name,
            "arguments": call.arguments,
        }
        for place, call in enumerate(message.tool_calls, start=1)
    ]
    parts = {"reasoning_content": message.reasoning, "model_name": model, "tool_calls": calls, "metrics": metrics}
    return {name: value for name, value in parts.items() if value}


def _observe(steps: list[dict[str, Any]], message: Message) -> None:
    step = steps[-1] if steps else {}
    results = step.get("observation", {}).get("results", [])
    answered = {result["source_call_id"] for result in results}
    ids = [call["tool_call_id"] for call in step.get("tool_calls", [])]
    open_ids = [one for one in ids if one not in answered]
    found = message.tool_call_id or next(iter(open_ids), "")
    if found not in open_ids:
        raise ValueError(f"a tool's answer to no call before it ({found or 'without an id'})")
    step["observation"] = {"results": [*results, {"source_call_id": found, "content": message.content}]}


def _totals(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    told = [step["metrics"] for step in steps if "metrics" in step]
    totals: dict[str, Any] = {"total_steps": len(steps)}
    for name in ("prompt_tokens", "completion_tokens", "cached_tokens"):
        if any(name in metrics for metrics in told):
            totals[f"total_{name}"] = sum(metrics.get(name, 0) for metrics in told)
    return totals
