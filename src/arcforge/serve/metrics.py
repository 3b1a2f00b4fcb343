"""What /metrics tells: counters and gauges read at each scrape, histograms of what requests waited for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from arcforge.serve.engine import Health, Output

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """One registry per server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._rows: list[Metric] = []
        names = {"registry": self.registry, "buckets": SECONDS}
        self._first = Histogram("arcforge_first_token_seconds", "From a request's arrival to its first token", **names)
        self._whole = Histogram("arcforge_request_seconds", "From a request's arrival to its end", **names)
        self.registry.register(self)  # type: ignore[arg-type]

    def finished(self, output: Output) -> None:
        """A request has ended; called in the engine's thread."""
        self._whole.observe(output.seconds)
        if output.first_seconds:
            self._first.observe(output.first_seconds)

    def refresh(self, health: Health, totals: Mapping[str, float], of_engine: Mapping[str, float]) -> None:
        """totals: counters of the loop. of_engine: the engine's own numbers, empty when it did not answer in time."""
        gauges = {
            "version": (health.version, "Version of the weights"),
            "running": (health.running, "Requests being computed"),
            "waiting": (health.waiting, "Requests that wait"),
            "seconds_since_step": (health.seconds_since_step, "Since the engine's loop last came round"),
            "paused": (bool(health.paused), "Whether new tokens are held back"),
            "healthy": (not health.problem, "Whether requests can be answered"),
        }
        self._rows = [
            CounterMetricFamily(f"arcforge_{name}", name.replace("_", " "), value) for name, value in totals.items()
        ]
        self._rows += [
            GaugeMetricFamily(f"arcforge_{name}", told, float(value)) for name, (value, told) in gauges.items()
        ]
        self._rows += [
            GaugeMetricFamily(f"arcforge_engine_{name}", f"The engine's {name.replace('_', ' ')}", value)
            for name, value in of_engine.items()
        ]

    def collect(self) -> Iterator[Metric]:
        yield from self._rows
