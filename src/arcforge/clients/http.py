"""One keep-alive JSON connection to a server, with every wait bounded and every failure a typed boundary error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import httpx

from arcforge.core.errors import EngineError, RolloutTimeout

CONNECT_TIMEOUT = 5.0  # seconds
RETRIES = 4
FIRST_PAUSE = 0.1  # seconds; doubles with every retry
LONGEST_PAUSE = 20.0  # seconds; a server that asks for more than that is not waited for
# Idle connections are dropped before uvicorn's 5 seconds are over, so that no request meets a closing one.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=4.0)
_WHEN_BUSY = frozenset({429, 500, 502, 503, 504, 529})


class JsonClient:
    """JSON in, JSON out. `timeout`: seconds for one answer, all retries included.

    A connection that could not be made, or that broke before the answer came, is tried again a bounded number of times:
    every request here may safely be repeated. public: an endpoint of someone else's; "busy" answers are tried again too,
    and proxies and certificates of the environment apply. Belongs to one event loop at a time; close it there.
    """

    def __init__(
        self, base_url: str, timeout: float, headers: Mapping[str, str] | None = None, public: bool = False
    ) -> None:
        self.base_url, self.timeout = base_url.rstrip("/"), timeout
        self._headers = dict(headers or {})
        self._public = public
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def post(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Any:
        """The answer's JSON. EngineError: no connection, an error status, no JSON. RolloutTimeout: no answer in time."""
        content = json.dumps(body, separators=(",", ":")).encode()
        headers = {"content-type": "application/json", **(headers or {})}
        return await self._request("POST", path, content, headers, self.timeout)

    async def get(self, path: str, timeout: float | None = None) -> Any:
        return await self._request("GET", path, None, {}, timeout or self.timeout)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

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
                response = await self._answered(method, where, content, headers)
        except httpx.ConnectTimeout:
            raise EngineError(f"{where}: no connection") from None
        except (TimeoutError, httpx.TimeoutException):
            raise RolloutTimeout(f"{where}: no answer within {timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise EngineError(f"{where}: {_told(error)}") from None
        return _json_of(response, where)

    async def _answered(
        self, method: str, url: str, content: bytes | None, headers: Mapping[str, str]
    ) -> httpx.Response:
        """The response, after bounded retries; the last failure is raised (or, with a busy status, returned)."""
        for attempt in range(RETRIES + 1):
            pause, last = FIRST_PAUSE * 2**attempt, attempt == RETRIES
            try:
                response = await self._here().request(method, url, content=content, headers=dict(headers))
            except (httpx.ConnectTimeout, httpx.NetworkError, httpx.RemoteProtocolError):
                if last:
                    raise
            else:
                pause = max(pause, _asked_pause(response))
                if last or not self._public or response.status_code not in _WHEN_BUSY or pause > LONGEST_PAUSE:
                    return response
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _here(self) -> httpx.AsyncClient:
        """The client of the running event loop: connections of a loop that has ended are of no use in another."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            timeout = httpx.Timeout(self.timeout, connect=min(CONNECT_TIMEOUT, self.timeout))
            self._client = httpx.AsyncClient(
                headers=self._headers,
                timeout=timeout,
                limits=_LIMITS,
                trust_env=self._public,
                verify=self.base_url.startswith("https:"),  # certificates take longer to load than a request
            )
            self._loop = loop
        return self._client


def session_header(session: str) -> dict[str, str]:
    """X-Session-ID, by which routers keep a rollout on the engine that holds its prefix."""
    return {"x-session-id": session} if session and session.isascii() and session.isprintable() else {}


def malformed(where: str, error: Exception) -> EngineError:
    """For an answer that is JSON but not what the protocol says."""
    return EngineError(f"{where}: unexpected answer: {type(error).__name__}: {str(error)[:200]}")


def _asked_pause(response: httpx.Response) -> float:
    """Seconds of the Retry-After header; 0 without one (dates are not used by the APIs spoken here)."""
    try:
        return float(response.headers.get("retry-after", 0))
    except ValueError:
        return 0.0


def _json_of(response: httpx.Response, where: str) -> Any:
    if not response.is_success:
        raise EngineError(f"{where}: {response.status_code}: {_message(response)}")
    try:
        return response.json()
    except ValueError:
        raise EngineError(f"{where}: the answer is not JSON: {response.text[:100]!r}") from None


def _message(response: httpx.Response) -> str:
    """What the server says is wrong: OpenAI's and Anthropic's {"error": {"message"}}, FastAPI's {"detail"}, or plain text."""
    try:
        body = response.json()
    except ValueError:
        return response.text.strip()[:300]
    problem = body.get("error") or body.get("detail") or body if isinstance(body, dict) else body
    if isinstance(problem, dict):
        problem = problem.get("message") or problem
    return str(problem)[:300]


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
