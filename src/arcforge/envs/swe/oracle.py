"""A policy that solves every task through the tools alone, by elimination: the proof that tasks are solvable."""

from __future__ import annotations

import re

from arcforge.core.messages import Message, ToolCall
from arcforge.core.protocols import CompletionRequest
from arcforge.envs.swe.repository import EXPRESSIONS, PASSED


def oracle(request: CompletionRequest) -> Message:
    """The next message: test, read the failing file, then edit and test until all is well, submit."""
    steps = _steps(request)
    if not steps or steps[-1][0].name == "edit":
        return _call("test")
    last, answer = steps[-1]
    if last.name == "test" and answer == PASSED:
        return _call("submit")
    reads = [(call.arguments["path"], text) for call, text in steps if call.name == "read"]
    if not reads:
        return _call("read", path=answer.split()[0])
    path, text = reads[0]
    shown = re.findall(r"return (\S+)", text)[0]
    tried = [shown, *(call.arguments["new"] for call, _ in steps if call.name == "edit")]
    new = next(expression for expression in EXPRESSIONS if expression not in tried)
    return _call("edit", old=tried[-1], new=new)


def _steps(request: CompletionRequest) -> list[tuple[ToolCall, str]]:
    calls = [call for message in request.messages for call in message.tool_calls]
    answers = [message.content for message in request.messages if message.role == "tool"]
    return list(zip(calls, answers))


def _call(name: str, **arguments: str) -> Message:
    return Message(role="assistant", tool_calls=(ToolCall(name=name, arguments=arguments),))
