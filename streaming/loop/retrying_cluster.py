"""A cluster that is waited for, as the loop asks it: what fails is called again, with the group kept meanwhile.

While requests are asked, the rows of those that are asked next go in beside, with the request rows that are owed. What
goes in beside is tried once; what fails there is done in its turn.

A server that dies may take along rows that it had acknowledged, those of its last second. Who calls it meanwhile is
told, and all last rows are inserted again (`doubtful`). Who does not would never know: so after a silence in which
another server could have taken over, the rows of the last moments before it go in once more, before anything is asked.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import structlog

from streaming.config import Store as StoreSettings
from streaming.engine import BadRow
from streaming.errors import ArtifactMismatch, Rebalanced, Stopped, StoreUnavailable
from streaming.events.batch import EventBatch, joined
from streaming.loop.poison.detection import Poison
from streaming.loop.runtime import Runtime
from streaming.loop.waiting_loop import WaitingLoop
from streaming.ops.background import Outcome
from streaming.ops.waiting import Waiting, doubling
from streaming.store.openmldb.cluster import ClusterStore

__all__ = ["RetryingCluster"]

T = TypeVar("T")

FAILOVER_S = 1.0
"""No failover is as quick: a dead server's session alone lasts longer."""

LAG_S = 2.0
"""Rows that were acknowledged longer ago are with all replicas."""

_log = structlog.stdlib.get_logger("streaming.loop.retrying_cluster")


@dataclass
class _Beside:
    """What goes in beside: rows of `events`, and what was owed first.

    Attributes:
        owed: how many of what was.
        again: inserts all of it once more.
        at: when it was in.
    """

    events: EventBatch
    owed: int
    again: Callable[[], None]
    at: float = 0.0


class RetryingCluster:
    """A cluster that is waited for: while it is away the consumer is paused, but keeps polling to stay in its group.

    Args:
        store: raises `StoreUnavailable`, and can be called again then.
        settings: `[store]`.
        loop: goes on while the store is waited for.
        poison: holds nobody responsible for a death meanwhile.
        runtime: see `Runtime`.

    Attributes:
        doubtful: it was away for so long that rows may be missing which it had acknowledged.

    Raises:
        StoreUnavailable: for longer than `store.give_up_after_s`.
        Rebalanced, Stopped: every call, when partitions came or went, or the process was told to stop, meanwhile.
        Rebalanced: every call, too, after the store was away for so long that another server may have taken over, which
            lacks rows that were acknowledged; the loop inserts the last ones again before it asks anything.
    """

    def __init__(
        self, store: ClusterStore, settings: StoreSettings, loop: WaitingLoop, poison: Poison, runtime: Runtime
    ) -> None:
        self._store, self._settings, self._loop, self._poison = store, settings, loop, poison
        self._metrics, self._health, self._clock = runtime.metrics, runtime.health, runtime.clock
        self._start = runtime.start
        self.footprints = store.footprints
        self._next = EventBatch()  # to go in beside the next `answer`
        self._beside: tuple[_Beside, Outcome] | None = None
        self._beside_failed: float | None = None  # when
        self._inserted: set[int] = set()  # `id` of the records of events whose rows went in beside
        self._owed: list[EventBatch] = []  # committed, but their request rows are not in the store yet
        self.doubtful = False
        self._recent: deque[tuple[float, Callable[[], None]]] = deque()  # when rows went in, and how they do so again
        self._answered = self._clock.monotonic()  # when the cluster did, the last time
        self._away = False  # as /readyz tells, also to a call after one that `Rebalanced` has ended

    def answer(self, events: EventBatch) -> pa.Table:
        """See `FeatureStore.answer`; of events that touch none of each other's rows."""
        self.join()
        missing = np.array([id(record) not in self._inserted for record in events.records])
        if missing.any():
            owed = joined(self._owed) if self._owed else None
            self._put(lambda: self._store.insert(events.take(missing), owed))
            self._owed.clear()
        self._begin_beside()
        answers = self._persist(lambda: self._store.ask(events))
        self._inserted.difference_update(map(id, events.records))
        return answers

    def insert_next(self, events: EventBatch) -> None:
        """Has the rows of events go in beside the next `answer`.

        Args:
            events: that touch none of each other's rows, nor of those that are answered.
        """
        self._next = events

    def forget_next(self) -> None:
        """What has gone in beside may be asked by somebody else first."""
        self.join()
        self._next = EventBatch()
        self._inserted.clear()

    def join(self) -> None:
        """Waits for what goes in beside."""
        if self._beside is None:
            return
        (beside, outcome), self._beside = self._beside, None
        try:
            while True:
                try:
                    outcome.result(1.0)
                    break
                except FutureTimeoutError:
                    self._loop.goes_round()
        except (StoreUnavailable, ArtifactMismatch, BadRow) as error:
            _log.warning("rows did not go in beside: in their turn", error=str(error))
        else:
            del self._owed[: beside.owed]
            self._inserted |= set(map(id, beside.events.records))
            self._note(beside.again, beside.at)
        self._poison.hold_beside([])

    def _begin_beside(self) -> None:
        events, self._next = self._next, EventBatch()
        if not (len(events) or self._owed):
            return
        owed = joined(self._owed) if self._owed else None

        beside = _Beside(events, len(self._owed), lambda: self._store.insert(events, owed))

        def insert() -> None:
            try:
                self._store.insert_beside(events, owed)
            except StoreUnavailable:
                self._beside_failed = self._clock.monotonic()  # now: it may be long until somebody asks
                raise
            beside.at = self._clock.monotonic()

        self._poison.hold_beside(events.records)
        self._beside = beside, self._start(insert)

    def restore(self, events: EventBatch) -> None:
        self.join()
        self._put(lambda: self._store.restore(events))

    def accept(self, events: EventBatch) -> None:
        """See `ClusterStore.accept`."""
        self.join()
        self._put(lambda: self._store.accept(events))

    def owe(self, events: EventBatch) -> None:
        """`accept`, but not before the next `answer` or `insert_owed`, whose rows go in beside."""
        self._owed.append(events)

    def insert_owed(self) -> None:
        """Inserts the request rows that are owed."""
        self.join()
        while self._owed:
            self.accept(self._owed[0])
            del self._owed[0]

    def drop_repeats(self, events: EventBatch) -> EventBatch:
        """All of them: a cluster keeps no request ids (`streaming.store.open.open_store`)."""
        return events

    def attempt(self) -> contextlib.AbstractContextManager[None]:
        """Any block: a cluster checks all rows before it inserts one."""
        return contextlib.nullcontext()

    def settle(self) -> None:
        """Nothing is asked for now: after some silence has the last rows go in once more, so that the next event need
        not wait for them."""
        if self._recent and self._is_silent():
            self._persist(lambda: None)

    def _put(self, insert: Callable[[], None]) -> None:
        self._persist(insert)
        self._note(insert, self._clock.monotonic())

    def _note(self, insert: Callable[[], None], at: float) -> None:
        """Rows were in, at that time."""
        self._answered = max(self._answered, at)
        self._recent.append((at, insert))
        while self._recent and self._recent[0][0] < self._answered - LAG_S:
            self._recent.popleft()

    def _is_silent(self) -> bool:
        return self._clock.monotonic() - self._answered > FAILOVER_S

    def _renewing(self, call: Callable[[], T]) -> Callable[[], T]:
        """`call` after the rows of the last moments went in again."""

        def both() -> T:
            while self._recent:
                self._recent[0][1]()
                self._recent.popleft()
            return call()

        return both

    def _persist(self, call: Callable[[], T]) -> T:
        if self._recent and self._is_silent():
            call = self._renewing(call)
        failed, self._beside_failed = self._beside_failed, None
        try:
            answer = call()
        except StoreUnavailable as error:
            failed = self._clock.monotonic() if failed is None else failed
            self._poison.put_down()
            self._loop.pause()
            try:
                answer = self._call_again(call, error)
            finally:
                self._loop.resume()
        self._answered = self._clock.monotonic()
        if self._away:
            self._away = False
            self._health.ready("store")
            _log.info("the store is back")
        if failed is not None and self._clock.monotonic() - failed > FAILOVER_S:
            self.doubtful = True
            raise Rebalanced("the store was away: rows that it took just before may be lost, and are inserted again")
        return answer

    def _call_again(self, call: Callable[[], T], failure: StoreUnavailable) -> T:
        settings, loop, generation = self._settings, self._loop, self._loop.generation

        def poll(wait_s: float) -> None:
            loop.goes_round()
            loop.keep_alive(min(0.1, wait_s))
            if loop.stop.is_set():
                raise Stopped(f"while the store is away: {failure}")
            if generation != loop.generation:
                raise Rebalanced("while the store is away")

        waits = doubling(settings.backoff_ms / 1000, settings.backoff_ms_max / 1000)
        waiting = Waiting(settings.give_up_after_s, waits, clock=self._clock)
        while True:
            self._away = True
            self._health.not_ready("store", str(failure))
            _log.warning("the store is away", error=str(failure), again_in_s=round(waiting.next_s, 2))
            if waiting.is_over:
                raise StoreUnavailable(f"gave up after {settings.give_up_after_s:.0f} s: {failure}") from failure
            waiting.rest_polling(poll)
            self._metrics.store_retries.inc()
            self._poison.take_up()
            try:
                return call()
            except StoreUnavailable as error:
                self._poison.put_down()
                failure = error
