"""A third party's agent of the standard library alone: talks to the model for some turns, and repairs what it finds in its
directory, by elimination, where a hash of what was said is even."""

import json
import os
import pathlib
import sys
import urllib.request
import zlib

EXPRESSIONS = ("a+b", "a-b", "a*b", "max(a,b)", "min(a,b)")
TURNS = 2


def ask(messages):
    body = {"model": "any", "messages": messages, "max_tokens": 24, "temperature": 0}
    request = urllib.request.Request(f"{os.environ['OPENAI_BASE_URL']}/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["choices"][0]["message"]


def passes(files):
    names = {}
    try:
        for name, text in files.items():
            if name != "test.py":
                exec(text, names)
        tests = [line for line in files["test.py"].splitlines() if line.startswith("assert")]
        exec("\n".join(tests), names)
    except Exception:
        return False
    return True


def repair(files):
    """The expression of the first function of a file, exchanged until the tests pass."""
    for name, text in files.items():
        if name == "test.py":
            continue
        for old in EXPRESSIONS:
            for new in EXPRESSIONS:
                changed = text.replace(f"return {old}", f"return {new}", 1)
                if passes({**files, name: changed}):
                    pathlib.Path(name).write_text(changed)
                    return


def main():
    messages = [{"role": "user", "content": sys.stdin.read()}]
    for _ in range(TURNS):
        answer = ask(messages)
        messages += [answer, {"role": "user", "content": "go on"}]
    if zlib.crc32(json.dumps(messages).encode()) % 2 == 0:
        repair({path.name: path.read_text() for path in pathlib.Path.cwd().glob("*.py")})


if __name__ == "__main__":
    main()
