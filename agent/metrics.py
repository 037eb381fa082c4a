"""What Prometheus reads: requests and durations by action and outcome, coalesced reads, pools, engines up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from engines.engine import PoolUse

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25)
"""Seconds. A read is a fraction of a millisecond, nothing takes longer than 25 s."""


class Metrics:
    """Counts what happens. Labels hold only declared names: nothing of a request's own text becomes a label."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._actions = Counter(
            "dbvalet_actions", "Actions asked for", ("database", "action", "outcome"), registry=self.registry
        )
        self._seconds = Histogram(
            "dbvalet_action_duration_seconds",
            "From the request's arrival to its answer",
            ("database", "action", "outcome"),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._coalesced = Counter(
            "dbvalet_coalesced_reads", "Reads answered with the bytes of another's run", registry=self.registry
        )
        self._children: dict[tuple[str, str, str], tuple[Callable[[], None], Callable[[float], None]]] = {}

    def action(self, database: str, action: str, outcome: str, seconds: float) -> None:
        """Count one action. `outcome` is `ok` or the code of the error."""
        key = (database, action, outcome)
        children = self._children.get(key)
        if children is None:
            children = (
                self._actions.labels(database, action, outcome).inc,
                self._seconds.labels(database, action, outcome).observe,
            )
            self._children[key] = children
        count, observe = children
        count()
        observe(seconds)

    def coalesced(self) -> None:
        """Count a read that shared another's run."""
        self._coalesced.inc()

    def watch(self, observed: Callable[[], Iterable[tuple[str, bool | None, PoolUse]]]) -> None:
        """Show, at each scrape, `(database, up or unknown, pool)` of every database."""
        self.registry.register(_Observed(observed))

    def render(self) -> bytes:
        """Give the text that Prometheus reads."""
        return generate_latest(self.registry)


class _Observed(Collector):
    def __init__(self, observed: Callable[[], Iterable[tuple[str, bool | None, PoolUse]]]) -> None:
        self._observed = observed

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("dbvalet_engine_up", "1 when the engine answered last", labels=("database",))
        size = GaugeMetricFamily("dbvalet_pool_connections", "Open connections", labels=("database",))
        used = GaugeMetricFamily("dbvalet_pool_connections_in_use", "Connections at work", labels=("database",))
        limit = GaugeMetricFamily("dbvalet_pool_connections_limit", "The bound", labels=("database",))
        for database, is_up, pool in self._observed():
            if is_up is not None:
                up.add_metric((database,), float(is_up))
            size.add_metric((database,), pool.open)
            used.add_metric((database,), pool.in_use)
            limit.add_metric((database,), pool.limit)
        yield from (up, size, used, limit)
