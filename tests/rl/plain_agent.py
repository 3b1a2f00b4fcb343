"""Another third party's agent, of the standard library alone and quickly started: `plain_agent.py MODE ARGUMENT`.

What it is told stands on its stdin. It says it to the model, writes the answer of each turn to answer.txt, and behaves as
MODE says.
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request


def ask(messages, **more):
    """One turn by OpenAI's API; the message."""
    body = {"model": "any", "messages": messages, "max_tokens": 60, "temperature": 0, **more}
    request = urllib.request.Request(
        f"{os.environ['OPENAI_API_BASE']}/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        message = json.load(answer)["choices"][0]["message"]
    with open("answer.txt", "a") as file:
        file.write(f"{message['content']}\n")
    return message


def ask_claude(messages):
    """One turn by Anthropic's API."""
    body = {"model": "any", "messages": messages, "max_tokens": 60}
    request = urllib.request.Request(f"{os.environ['ANTHROPIC_BASE_URL']}/v1/messages", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        json.load(answer)


def talk(instruction, turns):
    messages = [{"role": "user", "content": instruction}]
    for number in range(turns):
        messages += [ask(messages), {"role": "user", "content": f"go on {number}"}]


def main(mode, argument, instruction):
    if mode == "talk":
        talk(instruction, int(argument))
    elif mode == "crash":
        talk(instruction, int(argument))
        raise SystemError("segmentation of the mind")
    elif mode == "signal":
        talk(instruction, int(argument))
        print("about to die", file=sys.stderr, flush=True)
        os.kill(os.getpid(), 9)
    elif mode == "tell":
        talk(instruction, int(argument))
        print(json.dumps(dict(os.environ)))
    elif mode == "hang":
        talk(instruction, 1)
        child = subprocess.Popen(["sleep", "300"])
        print("thinking very hard", file=sys.stderr, flush=True)
        with open(argument, "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        time.sleep(300)
    elif mode == "forks":
        talk(instruction, 2)
        talk(f"a helper of {instruction}", 1)
        ask_claude([{"role": "user", "content": f"a summary of {instruction}"}])
    elif mode == "refused":
        try:
            ask([{"role": "user", "content": instruction}], stop=["x"])
        except urllib.error.HTTPError as error:
            print(f"status {error.code}", file=sys.stderr)
    elif mode == "patient":
        for _ in range(2):  # whoever asks again and gives up in the end, and calls that a success
            try:
                talk(instruction, 1)
            except urllib.error.HTTPError:
                time.sleep(0.05)
    else:
        assert mode == "nothing"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.stdin.read())
