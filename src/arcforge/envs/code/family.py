"""The family "code": six kinds of generated programming problems, graded 0 or 1 by hidden tests in a sandbox."""

from __future__ import annotations

from collections.abc import Sequence

from arcforge.core.messages import Message
from arcforge.envs.code import dynamic, graphs, grids, lists, parsing, strings
from arcforge.envs.code.running import forked
from arcforge.envs.code.scorer import TestScorer
from arcforge.envs.levelled import LEVELS, Exercise, LevelledFamily
from arcforge.sandbox.fork import ForkServer

SYSTEM = (
    "Solve the problem with a Python function of the standard library. Think first, then write the whole program in one block "
    "that begins with ```python and ends with ```. Hidden tests decide."
)


class CodeFamily(LevelledFamily):
    """Implements core.tasks.Family. Its fork server starts with the first test run and ends with the process or close()."""

    name = "code"
    system = SYSTEM
    makers = {kind.KIND: kind.make for kind in (strings, lists, parsing, grids, dynamic, graphs)}

    def __init__(self, seed: int = 0, levels: Sequence[int] = LEVELS, kinds: Sequence[str] = ()) -> None:
        self._server = ForkServer()
        super().__init__(TestScorer(forked(self._server)), seed, levels, kinds)

    def reply(self, answer: str, solution: str = "") -> Message:
        return Message(role="assistant", content=f"```python\n{answer}\n```", reasoning=solution)

    def fits(self, exercise: Exercise) -> bool:
        """The tests refuse both a constant and the broken solution."""
        return len(exercise.wrong) == 2

    async def close(self) -> None:
        await self._server.close()
