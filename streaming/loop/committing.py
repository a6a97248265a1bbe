"""Scores, dead letters and offsets → a Kafka transaction, beside the loop; and what becomes of it.

A second thread publishes a batch while the loop goes on. `finished` waits for it: committed batches count from then
on; those that are aborted are given up, with all that was read after them, to be read again.
"""

from __future__ import annotations

import contextlib
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
from streaming.loop.batch import Batch, Output, offset_range
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
LEAD_MAX_S = 0.2  # a transaction that takes longer is not waited for before the next batch is read
SMOOTHING = 0.1  # of durations: the weight of the last one
STOP_S = 3.0  # for how long a transaction under way is waited for once the process is told to stop

_log = structlog.stdlib.get_logger("streaming.loop.committing")


class Committing:
    """Publishes batches, one after the other.

    Args:
        config: the group.
        app: says what is in a score.
        progress: where the loop stands.
        lineages: what is noted beside each offset; whether the topics are still the same.
        output: the producers, started.
        poison: told up to where records have killed nobody.
        reporting: counts what is published.
        runtime: see `Runtime`.
        committed: called with a batch whose transaction is.
        given_up: called with a batch whose transaction was aborted: forgets it and all that was read after it.

    Attributes:
        output: the same, or another of which a producer has taken the place of one that hangs.
    """

    def __init__(
        self,
        config: Config,
        app: App,
        progress: Progress,
        lineages: Lineages,
        output: Output,
        poison: Poison,
        reporting: Reporting,
        runtime: Runtime,
        committed: Callable[[Batch], None],
        given_up: Callable[[Batch], None],
    ) -> None:
        topics = lineages.topics.names
        check_room(topics.dead_letters, topics.inputs, config.kafka.group_id, output.dead_letter_bytes_max)
        self.output = output
        self._progress, self._lineages, self._poison = progress, lineages, poison
        self._metrics, self._reporting = runtime.metrics, reporting
        self._committed, self._given_up = committed, given_up
        self._stop, self._step, self._start, self._clock = runtime.stop, runtime.step, runtime.start, runtime.clock
        self._group_id = config.kafka.group_id
        self._encode_scores = score_encoder(app, config.kafka.cloudevents)
        self._publishing: tuple[Batch, Outcome] | None = None
        self._started: Outcome | None = None  # of a producer that has taken the place of one that hangs
        self._replacements = 0
        self._aborts = 0
        self._markers_passed = 0.0
        self._began = 0.0  # when what is being published was handed to the other thread
        self._takes_s = 0.0  # from then to its commit, smoothed

    def publish(self, batch: Batch, scores: Scores | None) -> None:
        """Has `commit` done by the other thread; `finished` tells how it went."""
        group, started = self._progress.source.group_metadata(), self._started

        def work() -> None:
            if started is not None:
                started.result()
            self.commit(batch, scores, group)
            self._takes_s += SMOOTHING * (self._clock.monotonic() - self._began - self._takes_s)

        self._began = self._clock.monotonic()
        self._publishing = batch, self._start(work)

    def pass_markers(self) -> None:
        """Commits the ends of what was read where only markers of transactions, or aborted records, lie before them.

        Else, when retention has emptied the log, nobody could tell whether it was records that lay there.
        """
        progress = self._progress
        progress.source.commits.commit_again()
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

    def wait_till_nearly_finished(self, lead_s: float) -> None:
        """Waits until what is being published will be in about `lead_s`, as far as the last ones tell; no longer than
        until it is.

        What is read earlier would only wait: it cannot be published before.
        """
        if self._publishing is not None:
            _, outcome = self._publishing
            wait_s = min(self._takes_s, LEAD_MAX_S) - lead_s - (self._clock.monotonic() - self._began)
            if wait_s > 0:
                with contextlib.suppress(Exception):  # `finished` tells
                    outcome.result(wait_s)

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
        """Publishes a batch: scores, dead letters and offsets become visible together, or not at all.

        With `kafka.delivery` "at_least_once" 1 does nothing, and 4 comes behind 5: who dies between them, or loses its
        partitions, has the batch scored again.

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
        output, step = self.output, self._step
        with self._metrics.stage("publish"):
            # 1. Open a transaction. Nothing was sent before, so nothing has to be undone but our own rows.
            output.begin()
            step("begin")
            # 2. A score for each request, under the event's own key.
            if len(batch.events) and scores is not None:
                output.scores(self._encode_scores(batch.events, scores.probabilities, scores.version))
            step("scores")
            # 3. A dead letter for each record that cannot be scored.
            limit, group_id = output.dead_letter_bytes_max, self._group_id
            output.dead_letters([dead_letter(record, error, limit, group_id) for record, error in batch.dead])
            step("dead letters")
            # 4. The offsets behind the batch, in the name of this member of the group, in its present generation. They
            # are of the topics that the batch was read from: not of others that were made in their place meanwhile.
            (batch.same_topics or self._lineages.topics.ask()).check()
            if batch.commit_offsets and output.transactional:
                output.offsets(batch.commit_offsets, group, self._lineages.note)
            step("offsets")
            # 5. All of it, or none.
            output.commit()
            if batch.commit_offsets and not output.transactional:
                self._progress.source.commits.commit(batch.commit_offsets, self._lineages.note)
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
                if step := self.output.hung():
                    self._replace_output(step)
                    raise Aborted(f"{step} does not return") from None
                left_s -= self._stop.is_set()  # a second each time
                if left_s < 0:
                    raise Stopped(f"a transaction was still under way after {STOP_S:.0f} s") from None

    def _replace_output(self, step: str) -> None:
        """Goes on with another producer, because a call of this one hangs in librdkafka.

        Raises:
            TransactionFatal: nobody knows what became of its transaction, or it has happened too often.
        """
        other = self.output.replacement() if self._replacements < REPLACEMENTS_MAX else None
        if other is None:
            raise TransactionFatal(f"{step} does not return")
        _log.error("a call hangs in librdkafka: another producer goes on", step=step)
        self._replacements += 1
        self.output = other
        # At once, not with the next batch: whoever gets our partitions waits for the end of the old transaction.
        self._started = self._start(other.start)
