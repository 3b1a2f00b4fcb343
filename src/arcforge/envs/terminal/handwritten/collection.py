"""handwritten(): all of them, in one order."""

from __future__ import annotations

from arcforge.envs.terminal.draft import build
from arcforge.envs.terminal.handwritten import data, repositories, simulation, software
from arcforge.envs.terminal.harbor import HarborTask

DRAFTS = {**repositories.DRAFTS, **data.DRAFTS, **software.DRAFTS, **simulation.DRAFTS}


def handwritten() -> list[HarborTask]:
    source = {"source": "arcforge.envs.terminal.handwritten", "license": "Apache-2.0"}
    return [build(name, draft, {**source, "category": "handwritten"}) for name, draft in DRAFTS.items()]
