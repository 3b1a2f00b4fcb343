"""A third party's agent: the `openai` SDK and a shell tool, and nothing of this project. It works where it is started."""

import json
import os
import subprocess
import sys

import openai

SYSTEM = "you repair code with one tool"
PARAMETERS = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
TOOLS = [{"type": "function", "function": {"name": "run", "parameters": PARAMETERS}}]


def main(instruction):
    with open(os.environ["ARCFORGE_TASK_FILE"]) as file:
        assert json.load(file)["instruction"] == instruction, "the task file says something else"
    assert not sys.stdin.read(), "what stands in the command is no input"
    client = openai.OpenAI()  # address and key are the environment's
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": instruction}]
    for _ in range(8):
        answer = client.chat.completions.create(
            model="gpt-9", messages=messages, tools=TOOLS, temperature=0, top_p=0.5, seed=7, max_tokens=120
        )
        message = answer.choices[0].message
        messages.append(message)
        for call in message.tool_calls or ():
            command = json.loads(call.function.arguments)["command"]
            done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=10, check=False)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": done.stdout + done.stderr})
        if not message.tool_calls:
            return


if __name__ == "__main__":
    main(sys.argv[1])
