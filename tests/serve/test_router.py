"""The router before real worker processes: sessions, deaths, streams, control calls to all, its own start and end."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import aiohttp
import httpx
import pytest
from toy_worker import FRESH, ToyWorker

from arcforge.core.errors import UserError
from arcforge.launch.local import free_port
from arcforge.serve.hash_ring import HashRing
from arcforge.serve.listener import bind, server
from arcforge.serve.router import RouterOptions, build_router
from arcforge.serve.router_http import Incoming
from arcforge.serve.router_sessions import session_key
from arcforge.serve.router_workers import EXCESS, WorkerPool

QUICK = RouterOptions(timeout=15, beat=0.1, beat_timeout=0.3, beats_missed=2)
ROUTE = [sys.executable, "-c", "from arcforge.cli.main import app; app(prog_name='arcforge')", "route"]


@contextmanager
def routed(workers: Sequence[ToyWorker], options: RouterOptions = QUICK) -> Iterator[httpx.Client]:
    """The router in a thread, on a real socket."""
    ready = threading.Event()
    running = server(build_router([worker.url for worker in workers], options), None, ready.set)
    sock = bind("127.0.0.1", 0)
    thread = threading.Thread(target=lambda: asyncio.run(running.serve([sock])), daemon=True)
    thread.start()
    assert ready.wait(10)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, timeout=20, trust_env=False) as http:
            yield http
    finally:
        running.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def processes() -> Iterator[list[ToyWorker]]:
    workers = [ToyWorker(free_port()) for _ in range(2)]
    for worker in workers:
        worker.start()
    yield workers
    for worker in workers:
        worker.kill()


@pytest.fixture
def pair(processes: list[ToyWorker]) -> list[ToyWorker]:
    """Two workers that are alive and remember nothing; a test may kill them."""
    for worker in processes:
        if worker.process is None or worker.process.poll() is not None:
            worker.start()
    for worker in processes:
        worker.ready().set(**FRESH)
    return processes


@pytest.fixture
def http(pair: list[ToyWorker]) -> Iterator[httpx.Client]:
    with routed(pair) as client:
        yield client


def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def generate(http: httpx.Client, session: str = "", **body: Any) -> dict[str, Any]:
    response = http.post("/generate", json=body, headers={"X-Session-ID": session} if session else {})
    assert response.status_code == 200, response.text
    return response.json()


def listed(http: httpx.Client, worker: ToyWorker) -> dict[str, Any]:
    return next(each for each in http.get("/workers").json()["workers"] if each["url"] == worker.url)


def session_of(http: httpx.Client, worker: ToyWorker) -> str:
    """The name of a session whose requests go to `worker`."""
    return next(name for name in map(str, range(100)) if generate(http, name)["worker"] == worker.port)


# Which worker: the ring and the pool.


def test_a_change_of_nodes_moves_only_their_share_of_the_keys() -> None:
    keys = [f"session-{i}" for i in range(4000)]
    ring = HashRing("abcd")
    before = {key: next(ring.order(key)) for key in keys}
    assert all(800 < count < 1200 for count in Counter(before.values()).values())
    ring.add("e")
    after = {key: next(ring.order(key)) for key in keys}
    moved = {key for key in keys if after[key] != before[key]}
    assert {after[key] for key in moved} == {"e"} and 600 < len(moved) < 1000
    ring.remove("e")
    assert {key: next(ring.order(key)) for key in keys} == before
    ring.remove("b")
    assert all(next(ring.order(key)) == before[key] for key in keys if before[key] != "b")


def test_every_node_is_on_a_keys_way_once_and_the_same_in_every_process() -> None:
    assert all(sorted(HashRing("cab").order(str(i))) == ["a", "b", "c"] for i in range(50))
    assert list(HashRing("cab").order("x")) == list(HashRing("bca").order("x"))
    assert list(HashRing().order("x")) == []


def pool_of(count: int) -> WorkerPool:
    pool = WorkerPool()
    for i in range(count):
        pool.add(f"http://w{i}").beat()
    return pool


def test_a_session_leaves_an_overloaded_worker_and_stays_where_it_went() -> None:
    pool = pool_of(3)
    home = pool.choose("s")
    assert home is not None and pool.choose("s") is home
    home.in_flight = EXCESS - 1
    assert pool.choose("s") is home and pool.rebalanced == 0
    home.in_flight = EXCESS
    other = pool.choose("s")
    assert other is not None and other is not home and pool.rebalanced == 1
    home.in_flight = 0
    assert pool.choose("s") is other and pool.rebalanced == 1
    for worker in pool:
        worker.in_flight = 40
    other.in_flight = 40 + EXCESS  # many more, but not half as many again
    assert pool.choose("s") is other
    other.give_up("gone")
    assert pool.choose("s") is home
    other.beat()
    assert pool.choose("s") is other


def test_without_a_session_the_least_loaded_worker_is_next() -> None:
    pool = pool_of(3)
    assert len({worker.url for _ in range(3) if (worker := pool.choose(""))}) == 3
    loads = dict(zip(pool, (2, 1, 2)))
    for worker, load in loads.items():
        worker.in_flight = load
    assert [pool.choose("") for _ in range(2)] == [list(pool)[1]] * 2
    for worker in pool:
        worker.give_up("gone")
    assert pool.choose("") is None and pool.choose("s") is None


RID = "0123456789ab"


@pytest.mark.parametrize(
    ("headers", "body", "key"),
    [
        ({"X-Session-ID": "a", "x-smg-routing-key": "b"}, {"user": "c"}, "a"),
        ({"X-SMG-Routing-Key": "b"}, {"user": "c"}, "b"),
        ({}, {"session_id": "a", "user": "c", "rid": f"r-{RID}-1"}, "a"),
        ({}, {"user": "c"}, "c"),
        ({}, {"rid": f"task-7/é-{RID}-12"}, "task-7/é"),
        ({}, {"rid": f"request-{RID}-12"}, ""),
        ({}, {"rid": "550e8400-e29b-41d4-a716-446655440000"}, ""),
        ({}, {"user": None, "session_id": ["x"]}, ""),
        ({}, [1], ""),
    ],
)
def test_the_session_of_a_request(headers: dict[str, str], body: Any, key: str) -> None:
    assert session_key(Incoming("POST", "/generate", tuple(headers.items()), json.dumps(body).encode())) == key


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"{" * 100_000, b'{"user": "' + b"x" * (2 << 20) + b'"}'])
def test_a_body_that_tells_no_session(body: bytes) -> None:
    assert session_key(Incoming("POST", "/generate", (), body)) == ""


# Requests and answers.


def test_requests_and_answers_pass_as_they_are(http: httpx.Client) -> None:
    headers = [("x-a", "1"), ("x-a", "2"), ("user-agent", "mine"), ("connection", "x-private"), ("x-private", "1")]
    response = http.request("PATCH", "/v1/a%2Fb//c?q=%20x&q=2", headers=headers, content=b"\x00\xff" * 10)
    said = response.json()
    assert response.status_code == 418
    assert said["method"] == "PATCH" and said["target"] == "/v1/a%2Fb//c?q=%20x&q=2"
    assert said["body"].encode("latin-1") == b"\x00\xff" * 10
    got = [(name, value) for name, value in said["headers"] if name.startswith(("x-", "user-agent"))]
    assert got == [("x-a", "1"), ("x-a", "2"), ("user-agent", "mine")]
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"] and response.headers["x-odd"] == "yes"
    assert http.get("/v1/models").json()["target"] == "/v1/models?"
    assert http.head("/v1/models").status_code == 418
    assert http.request("DELETE", "/x", content=b"y").json()["body"] == "y"


def test_a_session_stays_on_its_worker(http: httpx.Client, pair: list[ToyWorker]) -> None:
    homes = {str(i): generate(http, str(i))["worker"] for i in range(30)}
    assert set(homes.values()) == {worker.port for worker in pair}
    for session, home in homes.items():
        assert generate(http, session)["worker"] == home
        assert generate(http, session_id=session)["worker"] == home
    counts = {each["url"]: each["requests"] for each in http.get("/workers").json()["workers"]}
    assert counts == {worker.url: 3 * list(homes.values()).count(worker.port) for worker in pair}


def test_a_busy_worker_hands_its_session_over(http: httpx.Client, pair: list[ToyWorker]) -> None:
    session = session_of(http, pair[0])
    with ThreadPoolExecutor(EXCESS) as pool:
        slow = [pool.submit(generate, http, session, seconds=0.7) for _ in range(EXCESS)]
        until(lambda: listed(http, pair[0])["in_flight"] == EXCESS)
        assert generate(http, session)["worker"] == pair[1].port
        assert all(each.result()["worker"] == pair[0].port for each in slow)
    assert generate(http, session)["worker"] == pair[1].port
    numbers = http.get("/metrics").text
    assert "arcforge_router_rebalanced_total 1.0" in numbers
    assert "arcforge_router_healthy_workers 2.0" in numbers
    requests = sum(map(float, re.findall(r"arcforge_router_requests_total\{worker=\"http.*\"\} (\S+)", numbers)))
    assert requests == sum(each["requests"] for each in http.get("/workers").json()["workers"])


def test_an_event_stream_passes_byte_by_byte(http: httpx.Client, pair: list[ToyWorker]) -> None:
    times, pieces = [], []
    with http.stream("POST", "/stream", json={"events": 5, "seconds": 0.1}) as response:
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
    http: httpx.Client, pair: list[ToyWorker], path: str, body: dict[str, Any]
) -> None:
    content = json.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection((http.base_url.host, http.base_url.port or 0)) as connection:
        connection.sendall((head + content).encode())
        until(lambda: sum(each["in_flight"] for each in http.get("/workers").json()["workers"]) == 1)
        if path == "/stream":
            assert connection.recv(10) == b"HTTP/1.1 2"
        else:
            until(lambda: any(worker.state["running"] for worker in pair))
    until(lambda: sum(worker.state["left"] for worker in pair) == 1)
    assert all(each["in_flight"] == 0 for each in http.get("/workers").json()["workers"])


def test_no_request_waits_for_ever_and_none_is_too_large(pair: list[ToyWorker]) -> None:
    with routed(pair, RouterOptions(timeout=0.5, max_body_bytes=1000)) as http:
        response = http.post("/generate", json={"seconds": 9})
        assert response.status_code == 504 and response.json()["error"]["type"] == "timeout"
        text = http.post("/stream", json={"events": 2, "seconds": 9}).text
        assert '"i": 0' in text and json.loads(text.split("data: ")[-1])["error"]["code"] == 504
        for path in ("/generate", "/pause", "/workers"):
            assert http.post(path, content=b"x" * (1 << 17)).status_code == 413
        with socket.create_connection((http.base_url.host, http.base_url.port or 0)) as connection:
            connection.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
            assert connection.recv(100).startswith(b"HTTP/1.1 504")


# Workers that die, hang and come back.


def test_a_dead_worker_is_taken_out_and_comes_back(http: httpx.Client, pair: list[ToyWorker]) -> None:
    session = session_of(http, pair[0])
    pair[0].kill()
    assert generate(http, session)["worker"] == pair[1].port
    until(lambda: not listed(http, pair[0])["healthy"])
    assert "no connection" in listed(http, pair[0])["problem"]
    assert http.get("/health").json() == {"status": "ok", "healthy": 1, "workers": 2}
    pair[1].set(health=503)
    until(lambda: http.get("/health").status_code == 503)
    response = http.post("/generate", json={})
    assert response.status_code == 503
    assert response.json() == {"error": {"message": "no worker is healthy", "type": "no_worker", "code": 503}}
    pair[1].set(health=200)
    pair[0].start()
    until(lambda: http.get("/health").json().get("healthy") == 2)
    assert generate(http, session)["worker"] == pair[0].port


def test_kill_9_under_load_loses_no_request(http: httpx.Client, pair: list[ToyWorker]) -> None:
    async def client(number: int, results: list[int], session: aiohttp.ClientSession) -> None:
        while time.monotonic() < end:
            async with session.post(
                "/generate", json={"seconds": 0.05}, headers={"x-session-id": str(number)}
            ) as answer:
                results.append(answer.status)
                await answer.read()

    async def scenario() -> list[int]:
        results: list[int] = []
        async with aiohttp.ClientSession(str(http.base_url), timeout=aiohttp.ClientTimeout(10)) as session:
            clients = [asyncio.create_task(client(i, results, session)) for i in range(40)]
            await asyncio.sleep(0.6)
            pair[0].kill()
            await asyncio.gather(*clients)
        return results

    end = time.monotonic() + 1.5
    statuses = Counter(asyncio.run(scenario()))
    assert set(statuses) <= {200, 503} and statuses[200] > 100
    assert statuses[503] == 0, "the other worker was healthy all the time"
    assert "arcforge_router_retries_total 0.0" not in http.get("/metrics").text


def test_a_request_that_kills_its_workers_ends_with_503(http: httpx.Client, pair: list[ToyWorker]) -> None:
    response = http.post("/generate", json={"die": True})
    assert response.status_code == 503 and response.json()["error"]["type"] == "no_worker"
    assert all(worker.url in response.text for worker in pair)


def test_a_worker_that_declines_is_passed_over(http: httpx.Client, pair: list[ToyWorker]) -> None:
    session = session_of(http, pair[0])
    pair[0].set(refuse={"/generate": 503})
    assert generate(http, session)["worker"] == pair[1].port
    pair[1].set(refuse={"/generate": 503})
    refused = http.post("/generate", json={}, headers={"x-session-id": session})
    assert refused.status_code == 503 and refused.json() == {"refused by": pair[1].port}
    pair[0].set(refuse={"/generate": 429})  # any other status is the answer
    assert http.post("/generate", json={}, headers={"x-session-id": session}).status_code == 429


@pytest.mark.parametrize("torn", [False, True])
def test_a_stream_whose_worker_dies_ends_with_an_error(http: httpx.Client, pair: list[ToyWorker], torn: bool) -> None:
    body = {"events": 5, "seconds": 0.05, "die_after": 2, "torn": torn}
    received = b""
    try:
        with http.stream("POST", "/stream", json=body) as response:
            for piece in response.iter_raw():
                received += piece
    except httpx.RemoteProtocolError:
        assert torn and received.endswith(b"data: half")
        return
    assert not torn
    *events, error, end = received.decode().split("\n\n")
    assert [json.loads(event.removeprefix("data: "))["i"] for event in events] == [0, 1] and end == ""
    assert json.loads(error.removeprefix("data: "))["error"]["type"] == "worker_failed"


def test_a_hung_workers_request_is_answered_by_another(http: httpx.Client, pair: list[ToyWorker]) -> None:
    session = session_of(http, pair[0])
    assert pair[0].process is not None
    pair[0].process.send_signal(signal.SIGSTOP)
    try:
        assert generate(http, session)["worker"] == pair[1].port
        assert "no answer within" in listed(http, pair[0])["problem"]
    finally:
        pair[0].process.send_signal(signal.SIGCONT)
    until(lambda: listed(http, pair[0])["healthy"])


def test_workers_join_and_leave_at_run_time(pair: list[ToyWorker]) -> None:
    with routed(pair[:1]) as http:
        added = http.post("/workers", json={"url": pair[1].url + "/"}).json()
        assert added["url"] == pair[1].url and added["healthy"]
        assert {generate(http, str(i))["worker"] for i in range(20)} == {worker.port for worker in pair}
        with ThreadPoolExecutor() as pool:
            slow = pool.submit(generate, http, session_of(http, pair[0]), seconds=0.5)
            until(lambda: listed(http, pair[0])["in_flight"])
            assert http.request("DELETE", "/workers", json={"url": pair[0].url}).json()["in_flight"] == 1
            assert {generate(http, str(i))["worker"] for i in range(20)} == {pair[1].port}
            assert slow.result()["worker"] == pair[0].port
        assert http.request("DELETE", "/workers", json={"url": pair[0].url}).status_code == 404
        for bad in (b"", b"[]", b'{"url": 3}', b'{"url": "nowhere"}', b'{"url": "http://h:99999"}'):
            assert http.post("/workers", content=bad).status_code == 400


# Control calls to all.


def test_a_control_call_reaches_every_worker(http: httpx.Client, pair: list[ToyWorker]) -> None:
    answer = http.post("/update_weights?wait=1", json={"folder": "f", "version": 3})
    assert answer.status_code == 200 and answer.json() == {
        "version": 3,
        "workers": {w.url: {"status": 200, "answer": {"version": 3, "by": w.port}} for w in pair},
    }
    assert http.post("/pause/", json={"mode": "keep"}).json()["paused"] == "keep"
    assert http.post("/abort", json={"rid": "r"}).status_code == 200
    for worker in pair:
        assert worker.state["version"] == 3 and worker.state["paused"] == "keep"
        assert worker.state["calls"][0] == ["/update_weights", "wait=1", {"folder": "f", "version": 3}]


def test_an_update_that_nobody_did_changes_nothing(http: httpx.Client, pair: list[ToyWorker]) -> None:
    for worker in pair:
        worker.set(refuse={"/update_weights": 400})
    response = http.post("/update_weights", json={"version": 3})
    assert response.status_code == 502
    assert response.json()["error"]["message"].startswith("/update_weights: 2 of 2 workers did not do it: http")
    assert http.get("/health").json()["healthy"] == 2


def test_a_worker_that_missed_an_update_is_out_until_it_did_it(http: httpx.Client, pair: list[ToyWorker]) -> None:
    pair[0].set(refuse={"/update_weights": 400})
    response = http.post("/update_weights", json={"version": 3})
    assert response.status_code == 502
    told = response.json()
    assert f"{pair[0].url}: 400: /update_weights is refused" in told["error"]["message"]
    assert pair[1].url not in told["error"]["message"]
    assert told["workers"][pair[1].url] == {"status": 200, "answer": {"version": 3, "by": pair[1].port}}
    assert {generate(http, str(i))["version"] for i in range(20)} == {3}
    out = listed(http, pair[0])
    assert not out["healthy"] and "/update_weights is refused" in out["problem"]
    pair[0].set(refuse={})
    until(lambda: listed(http, pair[0])["healthy"])
    assert pair[0].state["version"] == 3
    assert {generate(http, str(i))["version"] for i in range(20)} == {3}


def test_a_restarted_worker_never_answers_with_old_weights(http: httpx.Client, pair: list[ToyWorker]) -> None:
    assert http.post("/update_weights", json={"version": 3}).status_code == 200
    assert http.post("/pause", json={"mode": "keep"}).status_code == 200
    pair[0].kill()
    until(lambda: not listed(http, pair[0])["healthy"])
    late = http.post("/update_weights", json={"version": 4})
    assert late.status_code == 503 and f"{pair[0].url}: unhealthy: no connection" in late.json()["error"]["message"]
    assert late.json()["workers"][pair[1].url]["status"] == 200
    resumed = http.post("/resume", json={})
    assert resumed.status_code == 200 and "unhealthy" in resumed.json()["workers"][pair[0].url]["problem"]
    pair[0].start()
    seen: list[tuple[int, int]] = []

    def back() -> bool:
        for session in map(str, range(10)):
            answer = generate(http, session)
            seen.append((answer["worker"], answer["version"]))
        return pair[0].port in dict(seen)

    until(back)
    assert {version for _, version in seen} == {4}
    assert [call[0] for call in pair[0].state["calls"]] == ["/update_weights", "/resume"]


def test_an_update_and_a_return_at_the_same_time_end_with_the_new_weights(
    http: httpx.Client, pair: list[ToyWorker]
) -> None:
    assert http.post("/update_weights", json={"version": 3}).status_code == 200
    pair[0].set(health=503)
    until(lambda: not listed(http, pair[0])["healthy"])
    for worker in pair:
        worker.set(update_s=0.3, health=200)
    until(lambda: len(pair[0].state["calls"]) == 2)  # version 3 is being told again
    assert http.post("/update_weights", json={"version": 4}).status_code == 200
    until(lambda: listed(http, pair[0])["healthy"])
    assert [call[2]["version"] for call in pair[0].state["calls"]] == [3, 3, 4]
    assert {generate(http, str(i))["version"] for i in range(20)} == {4}


def test_what_is_told_again_never_overtakes_a_newer_call(http: httpx.Client, pair: list[ToyWorker]) -> None:
    pair[0].set(refuse={"/update_weights": 400})
    assert http.post("/update_weights", json={"version": 3}).status_code == 502
    until(lambda: len(pair[0].state["calls"]) >= 4)  # the next try is 0.4 s away
    pair[1].set(update_s=0.8)
    pair[0].set(refuse={})
    assert http.post("/update_weights", json={"version": 4}).status_code == 200
    assert pair[0].state["version"] == 4
    assert listed(http, pair[0])["healthy"]


# Its own start and end.


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`arcforge route` as a process, with its address."""
    with subprocess.Popen([*ROUTE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            word, url = running.stdout.readline().split()
            assert word == "ready"
            yield running, url
        finally:
            running.kill()


def test_sigterm_finishes_open_requests_and_exits_0(pair: list[ToyWorker]) -> None:
    with process("--workers", pair[0].url, pair[1].url, "--port", "0") as (running, url), ThreadPoolExecutor() as pool:
        with httpx.Client(base_url=url, timeout=20, trust_env=False) as http:
            assert http.get("/health").json()["healthy"] == 2
            slow = pool.submit(generate, http, seconds=1.2)
            stream = pool.submit(http.post, "/stream", json={"events": 12, "seconds": 0.1})
            until(lambda: sum(each["in_flight"] for each in http.get("/workers").json()["workers"]) == 2)
            running.send_signal(signal.SIGTERM)
            time.sleep(0.4)
            with pytest.raises(httpx.ConnectError):
                httpx.get(url + "/health", trust_env=False)
            assert slow.result()["version"] == 0
            assert stream.result().text.endswith("[DONE]\n\n")
        assert running.wait(10) == 0
        assert running.stderr is not None and running.stderr.read() == ""


def test_the_grace_period_ends(pair: list[ToyWorker]) -> None:
    with (
        process("--workers", pair[0].url, "--port", "0", "--grace", "1") as (running, url),
        ThreadPoolExecutor() as pool,
    ):
        slow = pool.submit(httpx.post, url + "/generate", json={"seconds": 9}, timeout=20, trust_env=False)
        until(lambda: pair[0].state["running"])
        running.send_signal(signal.SIGTERM)
        answer = slow.result()
        assert answer.status_code == 503 and answer.json()["error"]["type"] == "stopping"
        assert running.wait(5) == 0
        until(lambda: pair[0].state["left"] == 1)
        assert running.stderr is not None and "Traceback" not in running.stderr.read()


def test_a_bad_address_is_told_in_one_line() -> None:
    done = subprocess.run(
        [*ROUTE, "--workers", "127.0.0.1:8001"], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 2 and done.stdout == ""
    assert "127.0.0.1:8001" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        ([], "no workers"),
        (["http://a:1", "http://a:1/"], "named twice"),
        *(
            ([url], "an address such as")
            for url in ("", "a", "ftp://a", "http://", "http://a:x", "http://a b", "http://a?b")
        ),
    ],
)
def test_bad_workers(workers: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        build_router(workers)
    assert "\n" not in str(error.value)
