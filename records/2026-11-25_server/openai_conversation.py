"""The `openai` SDK repairs a folder through the server: python openai_conversation.py BASE_URL FOLDER [SEED]

The opening messages and the tools are those of `arcforge agent`; every tool call is run on a copy of the folder.
"""

import asyncio
import json
import sys
from pathlib import Path

import openai

from arcforge.core.messages import ToolCall
from arcforge.envs.local import LocalTask

TURNS = 12


def sent(message) -> dict:
    return {"role": message.role, "content": message.content}


async def main(base_url: str, folder: str, seed: int) -> None:
    task = LocalTask(Path(folder), "the tests fail, repair it", "")
    tools = [{"type": "function", "function": tool.model_dump()} for tool in task.tools]
    client = openai.OpenAI(base_url=base_url, api_key="none")
    model = client.models.list().data[0].id
    messages = [sent(message) for message in task.messages]
    for message in messages:
        print(f"{message['role']}: {message['content']}")
    print(f"tools: {', '.join(tool.name for tool in task.tools)}")
    episode = await task.open()
    try:
        for turn in range(TURNS):
            answer = client.chat.completions.create(
                model=model,
                messages=messages,
                tools=tools,
                max_tokens=64,
                temperature=0.7,
                seed=seed + turn,
                extra_body={"thinking": {"type": "disabled"}},
            )
            message, usage = answer.choices[0].message, answer.usage
            cached = usage.prompt_tokens_details.cached_tokens
            head = f"[{usage.prompt_tokens} prompt tokens, {cached} cached, {answer.choices[0].finish_reason}]"
            print(f"assistant: {message.content or ''} {head}")
            messages.append(message)
            if not message.tool_calls:
                break
            for call in message.tool_calls:
                print(f"  {call.function.name} {call.function.arguments}")
                arguments = json.loads(call.function.arguments)
                result = await episode.call(ToolCall(name=call.function.name, arguments=arguments, id=call.id))
                print(f"tool: {result}")
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
            if episode.done:
                break
        verdict = await episode.grade([])
        print(f"the tests {'pass' if verdict.reward == 1.0 else 'fail'}; the diff:\n{episode.diff()}")
    finally:
        await episode.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0))
