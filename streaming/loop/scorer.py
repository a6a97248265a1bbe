"""The scorer: poll → decode → insert → features → encode → score → publish → commit.

One thread goes round (`streaming.loop.pipeline`), a second one publishes. Batches stay in order. When a transaction is
aborted, the rows of its batch are rolled back with those of all batches after it, and all of them are read again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import structlog

from streaming.app.folder import App
from streaming.app.inputs import InputDecoder
from streaming.config import Config
from streaming.errors import OffsetOutOfRange, Rebalanced, Stopped
from streaming.kafka.dimension_source import DimensionSource
from streaming.kafka.event_source import EventSource
from streaming.kafka.lineage import Lineages
from streaming.loop.batch import Batch, Encoder, Model, Output
from streaming.loop.committing import Committing
from streaming.loop.kept_state import KeptState
from streaming.loop.pipeline import Pipeline
from streaming.loop.poison.detection import Poison
from streaming.loop.preparation import Preparation
from streaming.loop.progress import Progress
from streaming.loop.rebuild import Rebuild
from streaming.loop.replayed_state import ReplayedState
from streaming.loop.reporting import REPORT_S, ProgressLog, Reporting
from streaming.loop.retrying_cluster import RetryingCluster
from streaming.loop.runtime import Runtime
from streaming.loop.scoring import Scoring
from streaming.loop.state import State
from streaming.loop.waiting_loop import WaitingLoop
from streaming.state.snapshots import Snapshots, Standing
from streaming.store.embedded import EmbeddedStore
from streaming.store.openmldb.cluster import ClusterStore

__all__ = ["Scorer"]

_log = structlog.stdlib.get_logger("streaming.loop.scorer")


class Scorer:
    """The loop: makes its parts of what it is given, and says what comes after what.

    Args:
        config: of this scorer.
        app: what is scored.
        source: makes the source of events from its two callbacks, `settle` and `forget`.
        dimensions: the dimension topics.
        store: loaded; whether its rows are replayed or kept decides how the loop goes.
        encoder, model: features → ids → scores.
        lineages: what the topics hold, and what the group's state is made of.
        output: the producers, started.
        runtime: whom the loop tells, what stops it, and what it takes time and threads from.
        snapshots, restored: where snapshots are taken, and the state that one has brought.
        poison: who is known to kill; default: nobody ever is.
        decoder: of the input topics; default: by `[events]`.
        report_s: how often lag, sizes and readiness are brought up to date.

    Attributes:
        progress: where the loop stands.
        preparation, scoring, committing: the stages of a batch.
        pipeline: their order.
        state: what features are computed from.
    """

    def __init__(
        self,
        config: Config,
        app: App,
        *,
        source: Callable[[Callable[[], None], Callable[[], None]], EventSource],
        dimensions: DimensionSource,
        store: EmbeddedStore | ClusterStore,
        encoder: Encoder,
        model: Model,
        lineages: Lineages,
        output: Output,
        runtime: Runtime,
        snapshots: Snapshots | None = None,
        restored: Standing | None = None,
        poison: Poison | None = None,
        decoder: InputDecoder | None = None,
        report_s: float = REPORT_S,
    ) -> None:
        self.metrics, self.health, self.stop = runtime.metrics, runtime.health, runtime.stop
        self.dimensions, self.lineages, self.snapshots, self.store = dimensions, lineages, snapshots, store
        self.poison = poison = poison or Poison()
        # The parts call each other in a circle (a poll gives partitions up, which has what is under way settled first,
        # which polls): each is given the few calls that it makes, and knows none of the others.
        self.source = source(self._settle, self._forget)
        rows: EmbeddedStore | RetryingCluster
        mark = _no_mark if isinstance(store, ClusterStore) else store.mark
        newest = restored.newest if restored else {}
        self.progress = progress = Progress(self.source, dimensions, mark, newest, runtime.clock)
        self.reporting = reporting = Reporting(
            progress, lineages.topics, store.sizes, runtime, config.metrics.latency_from, report_s
        )
        waiting = WaitingLoop(progress, reporting, runtime.stop, self._forget)
        rows = (
            RetryingCluster(store, config.store, waiting, poison, runtime) if isinstance(store, ClusterStore) else store
        )
        decoder = decoder or InputDecoder(app, config.events, lineages.topics.names)
        self.preparation = preparation = Preparation(app, progress, rows, decoder, encoder, poison, runtime)
        self.scoring = scoring = Scoring(config.model, model, encoder.digest, waiting, runtime)
        self.committing = committing = Committing(
            config, app, progress, lineages, output, poison, reporting, runtime, self._committed, self._given_up
        )
        self.pipeline = pipeline = Pipeline(
            config.batch, progress, lineages.topics, preparation, scoring, committing, poison, runtime, self._given_up
        )
        log = ProgressLog(runtime.clock)
        self.state: State
        if isinstance(rows, RetryingCluster):
            self.state = KeptState(
                rows, progress, pipeline, preparation, committing, lineages, reporting, runtime, limits=config.batch
            )
        else:
            self.state = ReplayedState(
                rows,
                progress,
                pipeline,
                preparation,
                committing,
                lineages,
                reporting,
                runtime,
                snapshots=snapshots,
                restored=restored,
                messages_max=config.batch.messages_max,
                log=log,
            )
        self.rebuild = Rebuild(
            self.state, progress, pipeline.settle, committing, lineages, poison, reporting, runtime, log
        )

    def _settle(self) -> None:
        self.state.hold_still()
        self.pipeline.settle()

    def _forget(self) -> None:
        self.state.hold_still()
        self.pipeline.forget()

    def _committed(self, batch: Batch) -> None:
        self.state.committed(batch)

    def _given_up(self, batch: Batch) -> None:
        self.state.given_up(batch)

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
                self.reporting.goes_round()
                self.source.learn()
                with contextlib.suppress(Rebalanced):
                    if self.source.pending:
                        self.rebuild.run()
                    else:
                        self.state.go_round()
            self.pipeline.settle()
            self.committing.pass_markers()
            self.committing.finished()
            self.state.leave()
        except Stopped as why:
            self.progress.in_flight = None
            _log.warning("left before all was published: the next start reads it again", why=str(why))
        except OffsetOutOfRange as error:
            self.health.leave(error)
            self.progress.in_flight = None
            self.lineages.topics.check()  # if it was made anew, that is what has to be said
            raise
        except BaseException as error:
            self.health.leave(error)
            self.progress.in_flight = None  # leaving the group settles what is in flight: not after a failure
            raise
        finally:
            self.health.leave()
            self.health.not_ready("assignment", "stopping")
            if self.snapshots is not None:
                self.snapshots.abandon()
            self.source.close()
            self.dimensions.close()
            self.committing.output.close()


def _no_mark() -> None:
    """A cluster takes no rows back."""
