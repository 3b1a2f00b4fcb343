"""CPU of the client per rollout request: `JsonClient` (aiohttp) beside httpx, at several concurrencies.

    python benchmarks/http_client.py [--requests 1500]

The server is another process that answers every POST with the same bytes, so the client's process time is the client's
alone; a request carries a prompt of 400 ids, its answer 20 ids with log-probabilities. Both clients keep their
connections and both parse the answer's JSON. One uncounted round opens the connections.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import multiprocessing
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any

import httpx

from arcforge.clients.http import JsonClient, session_header

CONCURRENCIES = (1, 16, 100)
BODY = {
    "input_ids": [(7 * i) % 2048 for i in range(400)],
    "sampling_params": {"max_new_tokens": 20, "temperature": 1.0, "top_p": 1.0, "seed": 7, "stop_token_ids": [0, 4]},
    "rid": "rollout-1",
    "return_logprob": True,
}
ANSWER = {
    "output_ids": list(range(20)),
    "meta_info": {
        "id": "rollout-1",
        "finish_reason": {"type": "length"},
        "output_token_logprobs": [[-1.2345678901234567 - i, i, None] for i in range(20)],
        "weight_versions": [{"version": 3, "start": 0, "end": 20}],
        "prompt_tokens": 400,
        "completion_tokens": 20,
        "cached_tokens": 0,
    },
}
Post = Callable[[], Awaitable[Any]]


class Fixed(asyncio.Protocol):
    """Answers every complete request with ANSWER, on a connection that stays open."""

    def __init__(self) -> None:
        body = json.dumps(ANSWER).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._answer, self._read = head.encode() + body, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, gap, body = self._read.partition(b"\r\n\r\n")
        if gap and len(body) >= int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            self._read = b""
            self._transport.write(self._answer)


async def serve(address: Connection) -> None:
    server = await asyncio.get_running_loop().create_server(Fixed, "127.0.0.1", 0)
    address.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def serve_in_process(address: Connection) -> None:
    asyncio.run(serve(address))


async def rounds(post: Post, concurrency: int, requests: int) -> None:
    left = iter(range(requests))

    async def worker() -> None:
        for _ in left:
            answer = await post()
            assert answer["output_ids"] == ANSWER["output_ids"]

    async with asyncio.timeout(300):
        await asyncio.gather(*(worker() for _ in range(concurrency)))


async def milliseconds(post: Post, concurrency: int, requests: int) -> tuple[float, float]:
    """(CPU milliseconds of this process per request, requests per second)."""
    await rounds(post, concurrency, 2 * concurrency)
    cpu, wall = time.process_time(), time.perf_counter()
    await rounds(post, concurrency, requests)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return 1000 * cpu / requests, requests / wall


async def with_httpx(url: str, concurrency: int, requests: int) -> tuple[float, float]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=4.0)
    async with httpx.AsyncClient(timeout=60.0, limits=limits, trust_env=False, verify=False) as client:

        async def post() -> Any:
            content = json.dumps(BODY, separators=(",", ":")).encode()
            headers = {"content-type": "application/json", **session_header("rollout-1")}
            async with asyncio.timeout(60.0):
                return (await client.post(f"{url}/generate", content=content, headers=headers)).json()

        return await milliseconds(post, concurrency, requests)


async def with_json_client(url: str, concurrency: int, requests: int) -> tuple[float, float]:
    async with JsonClient(url, timeout=60.0) as client:
        return await milliseconds(
            lambda: client.post("/generate", BODY, session_header("rollout-1")), concurrency, requests
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1500, help="counted requests of each measurement")
    requests = parser.parse_args().requests
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve_in_process, args=(theirs,), daemon=True)
    server.start()
    try:
        if not ours.poll(30):
            raise SystemExit("the loopback server did not start")
        url = f"http://127.0.0.1:{ours.recv()}"
        print(f"httpx {importlib.metadata.version('httpx')}, aiohttp {importlib.metadata.version('aiohttp')}")
        print("concurrent    httpx ms CPU  requests/s    JsonClient ms CPU  requests/s")
        for concurrency in CONCURRENCIES:
            before = asyncio.run(with_httpx(url, concurrency, requests))
            after = asyncio.run(with_json_client(url, concurrency, requests))
            print(f"{concurrency:10d}{before[0]:16.3f}{before[1]:12.0f}{after[0]:21.3f}{after[1]:12.0f}")
    finally:
        server.kill()
        server.join(10)


if __name__ == "__main__":
    main()
