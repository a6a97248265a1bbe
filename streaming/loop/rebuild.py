"""When partitions have come: brings the state up to their offsets, then lets them flow."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import structlog

from streaming.errors import Rebalanced
from streaming.kafka.lineage import Lineages
from streaming.loop.committing import Committing
from streaming.loop.poison.detection import Poison
from streaming.loop.progress import Progress
from streaming.loop.reporting import ProgressLog, Reporting
from streaming.loop.runtime import Runtime
from streaming.loop.state import State
from streaming.ops.log import place

__all__ = ["Rebuild"]

_log = structlog.stdlib.get_logger("streaming.loop.rebuild")


class Rebuild:
    """Brings the state up to the positions of the assigned partitions.

    Args:
        state: does the reading.
        progress: where the loop stands.
        settle: commits what is under way.
        committing: notes in the group what the state is made of.
        lineages: know what that is.
        poison: takes in what is known of records that kill.
        reporting: is told that the loop goes round.
        runtime: see `Runtime`.
        log: says how far it is.
    """

    def __init__(
        self,
        state: State,
        progress: Progress,
        settle: Callable[[], None],
        committing: Committing,
        lineages: Lineages,
        poison: Poison,
        reporting: Reporting,
        runtime: Runtime,
        log: ProgressLog,
    ) -> None:
        self._state, self._progress, self._settle, self._committing = state, progress, settle, committing
        self._lineages, self._poison, self._reporting, self._progress_log = lineages, poison, reporting, log
        self._metrics, self._health = runtime.metrics, runtime.health
        self._stop, self._clock = runtime.stop, runtime.clock

    def run(self) -> None:
        """Reads what is missing; returns early, to be called again, when partitions come or go meanwhile."""
        source = self._progress.source
        self._settle()
        self._health.not_ready("state", "rebuilding")
        self._metrics.rebuilds.inc()
        source.pause()
        self._progress_log.begin()
        generation = source.generation
        with contextlib.suppress(Rebalanced):
            if self._learn_refused(generation):
                self._make(generation)
        # Also when what was to come has gone again: the partitions that stayed must flow.
        if not source.pending:
            self._health.ready("state")
        source.resume()

    def _learn_refused(self, generation: int) -> bool:
        """Learns which records are dead letters; False: told to stop, or `generation` has passed."""
        source = self._progress.source
        letters = 0
        for count in source.refused.update():
            letters += count
            self._reporting.goes_round()
            source.keep_alive()
            self._progress_log.tell("reading dead letters", letters=letters)
            if self._stop.is_set() or generation != source.generation:
                return False
        return True

    def _make(self, generation: int) -> None:
        """Brings the tables up to the pending partitions' positions, unless `generation` passes meanwhile."""
        progress, source, start = self._progress, self._progress.source, self._clock.monotonic()
        self._poison.read_journals(source.positions)
        rows = self._state.catch_up(generation)
        self._lineages.topics.check()
        if generation != source.generation or self._stop.is_set() or not self._note_lineages():
            return
        source.accept()
        batch = progress.batch()
        batch.state_after = standing = progress.standing()
        self._state.committed(batch)
        self._poison.rebuilt()
        self._poison.clear_before({**standing.dimensions, **standing.actions}, progress.dimensions.committed)
        _log.info(
            "state is ready",
            rows=rows,
            seconds=round(self._clock.monotonic() - start, 2),
            partitions=[place(*p, offset) for p, offset in source.positions.items()],
        )

    def _note_lineages(self) -> bool:
        """Has the group note what the state is made of, where it does not know; False: that was aborted."""
        progress = self._progress
        offsets = dict(progress.source.positions)
        if progress.owns_dimensions():
            offsets |= {p: progress.dimensions.committed.get(p, 0) for p in progress.dimensions.positions}
        if not (unnoted := self._lineages.unnoted(offsets)):
            return True
        batch = progress.batch()
        batch.commit_offsets = unnoted
        self._committing.publish(batch, None)
        return self._committing.finished()
