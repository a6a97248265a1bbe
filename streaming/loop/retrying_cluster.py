"""A cluster that is waited for, as the loop asks it: what fails is called again, with the group kept meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa
import structlog

from streaming.config import Store as StoreSettings
from streaming.errors import Rebalanced, Stopped, StoreUnavailable
from streaming.events.batch import EventBatch, joined
from streaming.loop.poison.detection import Poison
from streaming.loop.runtime import Runtime
from streaming.loop.waiting_loop import WaitingLoop
from streaming.ops.waiting import Waiting, doubling
from streaming.store.openmldb.cluster import ClusterStore

__all__ = ["RetryingCluster"]

T = TypeVar("T")

FAILOVER_S = 1.0
"""No failover is as quick: a dead server's session alone lasts longer."""

_log = structlog.stdlib.get_logger("streaming.loop.retrying_cluster")


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
        self.micro_batches = store.micro_batches
        self._owed: list[EventBatch] = []  # committed, but their request rows are not in the store yet
        self.doubtful = False
        self._away = False  # as /readyz tells, also to a call after one that `Rebalanced` has ended

    def answer(self, events: EventBatch) -> pa.Table:
        owed = joined(self._owed) if self._owed else None
        answers = self._persist(lambda: self._store.answer(events, owed))
        self._owed.clear()
        return answers

    def restore(self, events: EventBatch) -> None:
        self._persist(lambda: self._store.restore(events))

    def accept(self, events: EventBatch) -> None:
        """See `ClusterStore.accept`."""
        self._persist(lambda: self._store.accept(events))

    def owe(self, events: EventBatch) -> None:
        """`accept`, but not before the next `answer` or `insert_owed`, whose rows go in beside."""
        self._owed.append(events)

    def insert_owed(self) -> None:
        """Inserts the request rows that are owed."""
        while self._owed:
            self.accept(self._owed[0])
            del self._owed[0]

    def drop_repeats(self, events: EventBatch) -> EventBatch:
        """All of them: a cluster keeps no request ids (`streaming.store.open.open_store`)."""
        return events

    def attempt(self) -> contextlib.AbstractContextManager[None]:
        """Any block: a cluster checks all rows before it inserts one."""
        return contextlib.nullcontext()

    def _persist(self, call: Callable[[], T]) -> T:
        failed = None
        try:
            answer = call()
        except StoreUnavailable as error:
            failed = self._clock.monotonic()
            self._poison.put_down()
            self._loop.pause()
            try:
                answer = self._call_again(call, error)
            finally:
                self._loop.resume()
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
