"""The router before real worker processes: what passes, who answers, and what happens when a worker dies."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import httpx
import pytest
from toy_fleet import ToyWorker, generate, listed, routed, session_of, until

from arcforge.serve.router import RouterOptions
from arcforge.serve.router_workers import EXCESS


def test_requests_and_answers_pass_as_they_are(router: httpx.Client) -> None:
    headers = [("x-a", "1"), ("x-a", "2"), ("user-agent", "mine"), ("connection", "x-private"), ("x-private", "1")]
    response = router.request("PATCH", "/v1/a%2Fb//c?q=%20x&q=2", headers=headers, content=b"\x00\xff" * 10)
    said = response.json()
    assert response.status_code == 418
    assert said["method"] == "PATCH" and said["target"] == "/v1/a%2Fb//c?q=%20x&q=2"
    assert said["body"].encode("latin-1") == b"\x00\xff" * 10
    got = [(name, value) for name, value in said["headers"] if name.startswith(("x-", "user-agent"))]
    assert got == [("x-a", "1"), ("x-a", "2"), ("user-agent", "mine")]
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"] and response.headers["x-odd"] == "yes"
    assert router.get("/v1/models").json()["target"] == "/v1/models?"
    assert router.head("/v1/models").status_code == 418
    assert router.request("DELETE", "/x", content=b"y").json()["body"] == "y"


def test_a_session_stays_on_its_worker(router: httpx.Client, pair: list[ToyWorker]) -> None:
    homes = {str(i): generate(router, str(i))["worker"] for i in range(30)}
    assert set(homes.values()) == {worker.port for worker in pair}
    for session, home in homes.items():
        assert generate(router, session)["worker"] == home
        assert generate(router, session_id=session)["worker"] == home
    counts = {each["url"]: each["requests"] for each in router.get("/workers").json()["workers"]}
    assert counts == {worker.url: 3 * list(homes.values()).count(worker.port) for worker in pair}


def test_a_busy_worker_hands_its_session_over(router: httpx.Client, pair: list[ToyWorker]) -> None:
    session = session_of(router, pair[0])
    with ThreadPoolExecutor(EXCESS) as pool:
        slow = [pool.submit(generate, router, session, seconds=0.7) for _ in range(EXCESS)]
        until(lambda: listed(router, pair[0])["in_flight"] == EXCESS)
        assert generate(router, session)["worker"] == pair[1].port
        assert all(each.result()["worker"] == pair[0].port for each in slow)
    assert generate(router, session)["worker"] == pair[1].port
    numbers = router.get("/metrics").text
    assert "arcforge_router_rebalanced_total 1.0" in numbers
    assert "arcforge_router_healthy_workers 2.0" in numbers
    requests = sum(map(float, re.findall(r"arcforge_router_requests_total\{worker=\".*\"\} (\S+)", numbers)))
    assert requests == sum(each["requests"] for each in router.get("/workers").json()["workers"])


def test_an_event_stream_passes_byte_by_byte(router: httpx.Client, pair: list[ToyWorker]) -> None:
    times, pieces = [], []
    with router.stream("POST", "/stream", json={"events": 5, "seconds": 0.1}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for piece in response.iter_raw():
            times.append(time.monotonic())
            pieces.append(piece)
    assert times[-1] - times[0] > 0.3
    worker = next(each.port for each in pair if str(each.port).encode() in pieces[0])
    assert b"".join(pieces) == b"".join(
        f'data: {{"worker": {worker}, "i": {i}}}\n\n'.encode() for i in range(5)
    ) + b"data: [DONE]\n\n"  # fmt: skip


@pytest.mark.parametrize(("path", "body"), [("/generate", {"seconds": 9}), ("/stream", {"events": 90, "seconds": 0.1})])
def test_a_client_that_hangs_up_is_told_to_the_worker(
    router: httpx.Client, pair: list[ToyWorker], path: str, body: dict[str, Any]
) -> None:
    content = json.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection((router.base_url.host, router.base_url.port or 0), timeout=10) as connection:
        connection.sendall((head + content).encode())
        until(lambda: sum(each["in_flight"] for each in router.get("/workers").json()["workers"]) == 1)
        if path == "/stream":
            assert connection.recv(10) == b"HTTP/1.1 2"
        else:
            until(lambda: any(worker.state["running"] for worker in pair))
    until(lambda: sum(worker.state["left"] for worker in pair) == 1)
    assert all(each["in_flight"] == 0 for each in router.get("/workers").json()["workers"])


def test_no_request_waits_for_ever_and_none_is_too_large(pair: list[ToyWorker]) -> None:
    with routed(pair, RouterOptions(timeout=0.5, max_body_bytes=1000)) as router:
        response = router.post("/generate", json={"seconds": 9})
        assert response.status_code == 504 and response.json()["error"]["type"] == "timeout"
        text = router.post("/stream", json={"events": 2, "seconds": 9}).text
        assert '"i": 0' in text and json.loads(text.split("data: ")[-1])["error"]["code"] == 504
        for path in ("/generate", "/pause", "/workers"):
            assert router.post(path, content=b"x" * (1 << 17)).status_code == 413
        with socket.create_connection((router.base_url.host, router.base_url.port or 0), timeout=10) as connection:
            connection.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
            assert connection.recv(100).startswith(b"HTTP/1.1 504")


def test_a_dead_worker_is_taken_out_and_comes_back(router: httpx.Client, pair: list[ToyWorker]) -> None:
    session = session_of(router, pair[0])
    pair[0].kill()
    assert generate(router, session)["worker"] == pair[1].port
    until(lambda: not listed(router, pair[0])["healthy"])
    assert "no connection" in listed(router, pair[0])["problem"]
    assert router.get("/health").json() == {"status": "ok", "healthy": 1, "workers": 2}
    pair[1].set(health=503)
    until(lambda: router.get("/health").status_code == 503)
    response = router.post("/generate", json={})
    assert response.status_code == 503
    assert response.json() == {"error": {"message": "no worker is healthy", "type": "no_worker", "code": 503}}
    pair[1].set(health=200)
    pair[0].start()
    until(lambda: router.get("/health").json().get("healthy") == 2)
    assert generate(router, session)["worker"] == pair[0].port


def test_kill_9_under_load_loses_no_request(router: httpx.Client, pair: list[ToyWorker]) -> None:
    async def client(number: int, results: list[int], session: aiohttp.ClientSession) -> None:
        while time.monotonic() < end:
            async with session.post(
                "/generate", json={"seconds": 0.05}, headers={"x-session-id": str(number)}
            ) as answer:
                results.append(answer.status)
                await answer.read()

    async def scenario() -> list[int]:
        results: list[int] = []
        async with aiohttp.ClientSession(str(router.base_url), timeout=aiohttp.ClientTimeout(10)) as session:
            clients = [asyncio.create_task(client(i, results, session)) for i in range(40)]
            await asyncio.sleep(0.6)
            pair[0].kill()
            await asyncio.gather(*clients)
        return results

    end = time.monotonic() + 1.5
    statuses = Counter(asyncio.run(scenario()))
    assert set(statuses) <= {200, 503} and statuses[200] > 100
    assert statuses[503] == 0, "the other worker was healthy all the time"
    assert "arcforge_router_retries_total 0.0" not in router.get("/metrics").text


def test_a_request_that_kills_its_workers_ends_with_503(router: httpx.Client, pair: list[ToyWorker]) -> None:
    response = router.post("/generate", json={"die": True})
    assert response.status_code == 503 and response.json()["error"]["type"] == "no_worker"
    assert all(worker.url in response.text for worker in pair)


def test_a_worker_that_declines_is_passed_over(router: httpx.Client, pair: list[ToyWorker]) -> None:
    session = session_of(router, pair[0])
    pair[0].set(refuse={"/generate": 503})
    assert generate(router, session)["worker"] == pair[1].port
    pair[1].set(refuse={"/generate": 503})
    refused = router.post("/generate", json={}, headers={"x-session-id": session})
    assert refused.status_code == 503 and refused.json() == {"refused by": pair[1].port}
    pair[0].set(refuse={"/generate": 429})  # any other status is the answer
    assert router.post("/generate", json={}, headers={"x-session-id": session}).status_code == 429


@pytest.mark.parametrize("torn", [False, True])
def test_a_stream_whose_worker_dies_ends_with_an_error(router: httpx.Client, pair: list[ToyWorker], torn: bool) -> None:
    body = {"events": 5, "seconds": 0.05, "die_after": 2, "torn": torn}
    received = b""
    try:
        with router.stream("POST", "/stream", json=body) as response:
            for piece in response.iter_raw():
                received += piece
    except httpx.RemoteProtocolError:
        assert torn and received.endswith(b"data: half")
        return
    assert not torn
    *events, error, end = received.decode().split("\n\n")
    assert [json.loads(event.removeprefix("data: "))["i"] for event in events] == [0, 1] and end == ""
    assert json.loads(error.removeprefix("data: "))["error"]["type"] == "worker_failed"


def test_a_hung_workers_request_is_answered_by_another(router: httpx.Client, pair: list[ToyWorker]) -> None:
    session = session_of(router, pair[0])
    assert pair[0].process is not None
    pair[0].process.send_signal(signal.SIGSTOP)
    try:
        assert generate(router, session)["worker"] == pair[1].port
        assert "no answer within" in listed(router, pair[0])["problem"]
    finally:
        pair[0].process.send_signal(signal.SIGCONT)
    until(lambda: listed(router, pair[0])["healthy"])


def test_workers_join_and_leave_at_run_time(pair: list[ToyWorker]) -> None:
    with routed(pair[:1]) as router:
        added = router.post("/workers", json={"url": pair[1].url + "/"}).json()
        assert added["url"] == pair[1].url and added["healthy"]
        assert {generate(router, str(i))["worker"] for i in range(20)} == {worker.port for worker in pair}
        with ThreadPoolExecutor() as pool:
            slow = pool.submit(generate, router, session_of(router, pair[0]), seconds=0.5)
            until(lambda: listed(router, pair[0])["in_flight"])
            assert router.request("DELETE", "/workers", json={"url": pair[0].url}).json()["in_flight"] == 1
            assert {generate(router, str(i))["worker"] for i in range(20)} == {pair[1].port}
            assert slow.result()["worker"] == pair[0].port
        assert router.request("DELETE", "/workers", json={"url": pair[0].url}).status_code == 404
        for bad in (b"", b"[]", b'{"url": 3}', b'{"url": "nowhere"}', b'{"url": "http://h:99999"}'):
            assert router.post("/workers", content=bad).status_code == 400
