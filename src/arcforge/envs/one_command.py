"""Demonstrations of tasks with a shell whose solution is one script."""

from __future__ import annotations

from arcforge.core.messages import Message, ToolCall
from arcforge.core.tasks import Conversation, Task


def one_command(task: Task, script: str) -> Conversation:
    """The task's conversation with the script as a call of bash, and a submission."""
    turns = (
        Message(role="assistant", tool_calls=(ToolCall(id="call-0", name="bash", arguments={"command": script}),)),
        Message(role="tool", content="(no output)", tool_call_id="call-0"),
        Message(role="assistant", tool_calls=(ToolCall(id="call-1", name="submit", arguments={}),)),
        Message(role="tool", content="submitted", tool_call_id="call-1"),
    )
    return Conversation(
        messages=(*task.messages, *turns),
        tools=task.tools,
        thinking=task.thinking,
        family=task.family,
        domain=task.domain,
    )
