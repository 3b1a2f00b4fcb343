"""Which worker a request goes to: the ring, the session of a request, and who is too busy."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from arcforge.serve.hash_ring import HashRing
from arcforge.serve.router_http import Incoming
from arcforge.serve.router_sessions import session_key
from arcforge.serve.router_workers import EXCESS, WorkerPool


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
