"""What a simulated scorer has beside Kafka: a model server that fails, a disk that fills up, and records that kill."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from fixtures.artifact import probabilities

from simulation.workload import DEADLY
from simulation.world import Defect, World
from streaming.app.folder import App
from streaming.app.inputs import InputDecoder
from streaming.app.topics import TopicNames
from streaming.config import Config
from streaming.errors import ArtifactMismatch, ModelUnavailable, ScorerError
from streaming.events.batch import EventBatch, Refusals
from streaming.events.record import Record
from streaming.model.triton import Scores
from streaming.ops.background import Outcome
from streaming.state.snapshot_folder import Manifest, SnapshotFolder, Writing
from streaming.state.snapshots import Disk
from streaming.store.embedded import EmbeddedStore

__all__ = ["DeadlyDecoder", "DeadlyStore", "Model", "simulated_disk", "strike_rows"]


class Writers:
    """Queues and threads of snapshots: what the loop hands over is written as soon as it has handed over all of it."""

    def __init__(self) -> None:
        self._newest: deque[Any] = deque()
        self._works: dict[int, Callable[[], None]] = {}

    def queue(self, _: int) -> types.SimpleNamespace:
        """The queue of the thread that is made next."""
        items: deque[Any] = deque()
        self._newest = items

        def put(item: Any) -> None:
            items.append(item)
            if item is None:
                self._works[id(items)]()

        return types.SimpleNamespace(put=put, put_nowait=put, get=items.popleft, full=lambda: False)

    def start(self, work: Callable[[], None]) -> Outcome:
        """The work of whom the queue was made for."""
        self._works[id(self._newest)] = work
        return Future[None]()


class FailingWriting(Writing):
    """A snapshot on its way to a disk that may be full; the process may die before each call."""

    def __init__(self, world: World, folder: SnapshotFolder, schemas: Mapping[str, pa.Schema]) -> None:
        super().__init__(folder, schemas)
        self._world = world

    def add(self, part: str, batch: pa.RecordBatch) -> None:
        self._maybe_full()
        super().add(part, batch)

    def finish(self, manifest: Manifest) -> tuple[str, Manifest]:
        self._maybe_full()
        return super().finish(manifest)

    def abandon(self) -> None:
        if not self._world.process().dead:
            super().abandon()
        else:  # the dead remove nothing: the next start finds what they left
            for file in self._files.values():
                file.close()

    def _maybe_full(self) -> None:
        self._world.point("snapshot")
        if self._world.luck("snapshot fails"):
            raise OSError(28, "No space left on device")


def simulated_disk(world: World) -> Disk:
    """Where all scorers of a schedule write their snapshots."""
    writers = Writers()
    return Disk(writers.queue, writers.start, lambda folder, schemas: FailingWriting(world, folder, schemas))


class Call:
    """One request to the model. Its answer is drawn when it is sent."""

    def __init__(self, world: World, ids: npt.NDArray[np.int64], settings: Any) -> None:
        self._world, self._ids = world, ids
        self._at = world.now + world.random.random() * 0.02
        self._error: ScorerError | None = None
        if world.luck("model away"):
            self._error = ModelUnavailable("away")
        elif world.luck("model mad"):
            self._error = ArtifactMismatch("answers nan in row 0, not a probability")
        elif world.luck("model slow"):
            self._at += world.random.choice((1.0, 8.0))
            if self._at > world.now + settings.timeout_s:
                self._at, self._error = world.now + settings.timeout_s, ModelUnavailable("no answer in time")

    def wait(self, timeout_s: float) -> bool:
        """Will `result` not block?"""
        self._world.sleep(max(0.0, min(timeout_s, self._at - self._world.now)))
        return self._at <= self._world.now

    def result(self) -> Scores:
        self._world.point("model answers")
        self._world.sleep(max(0.0, self._at - self._world.now))
        if self._error is not None:
            raise self._error
        return Scores(probabilities(self._ids), "1")


class Model:
    """The model server: right, slow, away, or mad."""

    def __init__(self, world: World, config: Config, digest: str) -> None:
        self._world, self._config, self._digest = world, config, digest

    def submit(self, ids: npt.NDArray[np.int64]) -> Call:
        return Call(self._world, ids.copy(), self._config.model)

    def score(self, ids: npt.NDArray[np.int64]) -> Scores:
        return self.submit(ids).result()

    def encoder_digest(self) -> str:
        if self._world.luck("model away"):
            raise ModelUnavailable("away")
        return self._digest


class DeadlyStore:
    """A store of whose rows some are deadly."""

    def __init__(self, world: World, store: EmbeddedStore) -> None:
        self._world, self._store = world, store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def answer(self, events: EventBatch) -> pa.Table:
        strike_rows(self._world, events.rows)
        return self._store.answer(events)

    def restore(self, events: EventBatch) -> None:
        strike_rows(self._world, events.rows)
        self._store.restore(events)


class DeadlyDecoder(InputDecoder):
    """Decoders that some records are deadly to."""

    def __init__(self, world: World, app: App, config: Config, topics: TopicNames) -> None:
        super().__init__(app, config.events, topics)
        self._world = world

    def decode(self, records: Sequence[Record], *, replayed: bool = False) -> tuple[EventBatch, Refusals]:
        strike(self._world, "decode", *(str(record.value()) for record in records))
        return super().decode(records, replayed=replayed)


def strike_rows(world: World, tables: Mapping[str, pa.Table]) -> None:
    """Ends the process if one of the rows says so."""
    for rows in tables.values():
        for name in {"br", "has_bad_comment"}.intersection(rows.column_names):
            strike(world, "features", *rows.column(name).to_pylist())


def strike(world: World, stage: str, *texts: str) -> None:
    """Ends the process if one of the texts says so."""
    for text in texts:
        for deadly in DEADLY:
            if deadly.startswith(stage) and deadly in text:
                world.tell(f"{world.process().name}: {deadly}")
                world.counts["deadly"] = world.counts.get("deadly", 0) + 1
                if "fail" in deadly:
                    raise Defect(deadly)
                world.kill(world.process())
                world.sleep(0)
