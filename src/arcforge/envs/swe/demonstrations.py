"""Demonstrations, imperfect on purpose: they teach the tools and leave the discovery of verifying and retrying to RL.

No process runs: what `test` answers is computed by `Repository.test_answer`, which a test holds equal to the real runner.
Erroneous steps stay in the context with trained=False and are followed by a recovery (GLM-5 report, section 3.1).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from arcforge.agents.tools import NO_FILE, NOT_FOUND, OK, TOOLS
from arcforge.core.messages import Message, Thinking, ToolCall
from arcforge.core.tasks import Conversation
from arcforge.envs.swe.prompts import opening
from arcforge.envs.swe.repository import EXPRESSIONS, PASSED, TEST_FILE, Repository
from arcforge.envs.swe.task import MAX_TURNS, THINKING

HABIT_SHARE = 0.9  # an edit tries the expression that follows the present one in EXPRESSIONS, whatever the tests say
VERIFY_SHARE = 0.5  # `test` after an edit
RETRY_SHARE = 0.2  # another edit after a failing verification
MISTAKE_SHARE = 0.15  # a step that goes wrong, then recovery
TEST_FIRST_SHARE = 0.8  # open with `test`; otherwise look around first
MODES: tuple[tuple[Thinking, float], ...] = (
    (THINKING, 0.7),
    (Thinking(enabled=True), 0.15),
    (Thinking(enabled=True, preserved=True), 0.15),
)


@dataclass(frozen=True)
class Demonstration:
    conversation: Conversation
    repository: Repository
    passed: bool
    """Whether the repository passes its tests in the end."""


def demonstrate(repository: Repository, rng: random.Random) -> Demonstration:
    """One demonstration on `repository`."""
    thinking = rng.choices([mode for mode, _ in MODES], [weight for _, weight in MODES])[0]
    messages, named = opening(repository, rng)
    script = _Script(repository, rng, list(messages), thinking.enabled)
    script.find(named)
    script.repair()
    conversation = Conversation(
        messages=tuple(script.messages), tools=TOOLS, thinking=thinking, family="swe", domain="repair"
    )
    return Demonstration(conversation, repository, script.test_answer == PASSED)


class _Script:
    """Writes the messages of one demonstration, keeping track of the expression that now stands in the file."""

    def __init__(self, repository: Repository, rng: random.Random, messages: list[Message], thinks: bool) -> None:
        self.repository, self.rng, self.messages, self.thinks = repository, rng, messages, thinks
        self.now = repository.bug.shown

    @property
    def test_answer(self) -> str:
        return self.repository.test_answer({self.repository.bug.name: self.now})

    def find(self, named: bool) -> None:
        """Up to having read the wrong file."""
        bug, files, rng = self.repository.bug, self.repository.files, self.rng
        unread = [self.repository.bug_file]
        if rng.random() < TEST_FIRST_SHARE:
            self._test()
        elif named and rng.random() < 0.5:
            found = [path for path in sorted(files) if bug.name in files[path]]
            self._step("search", f"find {bug.name}", "\n".join(found), text=bug.name)
        else:
            self._step("list", "see files", "\n".join(sorted(files)))
            if named and rng.random() < 0.5:
                unread = sorted(path for path in files if path != TEST_FILE)
            else:
                self._test()
        if rng.random() < MISTAKE_SHARE / 2:
            self._step("read", f"{bug.name} wrong", NO_FILE, trained=False, path=f"{bug.name}.py")
        for path in unread[: unread.index(self.repository.bug_file) + 1]:
            thought = f"{path} {bug.name} wrong" if len(unread) == 1 else f"find {bug.name}"
            self._step("read", thought, files[path], path=path)

    def repair(self) -> None:
        """Edit, perhaps verify, rarely retry, submit."""
        tried = {self.now}
        if self.rng.random() < MISTAKE_SHARE / 2:
            self._miss()
        while True:
            self._edit(self._choose(tried))
            tried.add(self.now)
            if self.rng.random() >= VERIFY_SHARE:
                break
            self._test()
            out_of_options = len(tried) == len(EXPRESSIONS) or len(self.messages) // 2 > MAX_TURNS - 4
            if self.test_answer == PASSED or out_of_options or self.rng.random() >= RETRY_SHARE:
                break
        self._say("submit", "done")

    def _choose(self, tried: set[str]) -> str:
        """The next one by habit, which is right by luck alone, or any that has not been tried."""
        order = list(EXPRESSIONS)
        following = order[(order.index(self.now) + 1) % len(order)]
        untried = [text for text in order if text not in tried]
        return following if following not in tried and self.rng.random() < HABIT_SHARE else self.rng.choice(untried)

    def _test(self) -> None:
        self._step("test", "run tests", self.test_answer)

    def _edit(self, new: str) -> None:
        self._step("edit", f"{self.now} to {new}", OK, old=self.now, new=new)
        self.now = new

    def _miss(self) -> None:
        """An edit of an expression that the file does not hold."""
        path = self.repository.bug_file
        old = self.rng.choice([text for text in EXPRESSIONS if text not in self.repository.files[path]])
        new = self.rng.choice([text for text in EXPRESSIONS if text != old])
        self._step("edit", f"{old} to {new}", NOT_FOUND, trained=False, old=old, new=new)

    def _step(self, name: str, thought: str, answer: str, *, trained: bool = True, **arguments: str) -> None:
        self._say(name, thought, trained=trained, **arguments)
        self.messages.append(Message(role="tool", content=answer))

    def _say(self, name: str, thought: str, *, trained: bool = True, **arguments: str) -> None:
        call = ToolCall(name=name, arguments=arguments)
        reasoning = thought if self.thinks else None
        self.messages.append(Message(role="assistant", reasoning=reasoning, tool_calls=(call,), trained=trained))
