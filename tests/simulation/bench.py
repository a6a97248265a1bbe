"""What schedules share: engines, which cost a moment to make, the encoder, and workloads with their truth."""

from __future__ import annotations

import functools
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash
from fixtures.artifact import probabilities

from simulation.application import simulated_app
from simulation.broker import Entry, Place
from simulation.cluster import Cluster
from simulation.workload import (
    HORIZON_MS,
    TAKEN_BYTES,
    TOPICS,
    Origin,
    Truth,
    Workload,
    has_repeats,
    is_deadly,
    make_workload,
    repeats,
)
from streaming.app.inputs import InputDecoder
from streaming.app.topics import TopicNames
from streaming.config import Config, Events
from streaming.events.record import reason
from streaming.ops.metrics import Metrics
from streaming.store.embedded import EmbeddedStore
from streaming.store.openmldb.cluster import ClusterStore

__all__ = ["TRIES_MAX", "Bench", "bench"]

TRIES_MAX = 5  # of deaths by poison: so often no innocent record is in hand alone when a crash comes


class RowEncoder:
    """An encoder whose ids name the whole row of features: one wrong feature anywhere is another score."""

    digest = "sha256:simulated"

    def encode(self, features: pa.Table) -> npt.NDArray[np.int64]:
        """int64 [n, 1]."""
        (batch,) = features.to_batches()
        rows = zip(*[column.to_pylist() for column in batch.columns], strict=True)
        return np.array([xxhash.xxh64_intdigest(repr(row).encode()) >> 1 for row in rows], np.int64)[:, None]


class UnreadMetrics:
    """Metrics that nobody looks at: any attribute, called with anything, used as a context or not."""

    def __getattr__(self, name: str) -> UnreadMetrics:
        return self

    def __call__(self, *_: Any, **__: Any) -> UnreadMetrics:
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class Bench:
    """What schedules share: engines, which cost a moment to make, the encoder, and workloads with their truth."""

    def __init__(self) -> None:
        self.stores: dict[int, list[EmbeddedStore]] = {0: [], HORIZON_MS: []}
        self._workloads: dict[int, Workload] = {}
        self._truths: dict[tuple[int, frozenset[Origin], str], Truth] = {}
        self._configs: dict[tuple[str, int, bool], Config] = {}
        self.encoder = RowEncoder()
        self.topics = TopicNames.of(simulated_app(), {topic: topic for topic in TOPICS})
        self.metrics = cast(Metrics, UnreadMetrics())

    def take(self, horizon_ms: int = 0) -> EmbeddedStore:
        """An engine with empty tables."""
        if not self.stores[horizon_ms]:
            store = EmbeddedStore(simulated_app(), horizon_ms=horizon_ms)
            store.load()
            return store
        store = self.stores[horizon_ms].pop()
        store.reset()
        return store

    def config(self, instance: str, messages_max: int, mended: bool) -> Config:
        if (instance, messages_max, mended) not in self._configs:
            self._configs[instance, messages_max, mended] = Config.model_validate(
                {
                    "kafka": {
                        "instance_id": instance,
                        "topics": {topic: topic for topic in TOPICS},
                        "transaction_timeout_s": 10.0,
                        "give_up_after_s": 30.0,
                        "session_timeout_s": 6.0,
                    },
                    "batch": {"messages_max": messages_max, "poll_ms": 1000},
                    "model": {"timeout_s": 5.0, "give_up_after_s": 40.0},
                    "snapshots": {"every_s": 1.0},
                    "poison": {"tries_max": TRIES_MAX},
                    "events": {} if mended else {"message_bytes_max": TAKEN_BYTES},
                }
            )
        return self._configs[instance, messages_max, mended]

    def workload(self, number: int) -> Workload:
        if number not in self._workloads:
            self._workloads[number] = make_workload(number)
        return self._workloads[number]

    def truth(self, number: int, too_large: frozenset[Origin], kind: str = "embedded") -> Truth:
        """What comes of a workload, computed one event at a time, after these were refused by who takes less.

        Args:
            kind: `store.kind`.
        """
        if (number, too_large, kind) in self._truths:
            return self._truths[number, too_large, kind]
        workload, truth, app = self.workload(number), Truth(), simulated_app(kind)
        engine = self.take()
        store = engine if kind == "embedded" else ClusterStore(app, Cluster(engine))
        ends: dict[Place, int] = {}
        accepted: dict[Place, list[tuple[str | None, int]]] = {}

        def place(entry: Entry, gap: int = 0) -> tuple[Place, int]:
            at = ends.get(entry.place, 0)
            ends[entry.place] = at + 1 + gap
            return entry.place, at

        decoder = InputDecoder(app, Events(), self.topics)
        for entry in [*workload.dimensions, *workload.later]:
            (events, bad), at = decoder.decode([entry]), place(entry)
            if is_deadly(entry):
                truth.refused[at] = "kills_process"
                continue
            if bad:
                truth.refused[at] = reason(bad[0][1])
            else:
                store.restore(events)
        for entry, gap in zip(workload.actions, workload.gaps, strict=True):
            (events, bad), at = decoder.decode([entry]), place(entry, gap)
            if is_deadly(entry):
                truth.refused[at] = "kills_process"
                continue
            if bad or at in too_large:
                truth.refused[at] = "too_large" if at in too_large else reason(bad[0][1])
                continue
            before = accepted.setdefault(entry.place, [])
            if kind == "embedded" and has_repeats(number) and repeats(before, events.sender_ids[0], entry.written_ms):
                continue
            ids = self.encoder.encode(store.answer(events))
            if isinstance(store, ClusterStore):
                store.accept(events)
            (request,) = events.rows[app.main].to_pylist()
            truth.scores[at] = (
                request["user_id"].encode(),
                {
                    "request_id": request["reqId"],
                    "user_id": request["user_id"],
                    "sku_id": request["sku_id"],
                    "event_time": request["time"],
                    "purchase_probability": float(probabilities(ids)[0]),
                    "model_version": "1",
                },
            )
        self.stores[0].append(engine)
        self._truths[number, too_large, kind] = truth
        return truth


@functools.cache
def bench() -> Bench:
    return Bench()
