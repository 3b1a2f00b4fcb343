"""A real server whose engine samples a turn that the test has written, for tests with public clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from toy_engine import ToyEngine, serving

from arcforge.chat.tokenizer import Tokenizer
from arcforge.serve.loop import EngineLoop
from arcforge.serve.server import build_app

WORDS = ["hello world think about it", "add a name 1 2 3"]


class Script:
    """Continues every prompt with the next of `turns`; a turn that was begun for the model is gone on with."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.turns = tokenizer, [[]]
        self._assistant = tokenizer.id("<|assistant|>")

    def write(self, *turns: tuple[str, ...]) -> None:
        self.turns = [ids_of(self.tokenizer, *parts) for parts in turns]

    def next_id(self, prompt: list[int], position: int) -> int:
        start = len(prompt) - prompt[::-1].index(self._assistant) + 1  # after <|assistant|><think> or </think>
        spoken = prompt.count(self._assistant) - 1
        return self.turns[min(spoken, len(self.turns) - 1)][len(prompt) + position - start]


def ids_of(tokenizer: Tokenizer, *parts: str) -> list[int]:
    """Ids of a turn; parts that are names of control tokens become those."""
    return [
        i for part in parts for i in ([tokenizer.id(part)] if part in tokenizer.control else tokenizer.encode(part))
    ]


def call(tool: str, /, **arguments: str) -> tuple[str, ...]:
    pairs = [("<arg_key>", key, "</arg_key>", "<arg_value>", value, "</arg_value>") for key, value in arguments.items()]
    return ("<tool_call>", tool, *(part for pair in pairs for part in pair), "</tool_call>")


def new_tokenizer() -> Tokenizer:
    return Tokenizer.train(WORDS * 3, 320)


@contextmanager
def scripted_server(tokenizer: Tokenizer) -> Iterator[tuple[str, Script, ToyEngine]]:
    """(address, script, engine)."""
    script = Script(tokenizer)
    engine = ToyEngine(script.next_id)
    loop = EngineLoop(engine)
    with serving(build_app(loop, tokenizer, "toy", max_length=4096), loop) as url:
        yield url, script, engine
        engine.gate.set()
