"""Two worker processes for the tests of the router, and a router before them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import toy_worker
from toy_fleet import ToyWorker, routed

from arcforge.launch.local import free_port


@pytest.fixture(scope="session")
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
        worker.ready().set(**toy_worker.FRESH)
    return processes


@pytest.fixture
def router(pair: list[ToyWorker]) -> Iterator[httpx.Client]:
    with routed(pair) as client:
        yield client
