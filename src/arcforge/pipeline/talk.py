"""`arcforge chat`: a conversation on the terminal with the checkpoint of a stage, its engine in this process."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from arcforge.chat.parse import parse
from arcforge.chat.stream import CallReady, Event, ReasoningDelta, TurnReader
from arcforge.chat.template import render
from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.errors import UserError
from arcforge.core.messages import Message, Sampling, Thinking
from arcforge.core.runs import RunFolder
from arcforge.envs.chat import family as chat_world
from arcforge.envs.reason import family as reason_world
from arcforge.infer.engine import Engine, EngineConfig, load_engine
from arcforge.model.hf_config import read_config

MAX_TOKENS = 512
LONGEST_CONTEXT = 8192
DIM, PLAIN = "\033[2m", "\033[0m"
HELP = """\
/chat, /reason   the system prompt and thinking mode of one of the two worlds that the recipes train on
/system TEXT     another system prompt (none without TEXT)     /think on|off   thinking before the answer
/reset           forget the conversation                       /exit           leave"""


def chat(run: Path, stage: str = "", temperature: float = 0.6) -> None:
    """Read lines from standard input until it ends or /exit; write the answers to standard output as they are sampled.

    run: a run folder, or a checkpoint folder. stage: whose checkpoint answers, by default the last one that has one.
    UserError when there is none.
    """
    folder = checkpoint_of(run, stage)
    engine, tokenizer = load(folder)
    interactive = sys.stdin.isatty()
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    talk = Chat(engine, tokenizer, sys.stdout, colour, temperature)
    if interactive:
        task, problem = (world.task("test", 0) for world in (chat_world.ChatFamily(), reason_world.ReasonFamily()))
        print(f"{folder}\n{HELP}")
        print(f"For example: {task.messages[1].content}   or, after /reason: {problem.messages[1].content}")
    for line in lines("> " if interactive else ""):
        if not talk.line(line):
            return


def checkpoint_of(run: Path, stage: str = "", preferred: str = "") -> Path:
    """The checkpoint folder of a stage: the one asked for, else the preferred one, else the last that has weights."""
    if (run / "config.json").exists() and not stage:
        return run
    if not (run / "stages").is_dir():
        raise UserError(f"{run}: neither a run folder nor a checkpoint folder")
    folders = [RunFolder(run).find_stage(stage)] if stage else sorted((run / "stages").iterdir())
    found = [f / "checkpoint" for f in folders if any((f / "checkpoint").glob("model*.safetensors"))]
    if not found:
        raise UserError(f"{run}: {stage or 'no stage'} has no checkpoint yet; run the recipe further")
    return next((folder for folder in found if folder.parent.name.partition("-")[2] == preferred), found[-1])


def load(folder: Path, max_running: int = 1) -> tuple[Engine, Tokenizer]:
    """Engine and tokenizer of a checkpoint folder, with room for the longest conversation that the model knows."""
    tokenizer = Tokenizer.load(folder)
    longest = min(read_config(folder).max_position_embeddings, LONGEST_CONTEXT)
    return load_engine(folder, EngineConfig(max_running=max_running, max_length=longest)), tokenizer


def lines(prompt: str) -> Iterator[str]:
    """Lines of standard input, with editing and history on a terminal."""
    if prompt:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - input() uses it
    while True:
        try:
            yield input(prompt)
        except EOFError:
            return


def printable(text: str) -> str:
    """Text that cannot steer a terminal: a model may sample any byte."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


class Chat:
    """One conversation. Feed it lines; it writes commands' answers and sampled text to `out`.

    Thinking is dimmed where colours are allowed, else it stands between its tags.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer, out: TextIO, colour: bool, temperature: float) -> None:
        self._engine, self._tokenizer, self._out, self._colour = engine, tokenizer, out, colour
        self._temperature = temperature
        self._part, self._answers = "", 0
        self.system, self.thinking = chat_world.SYSTEM, Thinking(enabled=False)
        self.messages: list[Message] = []

    def line(self, line: str) -> bool:
        """Obey a command or answer a message; False when the conversation is over."""
        command, _, rest = line.strip().partition(" ")
        match command:
            case "":
                return True
            case "/exit" | "/quit":
                return False
            case "/reset":
                self._begin(self.system, self.thinking)
            case "/system":
                self._begin(rest.strip(), self.thinking)
            case "/think" if rest.strip() in ("on", "off"):
                self.thinking = Thinking(enabled=rest.strip() == "on")
            case "/chat":
                self._begin(chat_world.SYSTEM, Thinking(enabled=False))
            case "/reason":
                self._begin(reason_world.SYSTEM, Thinking())
            case _ if command.startswith("/"):
                self._write(f"{HELP}\n")
            case _:
                self._answer(line.strip())
        return True

    def _begin(self, system: str, thinking: Thinking) -> None:
        self.system, self.thinking = system, thinking
        self.messages.clear()
        self._write("(a new conversation)\n")

    def _answer(self, text: str) -> None:
        """Sample one turn. Ctrl-C ends the turn and keeps what was said."""
        opening = [Message(role="system", content=self.system)] if self.system else []
        asked = [*self.messages, Message(role="user", content=text)]
        prompt = render([*opening, *asked], (), self.thinking, self._tokenizer, generation_prompt=True).ids
        request = str(self._answers)
        sampling = Sampling(
            max_tokens=MAX_TOKENS,
            temperature=self._temperature,
            seed=self._answers,
            stop_ids=self._tokenizer.stop_ids,
        )
        try:
            self._engine.add(prompt, sampling, request)
        except UserError:
            self._write("The conversation is longer than this model can read; /reset begins another.\n")
            return
        self._answers += 1
        try:
            message = self._stream(request)
        except KeyboardInterrupt:
            self._engine.abort(request)
            message = parse(self._engine.sampled(request), self._tokenizer, (), self.thinking).message
        finally:
            self._show("", "")
            self._write("\n")
            self._engine.discard(request)
        self.messages = [*asked, message]

    def _stream(self, request: str) -> Message:
        """Show the turn while it is sampled."""
        reader, seen = TurnReader(self._tokenizer, (), self.thinking), 0
        finished = False
        while not finished:
            finished = request in self._engine.step()
            ids = self._engine.sampled(request)
            self._tell(reader.feed(ids[seen:]))
            seen = len(ids)
        rest, parsed = reader.finish()
        self._tell(rest)
        return parsed.message

    def _tell(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, CallReady):
                self._show("content", f"{event.call.name} {event.call.arguments}")
            else:
                self._show("reasoning" if isinstance(event, ReasoningDelta) else "content", event.text)

    def _show(self, part: str, text: str) -> None:
        """Write text of the reasoning or of the content; reasoning is opened and closed where the part changes."""
        opening, closing = (DIM, f"{PLAIN}\n") if self._colour else ("<think>", "</think>\n")
        if self._part != part:
            self._write(closing if self._part == "reasoning" else "")
            self._write(opening if part == "reasoning" else "")
            self._part = part
        self._write(printable(text))

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
