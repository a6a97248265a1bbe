"""The scorer: poll → decode → insert → features → encode → score → publish → commit.

One thread goes round. Under load (`crowded`: a batch is at least half full) it reads a batch and computes its features
while Triton works on the batch before, and a second thread publishes the one before that in a Kafka transaction. A
smaller batch is scored and handed to that thread at once, before more is read. Batches stay in order. When a
transaction is aborted, the rows of its batch are rolled back with those of all batches after it, and all of them are
read again.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import structlog

from streaming.config import Config
from streaming.errors import (
    Aborted,
    ArtifactMismatch,
    BadEvent,
    ModelUnavailable,
    OffsetOutOfRange,
    Stopped,
    TransactionFatal,
)
from streaming.events.dead_letter import check_room, dead_letter
from streaming.events.decode import Actions, Record, action_decoder, reason
from streaming.events.scores import encode_scores
from streaming.kafka.lineage import Lineages
from streaming.kafka.producer import Publisher
from streaming.kafka.reader import Positions
from streaming.kafka.source import ActionSource, DimensionSource
from streaming.kafka.topics import Asked
from streaming.loop.kept_state import Moved, Patient, Stretches
from streaming.loop.poison.detection import Poison
from streaming.loop.preparation import Preparation, places
from streaming.loop.rebuild import Rebuild
from streaming.ops.background import Outcome, Start, in_thread
from streaming.ops.breaker import Breaker
from streaming.ops.health import Health
from streaming.ops.log import place
from streaming.ops.metrics import Metrics
from streaming.state.snapshots import Snapshots, Standing
from streaming.store.feature_store import FeatureStore

if TYPE_CHECKING:
    from streaming.model.triton import Scores

__all__ = ["Batch", "Scorer"]

HEIRS_MAX = 10  # producers that hang and are left behind, each with its threads: then a restart cleans up
ABORTS_MAX = 10  # in a row, with backoff: about half a minute; then a restart is the better try
MARKERS_S = 1.0  # how often, at most, offsets are committed behind which there was no record
RENEW_S = 3600.0  # how often the offsets of the dimension topics are committed again
REPORT_S = 1.0  # how often lag, sizes and readiness are brought up to date
STOP_S = 3.0  # for how long a transaction under way is waited for once the process is told to stop
SLOW_S = 0.2  # a model that takes longer is waited for beside the polls that keep the consumer in its group
LEAVE_S = 2.0  # for how long the model is waited for before partitions are given up or the process ends
CHECK_S = 1.0  # how often Triton is asked, under load, whether its model still belongs to our encoder

_log = structlog.stdlib.get_logger("streaming.loop.scorer")


class Call(Protocol):
    """A request that the model is working on."""

    def wait(self, timeout_s: float) -> bool: ...
    def result(self) -> Scores: ...


class Model(Protocol):
    """The model server, as the loop uses it (`streaming.model.triton.Model`)."""

    def submit(self, ids: npt.NDArray[np.int64]) -> Call: ...
    def encoder_digest(self) -> str | None: ...


class Encoder(Protocol):
    """Features → ids (`streaming.model.encoder.Encoder`)."""

    @property
    def digest(self) -> str: ...

    def encode(self, features: pa.Table) -> npt.NDArray[np.int64]: ...


@dataclass
class Batch:
    """What one poll gave, and what became of it so far.

    Attributes:
        mark: the store before its rows.
        starts, dimension_starts: the positions before it was read.
        ends: the offsets that its transaction commits.
        records: of the actions to score.
        dead: the records that cannot be scored, and why.
        repeats: how many more actions repeat a request that was scored, and are left out.
        ids: int64 [n, 41].
        asked: whether the topics are still those that its records were read from.
        after: the state behind it.
        committed: its transaction is.
    """

    mark: Any
    starts: Positions
    dimension_starts: Positions
    ends: Positions = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    actions: Actions | None = None
    dead: list[tuple[Record, BadEvent]] = field(default_factory=list)
    repeats: int = 0
    ids: npt.NDArray[np.int64] | None = None
    asked: Asked | None = None
    call: Call | None = None
    after: Standing | None = None
    committed: bool = False


class Scorer:
    """The loop and what it drives.

    Args:
        source: makes the source of actions from its two callbacks, `settle` and `forget`.
        lineages: what the topics hold, and what the group's state is made of.
        stop: set from outside to finish the batches under way, commit and leave.
        snapshots, restored: where snapshots are taken, and the state that one has brought.
        poison: who is known to kill; default: nobody ever is.
        step: called with a step's name after it was done; tests die in it.
        start: does the publishing beside the loop; the simulator of the tests decides when.
        clock: wall clock, seconds since the epoch.
    """

    def __init__(
        self,
        config: Config,
        *,
        source: Callable[[Callable[[], None], Callable[[], None]], ActionSource],
        dimensions: DimensionSource,
        store: FeatureStore,
        encoder: Encoder,
        model: Model,
        lineages: Lineages,
        publisher: Publisher,
        metrics: Metrics,
        health: Health,
        stop: threading.Event,
        snapshots: Snapshots | None = None,
        restored: Standing | None = None,
        poison: Poison | None = None,
        step: Callable[[str], None] = lambda _: None,
        start: Start = in_thread,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.config, self.metrics, self.health, self.stop = config, metrics, health, stop
        self.store: FeatureStore = Patient(store, self) if store.durable else store
        self.dimensions, self.encoder, self.model = dimensions, encoder, model
        self.topics, self.lineages = lineages.topics, lineages
        self.publisher = publisher
        check_room(config.kafka, publisher.dead_letter_bytes_max)
        self.source = source(self.settle, self.forget)
        self.snapshots, self.standing = snapshots, restored
        self.poison = poison or Poison()
        self.rebuild = Rebuild(self, restored)
        self.preparation = Preparation(self)
        self.stretches = Stretches(self)
        self.in_flight: Batch | None = None
        self.following: Batch | None = None  # read behind the one in flight, while that is waited for
        self.publishing: tuple[Batch, Outcome] | None = None
        self.step, self._start, self._clock = step, start, clock
        self._started: Outcome | None = None  # of a producer that has taken the place of one that hangs
        self._heirs = 0
        self.decoder = action_decoder(config.events.message_bytes_max, config.events.future_s_max)
        # Asked when it is scraped, so that it always says what /readyz does.
        metrics.ready.set_function(lambda: not health.missing())
        self._ce_source = f"/jd-intent-scorer/{config.kafka.topics.actions}".encode()
        self.newest: dict[int, int] = dict(restored.newest) if restored else {}
        self.breaker = Breaker(
            failures_max=config.model.breaker.failures_max,
            failing_s_max=config.model.breaker.failing_s_max,
            wait_s=config.model.backoff_ms / 1000,
            wait_s_max=config.model.backoff_ms_max / 1000,
            give_up_after_s=config.model.give_up_after_s,
            told=metrics.set_breaker,
            clock=time.monotonic,
        )
        self._aborts = 0
        self._reported = 0.0
        self._passed = 0.0
        self._renewed = time.monotonic()
        self._asked: Asked | None = None
        self._checked = ("", 0.0)  # the model version whose encoder was asked for, and when

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Goes round until `stop` is set; then finishes what is in flight, commits and leaves the group.

        Raises:
            Unavailable: a server stayed away for longer than its `give_up_after_s`.
            TransactionFatal, LogNotWhole, ArtifactMismatch: going on would be wrong.
        """
        self.source.subscribe()
        self.health.watch()
        try:
            while not self.stop.is_set():
                self.report()
                self.source.learn()
                if self.source.pending or self.store.durable:
                    with contextlib.suppress(Moved):
                        (self.rebuild.run if self.source.pending else self.stretches.go_round)()
                    continue
                if self.careful() and not self.published():
                    continue
                if self.snapshots is not None:
                    self.snapshots.turn(self.standing)
                # Poll, decode, insert, features, encode: while Triton works, if it does.
                self.following = following = self.read()
                if following is None and self.in_flight is None and self.published():
                    self.pass_markers()
                pending = self.in_flight
                scores = self.scores(pending) if pending else None
                self.following = None
                if pending is not self.in_flight:
                    continue  # its partitions went meanwhile, and `following` was forgotten
                self.in_flight = self.submit(following)
                if self.published() and pending:
                    self.publish(pending, scores)
                if self.in_flight and not self.crowded(self.in_flight):
                    self.finish(self.in_flight)
            self.settle()
            self.pass_markers()
            self.published()
            self.stretches.settle()
        except Stopped as why:
            self.in_flight = None
            _log.warning("left before all was published: the next start reads it again", why=str(why))
        except OffsetOutOfRange as error:
            self.health.leave(error)
            self.in_flight = None
            self.topics.check()  # if it was made anew, that is what has to be said
            raise
        except BaseException as error:
            self.health.leave(error)
            self.in_flight = None  # leaving the group settles what is in flight: not after a failure
            raise
        finally:
            self.health.leave()
            self.health.not_ready("assignment", "stopping")
            if self.snapshots is not None:
                self.snapshots.abandon()
            self.source.close()
            self.dimensions.close()
            self.publisher.close()

    def crowded(self, batch: Batch) -> bool:
        """Do more events wait behind it? Then its stages overlap with the next batch; else it is faster alone."""
        return (
            len(batch.records) + len(batch.dead) + batch.repeats >= self.config.batch.messages_max // 2
            and not self.careful()
        )

    def careful(self) -> bool:
        """Is a record here suspect? Then nothing is published beside what is prepared: a death must name its cause."""
        return self.poison.wary and self.poison.concerns({*self.source.positions, *self.dimensions.positions})

    def finish(self, batch: Batch) -> None:
        """Scores and publishes the batch in flight before anything else is read."""
        scores = self.scores(batch)
        if self.in_flight is batch:  # not forgotten meanwhile
            self.in_flight = None
            if self.published():
                self.publish(batch, scores)

    def read(self) -> Batch | None:
        """Polls and prepares the next batch; none if there was nothing to read.

        While Triton works on a batch in flight, which there is only after a `crowded` one: a smaller one was finished.
        """
        limits, starts = self.config.batch, dict(self.source.positions)
        with self.metrics.stage("poll"):
            # With a batch in flight only what is there already is taken: its scores shall not wait for the next events.
            wait_s = 0.0 if self.in_flight else limits.poll_ms / 1000
            records = self.source.poll(limits.messages_max, wait_s, limits.linger_ms / 1000)
            if not records:
                starts = dict(self.source.positions)  # a rebalance in there may have moved them
            batch = self.batch()
            batch.starts = starts
            # Not when partitions came just now: who gets partition 0 must ask first what its former owner published.
            ready = self.source.positions and not self.source.pending
            dimension_records = self.dimensions.poll(limits.messages_max) if ready else []
        if not records and not dimension_records:
            return None
        batch.asked = self.topics.ask()
        return self.prepare(batch, records, dimension_records)

    def batch(self) -> Batch:
        """An empty batch at the present positions."""
        return Batch(self.store.mark(), dict(self.source.positions), dict(self.dimensions.positions))

    def stand(self) -> Standing:
        """The state as it is now."""
        return Standing(self.store.mark(), self.source.standing(), dict(self.dimensions.positions), self.newest)

    def prepare(self, batch: Batch, records: Sequence[Record], dimension_records: Sequence[Record]) -> Batch:
        """Decodes the records, inserts the rows, computes the features, encodes them; says what it would commit."""
        dimension_records = self.source.refused.drop(dimension_records)
        self.metrics.batch_messages.observe(len(records) + len(dimension_records))
        self.preparation.run(batch, records, dimension_records)
        touched = {(self.source.topic, record.partition()) for record in records}
        batch.ends = {partition: self.source.positions[partition] for partition in touched}
        batch.after = self.stand()
        batch.ends.update(self.dimension_ends())
        for topic in {record.topic() for record in dimension_records}:
            self.metrics.events.labels(topic).inc(sum(record.topic() == topic for record in dimension_records))
        self.metrics.events.labels(self.source.topic).inc(len(records))
        return batch

    def submit(self, batch: Batch | None) -> Batch | None:
        """Hands a batch to Triton; one that changes nothing on Kafka is done already."""
        if batch is None or not (batch.records or batch.dead or batch.repeats):
            return None
        if batch.ids is not None and self.breaker.state == "closed":
            batch.call = self.model.submit(batch.ids)
        self.step("submit")
        return batch

    def scores(self, batch: Batch) -> Scores | None:
        """Waits for the model; while it is slow or away, the consumer is paused, but polls, to stay in its group.

        Returns:
            None: nothing to score, or the batch was forgotten (it is not in flight any more).

        Raises:
            ModelUnavailable: for longer than `model.give_up_after_s`.
            ArtifactMismatch: the model belongs to another encoder.
        """
        if batch.ids is None:
            return None
        with self.metrics.stage("score"):
            if batch.call is not None and batch.call.wait(SLOW_S):
                try:
                    return self.answered(batch.call)
                except ModelUnavailable as error:
                    self.failed(batch, error)
            self.source.pause()
            while (scores := self.ask_again(batch)) is None and self.in_flight is batch:
                pass
            self.source.resume()
        return scores

    def ask_again(self, batch: Batch) -> Scores | None:
        """Waits for the call under way, or makes one as soon as the breaker allows it; Kafka is polled meanwhile.

        Returns:
            None: it failed, or the batch was forgotten.
        """
        leave = None
        while batch.call is None or not batch.call.wait(SLOW_S):
            self.report()
            self.source.keep_alive(0.0 if batch.call else min(0.1, self.breaker.wait_s()))
            if self.in_flight is not batch:  # given back during a rebalance
                return None
            if self.stop.is_set():
                leave = leave or time.monotonic() + LEAVE_S
                if batch.call is None or time.monotonic() > leave:
                    self.forget()
                    return None
            elif batch.call is None and batch.ids is not None and self.breaker.allows():
                self.metrics.model_retries.inc()
                batch.call = self.model.submit(batch.ids)
        try:
            return self.answered(batch.call)
        except ModelUnavailable as error:
            self.failed(batch, error)
            return None

    def answered(self, call: Call) -> Scores:
        """What came, if it may be published.

        Raises:
            ModelUnavailable, ArtifactMismatch: see `scores`.
        """
        scores = self.own(call.result())
        if self.breaker.state != "closed":
            _log.info("the model is back", version=scores.version)
            self.health.ready("model")
        self.breaker.succeeded()
        return scores

    def failed(self, batch: Batch, error: ModelUnavailable) -> None:
        """Takes note of a call that came to nothing.

        Raises:
            ModelUnavailable: there were too many.
        """
        batch.call = None
        self._checked = ("", 0.0)  # another model may come back under the same version
        self.breaker.failed(error)
        _log.warning(
            "the model does not answer",
            error=str(error),
            breaker=self.breaker.state,
            again_in_s=round(self.breaker.wait_s(), 2),
            at=places(batch.records),
        )
        if self.breaker.state == "open":
            self.health.not_ready("model", str(error))

    def own(self, scores: Scores) -> Scores:
        """The scores, if their model was trained on this encoder's ids; Triton may have been given another since.

        Asked again after an outage, for a version that is new, and every `CHECK_S`.

        Raises:
            ArtifactMismatch: it was not; nothing of these scores may be published.
            ModelUnavailable: Triton does not tell.
        """
        checked, at = self._checked
        if scores.version == checked and time.monotonic() - at < CHECK_S:
            return scores
        digest = self.model.encoder_digest()
        if digest != self.encoder.digest:
            raise ArtifactMismatch(
                f"model {self.config.model.name!r} at {self.config.model.url} version {scores.version} was trained "
                f"with encoder {digest}, this scorer has {self.encoder.digest}: restart it with that model's artifact"
            )
        self._checked = (scores.version, time.monotonic())
        return scores

    def publish(self, batch: Batch, scores: Scores | None) -> None:
        """Has `commit` done by the other thread; `published` tells how it went."""
        group, started = self.source.group_metadata(), self._started

        def work() -> None:
            if started is not None:
                started.result()
            self.commit(batch, scores, group)

        self.publishing = batch, self._start(work)

    def pass_markers(self) -> None:
        """Commits the ends of what was read where only markers of transactions, or aborted records, lie before them.

        Else, when retention has emptied the log, nobody could tell whether it was records that lay there.
        """
        if self.source.pending:
            return  # who gets partition 0 has not published yet what its former owner has left of the dimension topics
        ends = self.source.markers() | self.dimension_ends()
        if ends and (self.stop.is_set() or time.monotonic() - self._passed > MARKERS_S):
            self._passed = time.monotonic()
            batch = self.batch()
            batch.ends = ends
            self.source.positions.update({p: end for p, end in ends.items() if p[0] == self.source.topic})
            batch.after = self.stand()
            self.publish(batch, None)

    def published(self) -> bool:
        """Waits for what is being published.

        Returns:
            False: its transaction was aborted; it was forgotten with all that was read after it.
        """
        if self.publishing is None:
            return True
        batch, outcome = self.publishing
        self.publishing = None
        try:
            self._wait(outcome)
        except Aborted as error:
            self.metrics.restarts.inc()
            self._aborts += 1
            _log.warning("transaction aborted: the batch is read again", error=str(error), at=places(batch.records))
            if self._aborts >= ABORTS_MAX:
                raise TransactionFatal(f"{ABORTS_MAX} transactions in a row were aborted, the last: {error}") from error
            self.undo(batch)
            self.stop.wait(min(5.0, 0.05 * 2**self._aborts) * random.uniform(0.5, 1))
            return False
        self._aborts = 0
        self.standing = batch.after
        batch.committed = True
        self.lineages.remember(batch.ends)
        if self.store.durable and batch.actions is not None:
            self.stretches.owe(batch.actions)
        if self.owns_dimensions():
            self.dimensions.committed.update({p: o for p, o in batch.ends.items() if p[0] in self.dimensions.topics})
        if batch.after is not None:
            self.poison.behind({**batch.after.dimensions, **batch.ends}, self.dimensions.committed)
        return True

    def _wait(self, outcome: Outcome) -> None:
        left_s = STOP_S
        while True:
            try:
                return outcome.result(1.0)
            except FutureTimeoutError:
                if step := self.publisher.hung():
                    self.replace_publisher(step)
                    raise Aborted(f"{step} does not return") from None
                left_s -= self.stop.is_set()  # a second each time
                if left_s < 0:
                    raise Stopped(f"a transaction was still under way after {STOP_S:.0f} s") from None

    def replace_publisher(self, step: str) -> None:
        """Goes on with another producer, because a call of this one hangs in librdkafka.

        Raises:
            TransactionFatal: nobody knows what became of its transaction, or it has happened too often.
        """
        heir = self.publisher.heir() if self._heirs < HEIRS_MAX else None
        if heir is None:
            raise TransactionFatal(f"{step} does not return")
        _log.error("a call hangs in librdkafka: another producer goes on", step=step)
        self._heirs += 1
        self.publisher = heir
        # At once, not with the next batch: whoever gets our partitions waits for the end of the old transaction.
        self._started = self._start(heir.start)

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
        publisher = self.publisher
        with self.metrics.stage("publish"):
            # 1. Open a transaction. Nothing was sent before, so nothing has to be undone but our own rows.
            publisher.begin()
            self.step("begin")
            # 2. A score for each action, keyed by its user.
            if batch.actions is not None and scores is not None:
                publisher.scores(
                    encode_scores(batch.actions, batch.records, scores.probabilities, scores.version, self._ce_source)
                )
            self.step("scores")
            # 3. A dead letter for each record that cannot be scored.
            limit, group_id = publisher.dead_letter_bytes_max, self.config.kafka.group_id
            publisher.dead_letters([dead_letter(record, error, limit, group_id) for record, error in batch.dead])
            self.step("dead letters")
            # 4. The offsets behind the batch, in the name of this member of the group, in its present generation. They
            # are of the topics that the batch was read from: not of others that were made in their place meanwhile.
            (batch.asked or self.topics.ask()).check()
            if batch.ends:
                publisher.offsets(batch.ends, group, self.lineages.note)
            self.step("offsets")
            # 5. All of it, or none.
            publisher.commit()
            self.step("commit")
        # 6. It counts.
        self._count(batch, scores)

    # ── going back ───────────────────────────────────────────────────────────────────────────────────────────────────

    def settle(self) -> None:
        """Commits what is under way, before partitions are given up or the process ends; forgets it if that fails."""
        if not self.published() or self.in_flight is None:
            return
        batch = self.in_flight
        if self.following is not None:
            self.undo(self.following)  # nobody asked the model yet: it is read again, by whoever gets its partitions
            self.following, self.in_flight = None, batch
        scores = None
        if batch.ids is not None:
            error: object = "no answer yet"
            if batch.call is not None and batch.call.wait(LEAVE_S):
                try:
                    scores = self.answered(batch.call)
                except ModelUnavailable as away:
                    error = away
            if scores is None:
                _log.warning("given back unscored: the model is away", error=str(error), at=places(batch.records))
                self._checked = ("", 0.0)
                self.forget()
                return
        self.in_flight = None
        self.publish(batch, scores)
        self.published()

    def forget(self) -> None:
        """Undoes what is in flight, and all that was read after it, to be read again; a commit under way is awaited."""
        if self.published() and self.in_flight is not None:
            self.undo(self.in_flight)

    def undo(self, batch: Batch) -> None:
        """Forgets a batch and all that was read after it; it is read again."""
        self.in_flight = None
        self.store.rollback(batch.mark)
        self.source.rewind(batch.starts)
        self.dimensions.rewind(batch.dimension_starts)

    def owns_dimensions(self) -> bool:
        """Every scorer reads the dimension topics; the one that has partition 0 publishes their dead letters."""
        return (self.source.topic, 0) in self.source.positions

    def dimension_ends(self) -> Positions:
        """The offsets of the dimension topics to commit with a batch, by the scorer that publishes their dead letters.

        The group is not subscribed to these topics, so Kafka forgets their offsets `offsets.retention.minutes` (7 days)
        after they were committed last, whoever is alive: they are committed again every `RENEW_S`, moved or not.
        """
        if not self.owns_dimensions():
            return {}
        due = time.monotonic() - self._renewed > RENEW_S
        committed = self.dimensions.committed
        # Only forward: while a rebuild reads these topics anew, it is behind what the group has published already.
        moved = {p: o for p, o in self.dimensions.positions.items() if o > committed.get(p, 0)}
        if not due:
            return moved
        self._renewed = time.monotonic()
        return {p: committed.get(p, 0) for p in self.dimensions.positions} | moved

    def owned(self, refused: list[tuple[Record, BadEvent]]) -> list[tuple[Record, BadEvent]]:
        """Those dead letters of dimension topics that are this scorer's to publish, and were not published yet."""
        if not self.owns_dimensions():
            return []
        committed = self.dimensions.committed
        return [(r, why) for r, why in refused if r.offset() >= committed.get((r.topic(), r.partition()), 0)]

    # ── what is told ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _count(self, batch: Batch, scores: Scores | None) -> None:
        metrics = self.metrics
        for record, error in batch.dead:
            metrics.dead_letters.labels(record.topic(), reason(error)).inc()
            _log.warning(
                "dead letter",
                at=place(record.topic(), record.partition(), record.offset()),
                reason=reason(error),
                error=str(error)[:500],
            )
        metrics.repeats.inc(batch.repeats)
        if batch.actions is None or scores is None:
            return
        metrics.scores.inc(len(batch.records))
        metrics.set_version(scores.version)
        if self.config.metrics.latency_from == "event":
            since = batch.actions.times
        else:
            since = np.array([record.timestamp()[1] for record in batch.records], np.int64)
            since = since[since >= 0]  # a record may have no time
        metrics.latency.observe(np.maximum(self._now_ms() - since, 0) / 1000)
        late = 0
        partitions = np.array([record.partition() for record in batch.records])
        for partition in np.unique(partitions).tolist():
            times = batch.actions.times[partitions == partition]
            newest = np.maximum.accumulate(np.concatenate([[self.newest.get(partition, 0)], times]))
            late += int((times < newest[:-1]).sum())
            self.newest[partition] = int(newest[-1])
        metrics.late.inc(late)

    def report(self) -> None:
        """Says that the loop goes round; once a second lag, sizes and readiness."""
        self.health.beat()
        if time.monotonic() - self._reported < REPORT_S:
            return
        self._reported = time.monotonic()
        if self._asked is None or self._asked.look():  # also while nothing comes
            self._asked = self.topics.ask()
        if unknown := self.source.unknown():
            self.health.not_ready("assignment", f"Kafka is asked where {unknown} start; the other partitions flow")
        elif self.source.joined:
            self.health.ready("assignment")
            if not self.source.positions:
                self.health.ready("state")  # more scorers than partitions: this one waits for its turn
        else:
            self.health.not_ready("assignment", "waiting for the group")
        self.metrics.set_lag(self.source.lag())
        self.metrics.set_sizes(self.store.sizes())
