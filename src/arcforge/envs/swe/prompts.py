"""How a repair task is asked for."""

from __future__ import annotations

import random

from arcforge.core.messages import Message
from arcforge.envs.swe.repository import Repository

SYSTEM = "repair code"
UNNAMED = ("tests fail", "fix the tests", "repair the code", "make tests ok")
NAMED = ("fix {name}", "{name} is wrong", "repair {name}")
NAMED_SHARE = 0.4


def opening(repository: Repository, rng: random.Random) -> tuple[tuple[Message, ...], bool]:
    """(system and user message, whether the user names the wrong function)."""
    named = rng.random() < NAMED_SHARE
    text = rng.choice(NAMED if named else UNNAMED).format(name=repository.bug.name)
    return (Message(role="system", content=SYSTEM), Message(role="user", content=text)), named
