"""The terminal family: generated tasks by index, every generator and difficulty in turn."""

from __future__ import annotations

from arcforge.core.tasks import Conversation, Split
from arcforge.envs.one_command import one_command
from arcforge.envs.terminal.generate import FAMILIES, generate, in_turn
from arcforge.envs.terminal.harbor import HarborTask
from arcforge.envs.terminal.sandboxes import SandboxRunner
from arcforge.envs.terminal.task import TerminalTask

_SPLITS = ("train", "dev", "test", "demonstration")


class TerminalFamily:
    """Implements core.tasks.Family. Its sandboxes begin with the first task that is opened and end with close()."""

    name = "terminal"
    domains = tuple(FAMILIES)

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._held: SandboxRunner | None = None

    def task(self, split: Split, index: int) -> TerminalTask:
        """UserError where bubblewrap does not work."""
        domain, harbor = self._harbor(split, index)
        return TerminalTask(harbor, self._runner(), f"terminal/{split}/{index}", domain)

    def demonstration(self, index: int) -> Conversation:
        """The task's own solution, as one command."""
        domain, harbor = self._harbor("demonstration", index)
        task = TerminalTask(harbor, self._runner(), f"terminal/demonstration/{index}", domain)
        return one_command(task, harbor.part("solution")["solve.sh"].decode())

    async def close(self) -> None:
        if self._held:
            await self._held.close()

    def _runner(self) -> SandboxRunner:
        self._held = self._held or SandboxRunner()
        return self._held

    def _harbor(self, split: str, index: int) -> tuple[str, HarborTask]:
        """Splits differ in the generators' seeds."""
        name, turn, difficulty = in_turn(index)
        seed = (self.seed * 1_000_003 + turn) * len(_SPLITS) + _SPLITS.index(split)
        return name, generate(name, seed, difficulty)
