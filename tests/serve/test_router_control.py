"""Control calls to every worker, and no worker that missed one; the router as a process: its start and its end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from toy_fleet import DIRECT, ToyWorker, generate, listed, until

from arcforge.core.errors import UserError
from arcforge.serve.router import build_router

ROUTE = [sys.executable, "-c", "from arcforge.cli.main import app; app(prog_name='arcforge')", "route"]


def test_a_control_call_reaches_every_worker(router: httpx.Client, pair: list[ToyWorker]) -> None:
    answer = router.post("/update_weights?wait=1", json={"folder": "f", "version": 3})
    assert answer.status_code == 200 and answer.json() == {
        "version": 3,
        "workers": {w.url: {"status": 200, "answer": {"version": 3, "by": w.port}} for w in pair},
    }
    assert router.post("/pause/", json={"mode": "keep"}).json()["paused"] == "keep"
    assert router.post("/abort", json={"rid": "r"}).status_code == 200
    for worker in pair:
        assert worker.state["version"] == 3 and worker.state["paused"] == "keep"
        assert worker.state["calls"][0] == ["/update_weights", "wait=1", {"folder": "f", "version": 3}]


def test_an_update_that_nobody_did_changes_nothing(router: httpx.Client, pair: list[ToyWorker]) -> None:
    for worker in pair:
        worker.set(refuse={"/update_weights": 400})
    response = router.post("/update_weights", json={"version": 3})
    assert response.status_code == 502
    assert response.json()["error"]["message"].startswith("/update_weights: 2 of 2 workers did not do it: ")
    assert router.get("/health").json()["healthy"] == 2


def test_a_worker_that_missed_an_update_is_out_until_it_did_it(router: httpx.Client, pair: list[ToyWorker]) -> None:
    pair[0].set(refuse={"/update_weights": 400})
    response = router.post("/update_weights", json={"version": 3})
    assert response.status_code == 502
    told = response.json()
    assert f"{pair[0].url}: 400: /update_weights is refused" in told["error"]["message"]
    assert pair[1].url not in told["error"]["message"]
    assert told["workers"][pair[1].url] == {"status": 200, "answer": {"version": 3, "by": pair[1].port}}
    assert {generate(router, str(i))["version"] for i in range(20)} == {3}
    out = listed(router, pair[0])
    assert not out["healthy"] and "/update_weights is refused" in out["problem"]
    pair[0].set(refuse={})
    until(lambda: listed(router, pair[0])["healthy"])
    assert pair[0].state["version"] == 3
    assert {generate(router, str(i))["version"] for i in range(20)} == {3}


def test_a_restarted_worker_never_answers_with_old_weights(router: httpx.Client, pair: list[ToyWorker]) -> None:
    assert router.post("/update_weights", json={"version": 3}).status_code == 200
    assert router.post("/pause", json={"mode": "keep"}).status_code == 200
    pair[0].kill()
    until(lambda: not listed(router, pair[0])["healthy"])
    late = router.post("/update_weights", json={"version": 4})
    assert late.status_code == 503 and f"{pair[0].url}: unhealthy: no connection" in late.json()["error"]["message"]
    assert late.json()["workers"][pair[1].url]["status"] == 200
    resumed = router.post("/resume", json={})
    assert resumed.status_code == 200 and "unhealthy" in resumed.json()["workers"][pair[0].url]["problem"]
    pair[0].start()
    seen: list[tuple[int, int]] = []

    def back() -> bool:
        for session in map(str, range(10)):
            answer = generate(router, session)
            seen.append((answer["worker"], answer["version"]))
        return pair[0].port in dict(seen)

    until(back)
    assert {version for _, version in seen} == {4}
    assert [call[0] for call in pair[0].state["calls"]] == ["/update_weights", "/resume"]


def test_an_update_and_a_return_at_the_same_time_end_with_the_new_weights(
    router: httpx.Client, pair: list[ToyWorker]
) -> None:
    assert router.post("/update_weights", json={"version": 3}).status_code == 200
    pair[0].set(health=503)
    until(lambda: not listed(router, pair[0])["healthy"])
    for worker in pair:
        worker.set(update_s=0.3, health=200)
    until(lambda: len(pair[0].state["calls"]) == 2)  # version 3 is being told again
    assert router.post("/update_weights", json={"version": 4}).status_code == 200
    until(lambda: listed(router, pair[0])["healthy"])
    assert [call[2]["version"] for call in pair[0].state["calls"]] == [3, 3, 4]
    assert {generate(router, str(i))["version"] for i in range(20)} == {4}


def test_what_is_told_again_never_overtakes_a_newer_call(router: httpx.Client, pair: list[ToyWorker]) -> None:
    pair[0].set(refuse={"/update_weights": 400})
    assert router.post("/update_weights", json={"version": 3}).status_code == 502
    until(lambda: len(pair[0].state["calls"]) >= 4)  # the next try is 0.4 s away
    pair[1].set(update_s=0.8)
    pair[0].set(refuse={})
    assert router.post("/update_weights", json={"version": 4}).status_code == 200
    assert pair[0].state["version"] == 4
    assert listed(router, pair[0])["healthy"]


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


def refused(url: str) -> bool:
    try:
        DIRECT.get(url + "/health")
    except httpx.ConnectError:
        return True
    return False


def test_sigterm_finishes_open_requests_and_exits_0(pair: list[ToyWorker]) -> None:
    with process("--workers", pair[0].url, pair[1].url, "--port", "0") as (running, url), ThreadPoolExecutor() as pool:
        with httpx.Client(base_url=url, timeout=20, trust_env=False, verify=False) as router:
            assert router.get("/health").json()["healthy"] == 2
            slow = pool.submit(generate, router, seconds=1.2)
            stream = pool.submit(router.post, "/stream", json={"events": 12, "seconds": 0.1})
            until(lambda: sum(each["in_flight"] for each in router.get("/workers").json()["workers"]) == 2)
            running.send_signal(signal.SIGTERM)
            until(lambda: refused(url))
            assert not slow.done()
            assert slow.result()["version"] == 0
            assert stream.result().text.endswith("[DONE]\n\n")
        assert running.wait(10) == 0
        assert running.stderr is not None and running.stderr.read() == ""


def test_the_grace_period_ends(pair: list[ToyWorker]) -> None:
    with (
        process("--workers", pair[0].url, "--port", "0", "--grace", "1") as (running, url),
        ThreadPoolExecutor() as pool,
    ):
        slow = pool.submit(
            httpx.post, url + "/generate", json={"seconds": 9}, timeout=20, trust_env=False, verify=False
        )
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
