"""What `/metrics` shows, in a registry of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from streaming.ops.breaker import STATES, State

__all__ = ["STAGES", "LatencyHistogram", "Metrics"]

STAGES = ("poll", "decode", "features", "encode", "score", "publish")

STAGE_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
LATENCY_BUCKETS_S = (0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


class LatencyHistogram(Collector):
    """A histogram that takes a whole array at once: one `observe` per event would cost more than its features."""

    def __init__(self, name: str, documentation: str, buckets: tuple[float, ...]) -> None:
        self._name, self._documentation = name, documentation
        self._bounds = np.array(buckets)
        self._counts: npt.NDArray[np.int64] = np.zeros(len(buckets) + 1, np.int64)
        self._sum = 0.0

    def observe(self, values: npt.NDArray[np.float64]) -> None:
        """Adds all of `values` (seconds)."""
        slots = np.searchsorted(self._bounds, values, side="left")
        # One assignment each: a scrape on the other thread sees this batch whole or not at all in each of them.
        self._counts = self._counts + np.bincount(slots, minlength=len(self._counts))
        self._sum += float(values.sum())

    def collect(self) -> Iterator[Metric]:
        totals = np.cumsum(self._counts).tolist()
        names = [*(str(bound) for bound in self._bounds.tolist()), "+Inf"]
        family = HistogramMetricFamily(self._name, self._documentation)
        family.add_metric([], list(zip(names, totals, strict=True)), self._sum)
        yield family


class Metrics:
    """The scorer's metrics; `registry` is what the HTTP server renders."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        # In the order in which they are rendered.
        self._count_events(registry)
        self._watch_state(registry)
        self._time_stages(registry)
        self._measure_backlog(registry)
        self._stages = {stage: self.stage_seconds.labels(stage) for stage in STAGES}
        self._version = ""
        self._lagging: set[tuple[str, str]] = set()
        self._sized: dict[str, tuple[Gauge, Gauge]] = {}  # finding a labelled metric costs more than setting it

    def _count_events(self, registry: CollectorRegistry) -> None:
        self.events = Counter("jd_intent_events", "Records consumed.", ["topic"], registry=registry)
        self.scores = Counter("jd_intent_scores", "Scores committed.", registry=registry)
        self.dead_letters = Counter(
            "jd_intent_dead_letters", "Dead letters committed.", ["topic", "reason"], registry=registry
        )
        self.late = Counter(
            "jd_intent_late_events", "Events older than the newest of their partition.", registry=registry
        )
        self.repeats = Counter(
            "jd_intent_duplicate_events", "Events left out, because they repeat a request.", registry=registry
        )
        self.restarts = Counter(
            "jd_intent_transaction_restarts", "Transactions that were aborted and done again.", registry=registry
        )
        self.model_retries = Counter(
            "jd_intent_model_retries", "Calls to the model server that were repeated.", registry=registry
        )
        self.store_retries = Counter(
            "jd_intent_store_retries", "Calls to the feature store that were repeated.", registry=registry
        )

    def _watch_state(self, registry: CollectorRegistry) -> None:
        self.rebuilds = Counter("jd_intent_state_rebuilds", "Times the state was rebuilt.", registry=registry)
        self.replayed = Counter(
            "jd_intent_state_replayed_actions", "Events that were read again to rebuild the state.", registry=registry
        )
        self.snapshot_time = Gauge(
            "jd_intent_snapshot_timestamp_seconds",
            "When the newest snapshot of the state was begun, Unix time.",
            registry=registry,
        )
        self.snapshot_bytes = Gauge("jd_intent_snapshot_bytes", "Bytes of the newest snapshot.", registry=registry)
        self.snapshot_seconds = Gauge(
            "jd_intent_snapshot_seconds", "Seconds from the newest snapshot's beginning to its end.", registry=registry
        )
        self.snapshot_pause = Gauge(
            "jd_intent_snapshot_pause_seconds",
            "The longest that the flow waited for the newest snapshot.",
            registry=registry,
        )
        self.snapshot_failures = Counter(
            "jd_intent_snapshot_failures", "Snapshots that could not be written.", registry=registry
        )

    def _time_stages(self, registry: CollectorRegistry) -> None:
        self.stage_seconds = Histogram(
            "jd_intent_stage_seconds",
            "Seconds per batch in each stage.",
            ["stage"],
            buckets=STAGE_BUCKETS_S,
            registry=registry,
        )
        self.breaker = Gauge(
            "jd_intent_model_breaker_state",
            "1 for the state of the model's circuit breaker.",
            ["state"],
            registry=registry,
        )
        self.breaker_transitions = Counter(
            "jd_intent_model_breaker_transitions",
            "Times that the model's circuit breaker came into a state.",
            ["to"],
            registry=registry,
        )
        for state in STATES:
            self.breaker.labels(state).set(state == "closed")
            self.breaker_transitions.labels(state)
        self.batch_messages = Histogram(
            "jd_intent_batch_messages", "Records per batch.", buckets=BATCH_BUCKETS, registry=registry
        )
        self.latency = LatencyHistogram(
            "jd_intent_event_to_score_seconds", "From the event to its committed score.", LATENCY_BUCKETS_S
        )
        registry.register(self.latency)

    def _measure_backlog(self, registry: CollectorRegistry) -> None:
        self.lag = Gauge("jd_intent_consumer_lag", "Records behind the end.", ["topic", "partition"], registry=registry)
        self.state_rows = Gauge(
            "jd_intent_state_rows", "Rows of the online tables; strings: texts.", ["table"], registry=registry
        )
        self.state_bytes = Gauge(
            "jd_intent_state_bytes", "Bytes of rows and indexes; strings: of all texts.", ["table"], registry=registry
        )
        self.model = Gauge(
            "jd_intent_model_info", "1 for the version that scored last.", ["version"], registry=registry
        )
        self.ready = Gauge("jd_intent_ready", "1 while /readyz says so.", registry=registry)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage of one batch."""
        start = time.perf_counter()
        yield
        self._stages[name].observe(time.perf_counter() - start)

    def set_lag(self, lags: Mapping[tuple[str, int], int]) -> None:
        """Replaces all lags: a partition that went away must not keep its last one."""
        labels = {(topic, str(partition)): lag for (topic, partition), lag in lags.items()}
        for pair, lag in labels.items():
            self.lag.labels(*pair).set(lag)
        # Afterwards: a scrape in between must not miss a partition that stays.
        for pair in self._lagging - labels.keys():
            self.lag.remove(*pair)
        self._lagging = set(labels)

    def set_sizes(self, sizes: Mapping[str, tuple[int, int]]) -> None:
        """Rows and bytes per table."""
        for table, (rows, size) in sizes.items():
            if table not in self._sized:
                self._sized[table] = self.state_rows.labels(table), self.state_bytes.labels(table)
            of_rows, of_bytes = self._sized[table]
            of_rows.set(rows)
            of_bytes.set(size)

    def set_breaker(self, state: State) -> None:
        """The model's circuit breaker came into `state`."""
        for each in STATES:
            self.breaker.labels(each).set(each == state)
        self.breaker_transitions.labels(state).inc()

    def set_version(self, version: str) -> None:
        """The model version of the newest scores."""
        if version != self._version:
            self.model.clear()
            self.model.labels(version).set(1)
            self._version = version
