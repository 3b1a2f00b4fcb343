"""A fleet's engine and its control in one process, as a rollout system has them in two."""

from __future__ import annotations

from collections.abc import Sequence

from arcforge.clients.arcforge import EngineFleet
from arcforge.clients.engines import EngineKind, Servers, engine_control, token_engine
from arcforge.clients.sglang import Interruptions
from arcforge.clients.token_client import Control


def engine_pair(kind: EngineKind, urls: Sequence[str], timeout: float = 600.0) -> tuple[EngineFleet, Control]:
    servers, shared = Servers(kind=kind, urls=tuple(urls)), Interruptions()
    return token_engine(servers, timeout, interruptions=shared), engine_control(servers, timeout, shared)
