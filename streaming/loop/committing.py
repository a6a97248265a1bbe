"""Scores, dead letters and offsets → a Kafka transaction, beside the loop; and what becomes of it.

A second thread publishes a batch while the loop goes on. `finished` waits for it: committed batches count from then
on; those that are aborted are given up, with all that was read after them, to be read again.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any

import structlog

from streaming.app.folder import App
from streaming.app.scores import score_encoder
from streaming.config import Config
from streaming.errors import Aborted, Stopped, TransactionFatal
from streaming.events.dead_letter import check_room, dead_letter
from streaming.kafka.lineage import Lineages
from streaming.kafka.producer import Publisher
from streaming.loop.batch import Batch, offset_range
from streaming.loop.poison.detection import Poison
from streaming.loop.progress import Progress
from streaming.loop.reporting import Reporting
from streaming.loop.runtime import Runtime
from streaming.ops.background import Outcome
from streaming.ops.waiting import jittered

if TYPE_CHECKING:
    from streaming.model.triton import Scores

__all__ = ["Committing"]

REPLACEMENTS_MAX = 10  # producers that hang and are left behind, each with its threads: then a restart cleans up
ABORTS_MAX = 10  # in a row, with backoff: about half a minute; then a restart is the better try
ABORT_WAIT_S, ABORT_WAIT_MAX_S = 0.05, 5.0  # before the batch is read again; doubles with each abort in a row
MARKERS_S = 1.0  # how often, at most, offsets are committed behind which there was no record
STOP_S = 3.0  # for how long a transaction under way is waited for once the process is told to stop

_log = structlog.stdlib.get_logger("streaming.loop.committing")


class Committing:
    """Publishes batches, one after the other.

    Args:
        config: the group.
        app: says what is in a score.
        progress: where the loop stands.
        lineages: what is noted beside each offset; whether the topics are still the same.
        publisher: the transactional producer, started.
        poison: told up to where records have killed nobody.
        reporting: counts what is published.
        runtime: see `Runtime`.
        committed: called with a batch whose transaction is.
        given_up: called with a batch whose transaction was aborted: forgets it and all that was read after it.

    Attributes:
        publisher: the same, or one that has taken the place of one that hangs.
    """

    def __init__(
        self,
        config: Config,
        app: App,
        progress: Progress,
        lineages: Lineages,
        publisher: Publisher,
        poison: Poison,
        reporting: Reporting,
        runtime: Runtime,
        committed: Callable[[Batch], None],
        given_up: Callable[[Batch], None],
    ) -> None:
        topics = lineages.topics.names
        check_room(topics.dead_letters, topics.inputs, config.kafka.group_id, publisher.dead_letter_bytes_max)
        self.publisher = publisher
        self._progress, self._lineages, self._poison = progress, lineages, poison
        self._metrics, self._reporting = runtime.metrics, reporting
        self._committed, self._given_up = committed, given_up
        self._stop, self._step, self._start, self._clock = runtime.stop, runtime.step, runtime.start, runtime.clock
        self._group_id = config.kafka.group_id
        self._encode_scores = score_encoder(app)
        self._publishing: tuple[Batch, Outcome] | None = None
        self._started: Outcome | None = None  # of a producer that has taken the place of one that hangs
        self._replacements = 0
        self._aborts = 0
        self._markers_passed = 0.0

    def publish(self, batch: Batch, scores: Scores | None) -> None:
        """Has `commit` done by the other thread; `finished` tells how it went."""
        group, started = self._progress.source.group_metadata(), self._started

        def work() -> None:
            if started is not None:
                started.result()
            self.commit(batch, scores, group)

        self._publishing = batch, self._start(work)

    def pass_markers(self) -> None:
        """Commits the ends of what was read where only markers of transactions, or aborted records, lie before them.

        Else, when retention has emptied the log, nobody could tell whether it was records that lay there.
        """
        progress = self._progress
        if progress.source.pending:
            return  # who gets partition 0 has not published yet what its former owner has left of the dimension topics
        ends = {p: end for p, end in progress.source.markers().items() if p not in progress.open}
        ends |= progress.dimension_offsets()
        if ends and (self._stop.is_set() or self._clock.monotonic() - self._markers_passed > MARKERS_S):
            self._markers_passed = self._clock.monotonic()
            batch = progress.batch()
            batch.commit_offsets = ends
            progress.source.positions.update({p: end for p, end in ends.items() if p[0] in progress.source.topics})
            batch.state_after = progress.standing()
            self.publish(batch, None)

    def finished(self) -> bool:
        """Waits for what is being published.

        Returns:
            False: its transaction was aborted; it was forgotten with all that was read after it.
        """
        if self._publishing is None:
            return True
        batch, outcome = self._publishing
        self._publishing = None
        try:
            self._wait(outcome)
        except Aborted as error:
            self._abort(batch, error)
            return False
        self._aborts = 0
        batch.committed = True
        self._lineages.remember(batch.commit_offsets)
        self._committed(batch)
        self._progress.note_committed(batch.commit_offsets)
        if batch.state_after is not None:
            passed = {**batch.state_after.dimensions, **batch.commit_offsets}
            self._poison.clear_before(passed, self._progress.dimensions.committed)
        return True

    def commit(self, batch: Batch, scores: Scores | None, group: Any) -> None:
        """Publishes a batch exactly once: scores, dead letters and offsets become visible together, or not at all.

        What a death between two steps leaves behind (the process starts again under the same transactional.id):
            before 1  nothing on Kafka. The rows die with the process: the log makes them anew up to the old offsets.
            1 → 4     an open transaction that no read_committed subscriber sees. `init_transactions` of the next start
                      aborts it; without a restart the broker does, after transaction_timeout_s.
            4 → 5     the same; the group's new offsets are pending in it, and whoever asks for them waits for its end.
            in 5      the coordinator has written the outcome, and completes it without us, or has not, and aborts. The
                      next start reads from the committed offsets, which are part of it.
            after 5   all of it is visible, offsets too: nothing is read or published again. Only counters are lost.
        A zombie (paused, its partitions moved, then awake) fails in 4: its member id and generation are stale.

        Args:
            group: this member of the group in its present generation.

        Raises:
            Aborted: nothing of it is visible.
            LogNotWhole: nothing of it ever will be.
        """
        publisher, step = self.publisher, self._step
        with self._metrics.stage("publish"):
            # 1. Open a transaction. Nothing was sent before, so nothing has to be undone but our own rows.
            publisher.begin()
            step("begin")
            # 2. A score for each request, under the event's own key.
            if len(batch.events) and scores is not None:
                publisher.scores(self._encode_scores(batch.events, scores.probabilities, scores.version))
            step("scores")
            # 3. A dead letter for each record that cannot be scored.
            limit, group_id = publisher.dead_letter_bytes_max, self._group_id
            publisher.dead_letters([dead_letter(record, error, limit, group_id) for record, error in batch.dead])
            step("dead letters")
            # 4. The offsets behind the batch, in the name of this member of the group, in its present generation. They
            # are of the topics that the batch was read from: not of others that were made in their place meanwhile.
            (batch.same_topics or self._lineages.topics.ask()).check()
            if batch.commit_offsets:
                publisher.offsets(batch.commit_offsets, group, self._lineages.note)
            step("offsets")
            # 5. All of it, or none.
            publisher.commit()
            step("commit")
        # 6. It counts.
        self._reporting.published(batch, scores)

    def _abort(self, batch: Batch, error: Aborted) -> None:
        self._metrics.restarts.inc()
        self._aborts += 1
        _log.warning(
            "transaction aborted: the batch is read again", error=str(error), at=offset_range(batch.events.records)
        )
        if self._aborts >= ABORTS_MAX:
            raise TransactionFatal(f"{ABORTS_MAX} transactions in a row were aborted, the last: {error}") from error
        self._given_up(batch)
        self._stop.wait(jittered(min(ABORT_WAIT_MAX_S, ABORT_WAIT_S * 2**self._aborts)))

    def _wait(self, outcome: Outcome) -> None:
        left_s = STOP_S
        while True:
            try:
                return outcome.result(1.0)
            except FutureTimeoutError:
                if step := self.publisher.hung():
                    self._replace_publisher(step)
                    raise Aborted(f"{step} does not return") from None
                left_s -= self._stop.is_set()  # a second each time
                if left_s < 0:
                    raise Stopped(f"a transaction was still under way after {STOP_S:.0f} s") from None

    def _replace_publisher(self, step: str) -> None:
        """Goes on with another producer, because a call of this one hangs in librdkafka.

        Raises:
            TransactionFatal: nobody knows what became of its transaction, or it has happened too often.
        """
        other = self.publisher.replacement() if self._replacements < REPLACEMENTS_MAX else None
        if other is None:
            raise TransactionFatal(f"{step} does not return")
        _log.error("a call hangs in librdkafka: another producer goes on", step=step)
        self._replacements += 1
        self.publisher = other
        # At once, not with the next batch: whoever gets our partitions waits for the end of the old transaction.
        self._started = self._start(other.start)
