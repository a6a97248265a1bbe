"""Batches through preparation, model and transaction: in order, and under load side by side.

A second thread publishes. Meanwhile the next batch is read and scored: as late as it can be without holding up that
thread, so that as many events as possible are in it. Under load (`is_crowded`: a batch is at least half full) one is
read and its features are computed while the model works on the batch before, and the one before that is published.
"""

from __future__ import annotations

from collections.abc import Callable

from streaming.config import Batch as BatchLimits
from streaming.kafka.topics import Topics
from streaming.loop.batch import Batch
from streaming.loop.committing import SMOOTHING, Committing
from streaming.loop.poison.detection import Poison
from streaming.loop.preparation import Preparation
from streaming.loop.progress import Progress
from streaming.loop.runtime import Runtime
from streaming.loop.scoring import Scoring

__all__ = ["Pipeline"]

LEAD_SHARE = 1.5  # a batch is read so many times earlier than it takes to score it, before the last one is committed


class Pipeline:
    """Where batches meet the stages.

    Args:
        limits: `[batch]`.
        progress: where the loop stands; holds the batch in flight.
        topics: asked whether they are still the same, with each batch.
        preparation, scoring, committing: the stages.
        poison: knows whether a record here is suspect.
        runtime: see `Runtime`.
        given_up: called with a batch that is to be read again, with all that was read after it.
    """

    def __init__(
        self,
        limits: BatchLimits,
        progress: Progress,
        topics: Topics,
        preparation: Preparation,
        scoring: Scoring,
        committing: Committing,
        poison: Poison,
        runtime: Runtime,
        given_up: Callable[[Batch], None],
    ) -> None:
        self._limits, self._progress, self._topics = limits, progress, topics
        self._preparation, self._scoring, self._committing = preparation, scoring, committing
        self._poison, self._metrics, self._step = poison, runtime.metrics, runtime.step
        self._given_up = given_up
        self._clock = runtime.clock
        self._read = 0.0  # when the last batch was
        self._takes_s = 0.0  # from then to its scores, smoothed, where nothing goes on beside

    def go_round(self) -> None:
        """Reads and prepares a batch while the model works on the one before; publishes that one."""
        progress, committing = self._progress, self._committing
        if progress.in_flight is None:
            committing.wait_till_nearly_finished(LEAD_SHARE * self._takes_s)
        # Poll, decode, insert, features, encode: while Triton works, if it does.
        progress.following = following = self.read()
        if following is None and progress.in_flight is None and committing.finished():
            committing.pass_markers()
        pending = progress.in_flight
        scores = self._scoring.scores(pending) if pending else None
        progress.following = None
        if pending is not progress.in_flight:
            return  # its partitions went meanwhile, and `following` was forgotten
        progress.in_flight = self.submit(following)
        if committing.finished() and pending:
            committing.publish(pending, scores)
        if progress.in_flight and not self.is_crowded(progress.in_flight):
            self.finish(progress.in_flight)

    def read(self) -> Batch | None:
        """Polls and prepares the next batch; none if there was nothing to read.

        While Triton works on a batch in flight, which there is only after a crowded one: a smaller one was finished.
        """
        limits, progress = self._limits, self._progress
        source, starts = progress.source, dict(progress.source.positions)
        with self._metrics.stage("poll"):
            # With a batch in flight only what is there already is taken: its scores shall not wait for the next events.
            wait_s = 0.0 if progress.in_flight else limits.poll_ms / 1000
            records = source.poll(limits.messages_max, wait_s)
            if not records:
                starts = dict(source.positions)  # a rebalance in there may have moved them
            batch = progress.batch()
            batch.starts = starts
            # Not when partitions came just now: who gets partition 0 must ask first what its former owner published.
            ready = source.positions and not source.pending
            dimension_records = progress.dimensions.poll(limits.messages_max) if ready else []
        if not records and not dimension_records:
            return None
        self._read = self._clock.monotonic()
        batch.same_topics = self._topics.ask()
        return self._preparation.prepare(batch, records, dimension_records)

    def submit(self, batch: Batch | None) -> Batch | None:
        """Hands a batch to Triton; one that changes nothing on Kafka is done already."""
        if batch is None or batch.is_empty:
            return None
        self._scoring.submit(batch)
        self._step("submit")
        return batch

    def finish(self, batch: Batch) -> None:
        """Scores and publishes the batch in flight before anything else is read."""
        scores = self._scoring.scores(batch)
        self._takes_s += SMOOTHING * (self._clock.monotonic() - self._read - self._takes_s)
        if self._progress.in_flight is batch:  # not forgotten meanwhile
            self._progress.in_flight = None
            if self._committing.finished():
                self._committing.publish(batch, scores)

    def is_crowded(self, batch: Batch) -> bool:
        """Do more events wait behind it? Then its stages overlap with the next batch; else it is faster alone."""
        count = len(batch.events) + len(batch.dead) + batch.repeats
        return count >= self._limits.messages_max // 2 and not self.is_careful()

    def is_careful(self) -> bool:
        """Is a record here suspect? Then nothing is published beside what is prepared: a death must name its cause."""
        poison, progress = self._poison, self._progress
        return poison.has_suspects and poison.has_suspects_in(
            {*progress.source.positions, *progress.dimensions.positions}
        )

    def settle(self) -> None:
        """Commits what is under way, before partitions are given up or the process ends; forgets it if that fails."""
        progress, committing = self._progress, self._committing
        if not committing.finished() or progress.in_flight is None:
            return
        batch = progress.in_flight
        if progress.following is not None:
            # Nobody asked the model yet: it is read again, by whoever gets its partitions.
            self._given_up(progress.following)
            progress.following, progress.in_flight = None, batch
        scores = None
        if batch.ids is not None:
            scores = self._scoring.last_scores(batch)
            if scores is None:
                self.forget()
                return
        progress.in_flight = None
        committing.publish(batch, scores)
        committing.finished()

    def forget(self) -> None:
        """Undoes what is in flight, and all that was read after it, to be read again; a commit under way is awaited."""
        if self._committing.finished() and self._progress.in_flight is not None:
            self._given_up(self._progress.in_flight)
