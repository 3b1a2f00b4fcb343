"""HTTP on both sides of the router: a client's request read whole, sent to a worker as it is.

The body is read whole before it is sent on, because a request whose worker dies is sent once more to another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
from starlette.types import Receive, Scope
from yarl import URL

from arcforge.clients.http import CONNECT_TIMEOUT, IDLE_SECONDS
from arcforge.core.errors import UserError
from arcforge.serve.http import ClientLeft, TooLarge

HOP_BY_HOP = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    "upgrade".split()
)
SET_ANEW = frozenset({"host", "content-length", "expect"})  # by the client of the worker
LONGEST_HEADER = 1 << 16  # bytes of one line of a worker's answer
AUTOMATIC = ("accept", "accept-encoding", "content-type", "user-agent")  # what aiohttp would add of its own


@dataclass(frozen=True)
class Incoming:
    """A request to send on. target: path and query exactly as they came."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0].rstrip("/")

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")


class Upstream:
    """Connections to the workers, kept alive. Belongs to the event loop in which it was opened."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=AUTOMATIC,
            auto_decompress=False,
            max_line_size=LONGEST_HEADER,
            max_field_size=LONGEST_HEADER,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, worker: str, request: Incoming) -> aiohttp.ClientResponse:
        """The head of the worker's answer; close it. aiohttp.ClientError: no connection, or one that broke.

        UserError: the client's request has a header or a target that cannot be sent.
        """
        assert self._session is not None, "not open"
        carries_body = request.body or request.method not in ("GET", "HEAD", "OPTIONS", "DELETE")
        try:
            return await self._session.request(
                request.method,
                URL(worker + request.target, encoded=True),
                headers=list(request.headers),
                data=request.body if carries_body else None,
                allow_redirects=False,
            )
        except ValueError as error:
            raise UserError(f"the request cannot be sent on: {error}") from None


async def read_incoming(scope: Scope, receive: Receive, max_body_bytes: int) -> Incoming:
    """The whole request. TooLarge, or ClientLeft."""
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft("in the middle of its request")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_body_bytes:
            raise TooLarge(f"the request body is larger than {max_body_bytes} bytes")
        chunks.append(chunk)
        more = message.get("more_body", False)
    target = scope["raw_path"].decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    headers = [(name, value) for name, value in passed_on(scope["headers"]) if name.lower().decode() not in SET_ANEW]
    decoded = tuple((name.decode("latin-1"), value.decode("utf-8", "replace")) for name, value in headers)
    return Incoming(scope["method"], f"{target}?{query}" if query else target, decoded, b"".join(chunks))


def passed_on(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers without those that concern one connection only (RFC 9110, section 7.6.1)."""
    headers = list(headers)
    named = b",".join(value for name, value in headers if name.lower() == b"connection").decode("latin-1")
    dropped = HOP_BY_HOP | {part.strip().lower() for part in named.split(",")}
    return [(name, value) for name, value in headers if name.lower().decode("latin-1") not in dropped]


def worker_url(text: str) -> str:
    """`text` as the address of a worker, without a slash at its end. UserError for what is none."""
    try:
        parts = urlsplit(text.strip())
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or "@" in parts.netloc or any(c.isspace() for c in text.strip()):
        raise UserError(f"worker {text[:100]!r}: an address such as http://127.0.0.1:8001 is needed")
    return parts.geturl().rstrip("/")
