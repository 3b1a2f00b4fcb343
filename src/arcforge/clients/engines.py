"""The engines of a rollout system by kind of server: one `TokenEngine` over all of them, and their control."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, cast, get_args

from arcforge.clients.arcforge import EngineControl, EngineFleet
from arcforge.clients.sglang import Interruptions, SglangControl, SglangEngine
from arcforge.clients.token_client import Control
from arcforge.clients.vllm import VllmControl, VllmEngine
from arcforge.core.errors import UserError
from arcforge.core.messages import Value

EngineKind = Literal["arcforge", "vllm", "sglang"]


class Servers(Value):
    """Token servers of one kind."""

    kind: EngineKind = "arcforge"
    urls: tuple[str, ...]

    @classmethod
    def read(cls, addresses: Sequence[str]) -> Servers:
        """From "kind:http://host:port" each. UserError: no address, one that is none, an unknown kind, or several kinds."""
        if not addresses:
            raise UserError("engine addresses: at least one is needed")
        pairs = [address.partition(":")[::2] for address in addresses]
        for address, (kind, url) in zip(addresses, pairs, strict=True):
            if kind not in get_args(EngineKind) or not url.startswith(("http://", "https://")):
                kinds = ", ".join(get_args(EngineKind))
                raise UserError(f"engine {address!r:.100}: write KIND:http://HOST:PORT, where KIND is one of {kinds}")
        kinds = sorted({kind for kind, _ in pairs})
        if len(kinds) > 1:
            raise UserError(f"engines of several kinds ({', '.join(kinds)}): one fleet has one kind")
        return cls(kind=cast(EngineKind, kinds[0]), urls=tuple(url.rstrip("/") for _, url in pairs))


def token_engine(
    servers: Servers, timeout: float = 600.0, base_version: int = 0, interruptions: Interruptions | None = None
) -> EngineFleet:
    """All servers as one engine, on which a session stays with one server. timeout: seconds for one answer.

    base_version: the version of weights that vLLM or SGLang was started with and that no update has named. interruptions: those
    that the fleet's control counts; SGLang alone needs them.
    """
    if servers.kind == "vllm":
        return EngineFleet(servers.urls, timeout, partial(VllmEngine, base_version=base_version))
    if servers.kind == "sglang":
        client = partial(SglangEngine, interruptions=interruptions or Interruptions(), base_version=base_version)
        return EngineFleet(servers.urls, timeout, client)
    return EngineFleet(servers.urls, timeout)


def engine_control(servers: Servers, timeout: float = 600.0, interruptions: Interruptions | None = None) -> Control:
    """Control of all servers."""
    if servers.kind == "vllm":
        return VllmControl(servers.urls, timeout)
    if servers.kind == "sglang":
        return SglangControl(servers.urls, timeout, interruptions)
    return EngineControl(servers.urls, timeout)
