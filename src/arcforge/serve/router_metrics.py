"""The router's numbers for Prometheus, read from the pool when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from arcforge.serve.router_workers import WorkerPool

PREFIX = "arcforge_router_"


class PoolCollector(Collector):
    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        yield self._counter("requests", "Requests sent on, by worker.")
        yield self._counter("failures", "Requests that a worker failed to answer, by worker.")
        yield CounterMetricFamily(f"{PREFIX}retries", "Requests tried again.", value=self._pool.retries)
        yield CounterMetricFamily(
            f"{PREFIX}rebalanced", "Sessions moved off busy workers.", value=self._pool.rebalanced
        )
        yield CounterMetricFamily(f"{PREFIX}handed_off", "Prompts computed elsewhere.", value=self._pool.handed_off)
        yield CounterMetricFamily(
            f"{PREFIX}handoffs_failed", "Prompts that no prefill worker computed.", value=self._pool.handoffs_failed
        )
        in_flight = GaugeMetricFamily(f"{PREFIX}in_flight", "Requests not yet answered, by worker.", labels=["worker"])
        for worker in self._pool:
            in_flight.add_metric([worker.url], worker.in_flight)
        yield in_flight
        healthy = [self._pool.ready(worker) for worker in self._pool]
        yield GaugeMetricFamily(f"{PREFIX}workers", "Workers, healthy or not.", value=len(healthy))
        yield GaugeMetricFamily(f"{PREFIX}healthy_workers", "Workers that get requests.", value=sum(healthy))

    def _counter(self, name: str, help: str) -> Metric:
        counter = CounterMetricFamily(PREFIX + name, help, labels=["worker"])
        for worker in self._pool:
            counter.add_metric([worker.url], getattr(worker, name))
        return counter


def registry(pool: WorkerPool) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(PoolCollector(pool))
    return made
