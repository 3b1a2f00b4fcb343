"""Keep-alive JSON requests to one server, with every wait bounded and every failure a typed boundary error."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from arcforge.core.errors import EngineError, RolloutTimeout

CONNECT_TIMEOUT = 5.0  # seconds
RETRIES = 4
FIRST_PAUSE = 0.1  # seconds; doubles with every retry
LONGEST_PAUSE = 20.0  # seconds; a server that asks for more than that is not waited for
IDLE_SECONDS = 4.0  # idle connections end before uvicorn's 5 seconds are over, so that no request meets a closing one
_WHEN_BUSY = frozenset({429, 500, 502, 503, 504, 529})
# No connection, one that broke, or one that spoke something else than HTTP.
_BROKEN = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, aiohttp.ClientResponseError)


class Refused(EngineError):
    """The server answered with an error status."""

    def __init__(self, told: str, status: int) -> None:
        super().__init__(told)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """retry_after: seconds the server asks for; 0 when it does not say."""

    status: int
    body: bytes
    retry_after: float


class JsonClient:
    """JSON in, JSON out. `timeout`: seconds for one answer, all retries included.

    A connection that could not be made, or that broke before the answer came, is tried again a bounded number of times:
    every request here may safely be repeated. public: an endpoint of someone else's; "busy" answers are tried again too,
    and the environment's proxies apply. Belongs to one event loop at a time; close it there.
    """

    def __init__(
        self, base_url: str, timeout: float, headers: Mapping[str, str] | None = None, public: bool = False
    ) -> None:
        self.base_url, self.timeout = base_url.rstrip("/"), timeout
        self._headers = dict(headers or {})
        self._public = public
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._proxy: str | None = None

    async def post(
        self, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """The answer's JSON, None for an empty one. EngineError: no connection, an error status (`Refused`), no JSON.
        RolloutTimeout: no answer in time."""
        if body is None:
            return await self._request("POST", path, None, headers or {}, self.timeout)
        content = json.dumps(body, separators=(",", ":")).encode()
        headers = {"content-type": "application/json", **(headers or {})}
        return await self._request("POST", path, content, headers, self.timeout)

    async def get(self, path: str, timeout: float | None = None) -> Any:
        return await self._request("GET", path, None, {}, timeout or self.timeout)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def __aenter__(self) -> JsonClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _request(
        self, method: str, path: str, content: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> Any:
        where = f"{self.base_url}{path}"
        try:
            async with asyncio.timeout(timeout):
                answer = await self._answered(method, where, content, headers)
        except aiohttp.ConnectionTimeoutError:
            raise EngineError(f"{where}: no connection") from None
        except TimeoutError:
            raise RolloutTimeout(f"{where}: no answer within {timeout:g} s") from None
        except (aiohttp.ClientError, ValueError) as error:  # ValueError: a header or URL that cannot be sent
            raise EngineError(f"{where}: {_told(error)}") from None
        return _json_of(answer, where)

    async def _answered(self, method: str, url: str, content: bytes | None, headers: Mapping[str, str]) -> Answer:
        """The answer, after bounded retries; the last failure is raised (or, with a busy status, returned)."""
        for attempt in range(RETRIES + 1):
            pause, last = FIRST_PAUSE * 2**attempt, attempt == RETRIES
            try:
                answer = await self._once(method, url, content, headers)
            except _BROKEN:
                if last:
                    raise
            else:
                pause = max(pause, answer.retry_after)
                if last or not self._public or answer.status not in _WHEN_BUSY or pause > LONGEST_PAUSE:
                    return answer
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, method: str, url: str, content: bytes | None, headers: Mapping[str, str]) -> Answer:
        session = self._here()
        async with session.request(
            method, url, data=content, headers=headers, proxy=self._proxy, allow_redirects=False
        ) as response:
            return Answer(response.status, await response.read(), _seconds(response.headers.get("retry-after", "0")))

    def _here(self) -> aiohttp.ClientSession:
        """The session of the running event loop: connections of a loop that has ended are of no use in another."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._forget()
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(CONNECT_TIMEOUT, self.timeout)),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
            )
            self._loop = loop
            self._proxy = _proxy(self.base_url) if self._public else None
        return self._session

    def _forget(self) -> None:
        """Let go of a session whose loop has ended: its connections went with the loop, there is nothing to wait for."""
        if self._session is not None and self._loop is not None and self._loop.is_closed():
            with contextlib.suppress(StopIteration):
                self._session.close().send(None)

    def __del__(self) -> None:
        self._forget()  # or aiohttp would log that it was left open


def session_header(session: str) -> dict[str, str]:
    """X-Session-ID, by which routers keep a rollout on the engine that holds its prefix."""
    return {"x-session-id": session} if session and session.isascii() and session.isprintable() else {}


def malformed(where: str, error: Exception) -> EngineError:
    """For an answer that is JSON but not what the protocol says."""
    return EngineError(f"{where}: unexpected answer: {type(error).__name__}: {str(error)[:200]}")


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for this address. (aiohttp's own reading of it also obeys ~/.netrc.)"""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc.rpartition("@")[2]) else getproxies().get(parts.scheme)


def _seconds(retry_after: str) -> float:
    """Of a Retry-After header; 0 for a date (not used by the APIs spoken here)."""
    try:
        return float(retry_after)
    except ValueError:
        return 0.0


def _json_of(answer: Answer, where: str) -> Any:
    if not 200 <= answer.status < 300:
        raise Refused(f"{where}: {answer.status}: {_message(answer)}", answer.status)
    if not answer.body:
        return None
    try:
        return json.loads(answer.body)
    except ValueError:
        raise EngineError(f"{where}: the answer is not JSON: {_text(answer)[:100]!r}") from None


def _message(answer: Answer) -> str:
    """What the server says is wrong: OpenAI's and Anthropic's {"error": {"message"}}, FastAPI's {"detail"}, or plain text."""
    try:
        body = json.loads(answer.body)
    except ValueError:
        return _text(answer).strip()[:300]
    problem = body.get("error") or body.get("detail") or body if isinstance(body, dict) else body
    if isinstance(problem, dict):
        problem = problem.get("message") or problem
    return str(problem)[:300]


def _text(answer: Answer) -> str:
    return answer.body.decode("utf-8", "replace")


def _told(error: Exception) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
