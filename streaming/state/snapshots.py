"""Snapshots of the embedded state: a restart reads the newest, and of the log only what came after it.

A snapshot stands for a moment at which everything before it was committed, and names its offsets. The loop's thread
makes it bit by bit, between batches and for `TURN_S` at a time; a thread of its own writes. Rows that come meanwhile
are not in it. What goes wrong with the disk costs the snapshot, never the flow.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import structlog

from streaming.app.folder import App
from streaming.config import Config
from streaming.engine.errors import BadRow
from streaming.engine.storage.snapshot import Piece
from streaming.errors import BadSnapshot, ConfigError, NoSpace
from streaming.events.record import ROWS_VERSION
from streaming.kafka.lineage import Lineages
from streaming.ops.background import Start, in_thread
from streaming.ops.clock import SYSTEM_CLOCK, Clock
from streaming.ops.metrics import Metrics
from streaming.state.snapshot_folder import Manifest, Positions, SnapshotFolder, Writing
from streaming.store.embedded import EmbeddedStore, StateCapture
from streaming.store.protocol import FeatureStore

__all__ = ["Snapshots", "Standing", "identity", "load_state"]

TURN_S = 0.005  # for how long the loop copies rows before it goes on with events
QUEUE_MAX = 32  # pieces (of about a megabyte) that wait for the disk
SHARE = 0.05  # of the loop's time that making snapshots may take: large ones are made less often than `every_s`

_log = structlog.stdlib.get_logger("streaming.state.snapshots")


@dataclass(frozen=True)
class Standing:
    """A moment of the state: the store's mark, and the offsets that its rows stand for."""

    mark: Any
    actions: Positions
    dimensions: Positions
    newest: Positions = field(default_factory=dict)


class PieceQueue(Protocol):
    """What the loop hands over to the thread that writes (`queue.Queue`); None: there are no more."""

    def put(self, item: tuple[str, Piece] | None) -> None: ...
    def put_nowait(self, item: None) -> None: ...
    def get(self) -> tuple[str, Piece] | None: ...
    def full(self) -> bool: ...


@dataclass(frozen=True)
class Disk:
    """How snapshots are written beside the loop; the simulator of the tests has its own.

    Args:
        pieces: makes the queue for so many pieces.
        start: does the writing beside the loop.
        writing: makes what writes, of the folder and the columns of each part.
    """

    pieces: Callable[[int], PieceQueue] = queue.Queue
    start: Start = in_thread
    writing: Callable[[SnapshotFolder, Mapping[str, pa.Schema]], Writing] = Writing


class Snapshots:
    """Takes snapshots of a store, and restores the newest that is whole and belongs here.

    Args:
        config: `[snapshots]` and `kafka.instance` are read.
        store: whose state it is.
        identity: see `identity`.
        disk: how they are written.
        clock: the time.
    """

    def __init__(
        self,
        config: Config,
        store: EmbeddedStore,
        identity: Mapping[str, str],
        metrics: Metrics,
        disk: Disk | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        settings = config.snapshots
        self.folder = SnapshotFolder(Path(settings.folder) / config.kafka.instance, settings.keep)
        self._store, self._identity, self._metrics = store, identity, metrics
        self._disk, self._clock = disk or Disk(), clock
        self._every_s = settings.every_s
        self._due = clock.monotonic() + settings.every_s
        self._taken: Standing | None = None  # the moment of the last snapshot
        self._taking: _Taking | None = None
        store.before_delete = self.abandon

    def restore(self) -> Standing | None:
        """Fills the store, which must be empty, from the newest snapshot that is good; others are set aside.

        Returns:
            What the store stands for now; None where there is no good snapshot, and the store is still empty.
        """
        for name in self.folder.names():
            start = self._clock.monotonic()
            try:
                manifest = self.folder.manifest(name)
                self._check_identity(manifest)
                self.folder.check(name, manifest)
                self._store.restore_all(self.folder.batches(name, manifest))
            except (BadSnapshot, BadRow) as error:
                self._store.clear()
                self._set_aside(name, error.kind if isinstance(error, BadSnapshot) else "damaged", error)
                continue
            _log.info(
                "snapshot restored",
                snapshot=str(self.folder.path / name),
                rows=manifest.rows,
                bytes=manifest.bytes,
                seconds=round(self._clock.monotonic() - start, 2),
                age_s=round(self._clock.wall() - manifest.made_at, 1),
            )
            self._metrics.snapshot_time.set(manifest.made_at)
            self._metrics.snapshot_bytes.set(manifest.bytes)
            return Standing(self._store.mark(), manifest.actions, manifest.dimensions, manifest.newest)
        return None

    def made_with(self, history: str) -> None:
        """The state was made anew, with the history of this digest."""
        self._identity = {**self._identity, "store.history": history}

    def turn(self, standing: Standing | None) -> None:
        """Goes on with a snapshot for `TURN_S`, or begins one when it is time.

        Args:
            standing: the newest moment before which everything is committed; none: nothing to write.
        """
        if self._taking is not None:
            start = self._clock.monotonic()
            self._taking.go_on()
            self._taking.spend(self._clock.monotonic() - start)
            if self._taking.ended.is_set():
                self._end(self._taking)
        elif standing is not None and standing is not self._taken and self._clock.monotonic() > self._due:
            self._begin(standing)

    def abandon(self) -> None:
        """Gives up a snapshot that is being made: the store is about to forget rows that are in it, or to end."""
        if self._taking is not None:
            self._taking.abandon()
            self._taking = None

    def close(self) -> None:
        self.abandon()
        self.folder.close()

    def _begin(self, standing: Standing) -> None:
        start = self._clock.monotonic()
        manifest = Manifest(
            self._clock.wall(), self._identity, standing.actions, standing.dimensions, dict(standing.newest)
        )
        self._taking = _Taking(self.folder, self._store.capture(standing.mark), manifest, self._disk, self._clock)
        self._taken = standing
        self._taking.spend(self._clock.monotonic() - start)

    def _end(self, taking: _Taking) -> None:
        self._taking = None
        taking.abandon()
        now = self._clock.monotonic()
        self._due = now + max(self._every_s, taking.spent_s / SHARE)
        if taking.failure is not None or taking.outcome is None:
            self._metrics.snapshot_failures.inc()
            _log.warning(
                "the snapshot could not be written: the older ones stay",
                error=str(taking.failure),
                folder=str(self.folder.path),
                again_in_s=round(self._due - now),
            )
            return
        name, manifest = taking.outcome
        seconds = now - taking.begun
        self._metrics.snapshot_time.set(manifest.made_at)
        self._metrics.snapshot_bytes.set(manifest.bytes)
        self._metrics.snapshot_seconds.set(seconds)
        self._metrics.snapshot_pause.set(taking.pause_s)
        _log.info(
            "snapshot written",
            snapshot=str(self.folder.path / name),
            rows=manifest.rows,
            bytes=manifest.bytes,
            seconds=round(seconds, 2),
            longest_pause_ms=round(taking.pause_s * 1000, 1),
        )

    def _check_identity(self, manifest: Manifest) -> None:
        mine, theirs = self._identity, manifest.identity
        other = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
        if other:
            raise BadSnapshot("foreign", f"it was made with another {', another '.join(other)}")

    def _set_aside(self, name: str, kind: str, why: Exception) -> None:
        path, now_at = self.folder.path / name, ""
        try:
            now_at = str(self.folder.set_aside(name, kind))
        except OSError as error:
            now_at = f"{path}, which cannot be renamed: {error.strerror}"
        _log.warning("a snapshot is set aside", snapshot=str(path), kind=kind, why=str(why), now_at=now_at)


class _Taking:
    """A snapshot that is being made: the loop's side of it, and the thread that writes.

    Args:
        folder: where it is to be.
        capture: gives its pieces.
        manifest: what it will say of itself, but for its files.
        disk, clock: as of `Snapshots`.

    Attributes:
        ended: the thread is done.
        outcome: the snapshot's name and manifest, if it came to be.
        failure: why it did not.
        spent_s, pause_s: the loop's time that it took in all, and at most at once.
    """

    def __init__(
        self, folder: SnapshotFolder, capture: StateCapture, manifest: Manifest, disk: Disk, clock: Clock
    ) -> None:
        self._clock = clock
        self.begun = clock.monotonic()
        self.ended = threading.Event()
        self.outcome: tuple[str, Manifest] | None = None
        self.failure: BaseException | None = None
        self.spent_s = self.pause_s = 0.0
        self._capture, self._manifest = capture, manifest
        self._rows: Iterator[tuple[str, Piece]] | None = capture.pieces()
        self._queue = disk.pieces(QUEUE_MAX)
        self._given_up = False
        writing = disk.writing(folder, capture.schemas())
        disk.start(lambda: self._write(writing))

    def go_on(self) -> None:
        """Copies pieces until `TURN_S` is over, the writer has enough to do, or there are no more."""
        if self._rows is None:
            return
        start = self._clock.monotonic()
        while self._clock.monotonic() - start < TURN_S and not self.ended.is_set() and not self._queue.full():
            piece = next(self._rows, None)
            self._queue.put(piece)
            if piece is None:
                self._rows = None
                self._capture.close()
                break

    def spend(self, seconds: float) -> None:
        """Counts time of the loop."""
        self.spent_s += seconds
        self.pause_s = max(self.pause_s, seconds)

    def abandon(self) -> None:
        """Ends the thread, unless it has ended, and lets the engine free rows again."""
        self._given_up = True
        self._capture.close()
        self._rows = None
        while not self.ended.is_set():  # it may wait for the next piece, or be about to
            try:
                self._queue.put_nowait(None)
            except queue.Full:
                self._queue.get()
            self.ended.wait(0.01)

    def _write(self, writing: Writing) -> None:
        try:
            writing.open()
            while (item := self._queue.get()) is not None:
                part, piece = item
                writing.add(part, piece())
            if not self._given_up:
                self.outcome = writing.finish(self._manifest)
        except Exception as error:  # whatever it is, it costs this snapshot only; it is reported and counted
            self.failure = error
        finally:
            if self.outcome is None:
                writing.abandon()
            self.ended.set()


def load_state(
    config: Config, app: App, store: FeatureStore, lineages: Lineages, metrics: Metrics
) -> tuple[Snapshots | None, Standing | None]:
    """Makes the tables and fills them from the newest good snapshot, or else with history.

    Args:
        app: whose tables they are.
        lineages: what the state belongs to.

    Returns:
        Where snapshots are taken, if they are, and what the one that was used stands for.

    Raises:
        ConfigError, UnsupportedSQL: see `FeatureStore.load`; or the folder cannot be used.
        FolderTaken: another process has it.
    """
    if not config.snapshots.folder:
        store.load()
        return None, None
    if not isinstance(store, EmbeddedStore):
        raise ConfigError(f"snapshots.folder: store.kind {config.store.kind!r} keeps its state itself: set it to ''")
    store.define()
    try:
        snapshots = Snapshots(config, store, identity(config, app, lineages), metrics)
    except NoSpace as error:
        _log.error("no snapshots are taken until the next start: the disk is full", error=str(error))
        metrics.snapshot_failures.inc()
        store.load_history()
        return None, None
    restored = snapshots.restore()
    if restored is None:
        store.load_history()
    return snapshots, restored


def identity(config: Config, app: App, lineages: Lineages) -> dict[str, str]:
    """What a snapshot belongs to: the topics' ids, the group, and all that decides which rows come of their records."""
    kafka, topics = config.kafka, lineages.topics
    found = {"Kafka cluster": topics.cluster_id, "kafka.group_id": kafka.group_id}
    found |= {f"topic {name}": topic.id for name, topic in topics.known.items()}
    found["application"] = app.digest
    if lineages.history.digest:
        found["store.history"] = lineages.history.digest
    found["store.database"] = app.tables.database
    found["[events]"] = config.events.model_dump_json()
    if config.dedup.horizon_ms:
        found["[dedup]"] = config.dedup.model_dump_json()
    found["version of the decoders"] = str(ROWS_VERSION)
    return found
