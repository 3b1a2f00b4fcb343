"""The engines of a rollout system by kind of server: one `TokenEngine` over a fleet, and its control."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

from arcforge.clients.arcforge import EngineControl, EngineFleet
from arcforge.clients.sglang import Interruptions, SglangControl, SglangEngine
from arcforge.clients.token_client import Control
from arcforge.clients.vllm import VllmControl, VllmEngine
from arcforge.core.errors import UserError

EngineKind = Literal["arcforge", "vllm", "sglang"]


def engines(
    kind: EngineKind, urls: Sequence[str], timeout: float = 600.0, base_version: int = 0
) -> tuple[EngineFleet, Control]:
    """(engine over all of `urls`, on which a session stays with one server; control of all of them).

    The two belong together: use both in one process. timeout: seconds for one answer. base_version: the version of weights that
    vLLM or SGLang was started with and that no update has named. UserError: no such kind, or no address.
    """
    if not urls:
        raise UserError("engine addresses: at least one is needed")
    if kind == "arcforge":
        return EngineFleet(urls, timeout), EngineControl(urls, timeout)
    if kind == "vllm":
        return EngineFleet(urls, timeout, partial(VllmEngine, base_version=base_version)), VllmControl(urls, timeout)
    if kind == "sglang":
        shared = Interruptions()
        client = partial(SglangEngine, interruptions=shared, base_version=base_version)
        return EngineFleet(urls, timeout, client), SglangControl(urls, timeout, shared)
    raise UserError(f"engine kind: {kind!r:.40} is none of {', '.join(get_args(EngineKind))}")
