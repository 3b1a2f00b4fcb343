"""The family "reason": verifiable single-turn problems in four domains, graded 0 or 1 (GLM-5 report, section 3.2).

Demonstrations are a mixture on purpose: some think step by step and are right, more guess after little or no thinking
and are mostly wrong. Supervised training on them teaches both ways; the reward tells them apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from arcforge.core.messages import Message, Thinking
from arcforge.core.tasks import Conversation, Split
from arcforge.envs.reason import arithmetic, deduction, programs, tables
from arcforge.envs.reason.problem import Problem
from arcforge.envs.single_turn import SingleTurnTask, draw, validate
from arcforge.rewards.rules import Exact, RuleScorer, dump_rules

SYSTEM = (
    "Solve the problem. Think in short steps, then write only the answer: one number or word. "
    "Numbers stay from 0 to 9. Read and, or, not from left to right. "
    "Example: p=2;q+5;r-3 gives q+5:2+5=7;r-3:7-3=4, answer 4."
)

MAX_TOKENS = 64
CAREFUL_SHARE = 0.4
LUCKY_SHARE = 0.17  # of guesses that are right; with CAREFUL_SHARE the demonstrations are right about half of the time
GUESSES = ("guess", "quick guess", "no need to think")

_MAKERS: dict[str, Callable[[random.Random], Problem]] = {
    "math": arithmetic.make,
    "code": programs.make,
    "logic": deduction.make,
    "table": tables.make,
}


class ReasonFamily:
    """Index i is a problem of domain i modulo 4. Demonstrations come from the train split."""

    name = "reason"
    domains = tuple(_MAKERS)

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._scorer = RuleScorer()

    def problem(self, split: Split, index: int) -> Problem:
        """The problem behind `task(split, index)`."""
        return self._draw(split, index, random.Random(f"reason:{self._seed}:{split}:{index}"))

    def task(self, split: Split, index: int) -> SingleTurnTask:
        problem = self.problem(split, index)
        return SingleTurnTask(
            task_id=f"{self.name}/{problem.domain}/{split}/{self._seed}-{index}",
            family=self.name,
            domain=problem.domain,
            messages=opening(problem),
            scorer=self._scorer,
            reference={
                "answer": problem.answer,
                "kind": problem.kind,
                "rules": dump_rules([Exact(expected=problem.answer)]),
            },
            max_tokens=MAX_TOKENS,
        )

    def demonstrated(self, index: int) -> Problem:
        """The problem behind `demonstration(index)`."""
        return self._draw("train", index, random.Random(f"reason:{self._seed}:demonstrated:{index}"))

    def demonstration(self, index: int) -> Conversation:
        problem, rng = self.demonstrated(index), random.Random(f"reason:{self._seed}:demonstration:{index}")
        reply = careful(problem) if rng.random() < CAREFUL_SHARE else _guess(problem, rng)
        return Conversation(
            messages=(*opening(problem), reply), thinking=Thinking(), family=self.name, domain=problem.domain
        )

    async def validate(self, split: Split, index: int) -> None:
        """TaskError unless the grader accepts the answer and refuses the wrong ones, padding and silence."""
        problem = self.problem(split, index)
        wrong = [*problem.wrong, f"the answer is {problem.answer}", f"{problem.trace};{problem.answer}", ""]
        bad = [Message(role="assistant", content=text, reasoning=problem.trace) for text in wrong]
        await validate(self.task(split, index), careful(problem), bad)

    async def close(self) -> None:
        """Nothing is shared between episodes."""

    def _draw(self, split: Split, index: int, rng: random.Random) -> Problem:
        make = _MAKERS[self.domains[index % len(self.domains)]]
        return draw(make, lambda problem: problem.key, split, rng)


def opening(problem: Problem) -> tuple[Message, ...]:
    return (Message(role="system", content=SYSTEM), Message(role="user", content=problem.question))


def careful(problem: Problem) -> Message:
    """The reply of someone who thinks step by step: always right."""
    return Message(role="assistant", content=problem.answer, reasoning=problem.trace)


def _guess(problem: Problem, rng: random.Random) -> Message:
    """A reply after no useful thinking, or after the first of several steps alone."""
    first_step, _, more = problem.trace.partition(";")
    reasoning = rng.choice((*GUESSES, first_step) if more else GUESSES)
    answer = problem.answer if rng.random() < LUCKY_SHARE else rng.choice(problem.wrong)
    return Message(role="assistant", content=answer, reasoning=reasoning)
