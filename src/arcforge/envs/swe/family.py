"""The swe family: tasks and demonstrations by index."""

from __future__ import annotations

import random

from arcforge.core.tasks import Conversation, Split
from arcforge.envs.swe.demonstrations import Demonstration, demonstrate
from arcforge.envs.swe.prompts import opening
from arcforge.envs.swe.repository import generate
from arcforge.envs.swe.task import SweTask
from arcforge.envs.swe.testing import RUNNER
from arcforge.sandbox.fork import ForkServer


class SweFamily:
    """Implements core.tasks.Family. Its fork server starts with the first test run and ends with the process or close()."""

    name = "swe"
    domains = ("repair",)

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._server = ForkServer(preload=[RUNNER])

    def task(self, split: Split, index: int) -> SweTask:
        rng = random.Random(f"swe/{self.seed}/{split}/{index}")
        repository = generate(rng, split)
        messages, _ = opening(repository, rng)
        return SweTask(f"swe/{split}/{index}", messages, repository, self._server)

    def demonstration(self, index: int) -> Conversation:
        return self.demonstrate(index).conversation

    def demonstrate(self, index: int) -> Demonstration:
        """The demonstration with its repository and outcome; its bug is one of the train split."""
        rng = random.Random(f"swe/{self.seed}/demonstration/{index}")
        return demonstrate(generate(rng, "train"), rng)

    async def close(self) -> None:
        await self._server.close()


def demonstration_pass_rate(family: SweFamily, count: int) -> float:
    """Share of the first `count` demonstrations that end with passing tests."""
    return sum(family.demonstrate(index).passed for index in range(count)) / count
