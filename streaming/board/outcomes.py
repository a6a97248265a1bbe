"""What became of the scores that are kept: their labels as far as they are known, and the AUC over these.

Events are kept as two numbers each; labels and AUC are computed anew from all of them and the ring, at most every two
seconds, on a thread of its own and by numpy, outside of any lock. So an event that comes late, or before its score,
counts as any other.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import structlog

from streaming.app.folder import App
from streaming.app.later_event import NEVER, next_event
from streaming.app.topics import TopicNames
from streaming.board.fields import ScoreFields
from streaming.board.labels import NO_KEY, Labels, NoLabels, find_labels
from streaming.board.pairs import NO_TIME, Pairs
from streaming.errors import BadInput
from streaming.events.batch import EventBatch
from streaming.model.auc import auc_with_interval

__all__ = ["CLASS_MIN", "AucFigures", "Outcome", "Outcomes", "scores_kept"]

CLASS_MIN = 5
"""Of fewer matured scores of a class no AUC is told."""

EVENTS_MAX = 500_000
PIECES_MAX = 1000  # of them, as they were taken: then they are put together
BURST_PER_S = 10_000
COMPUTE_S = 2.0
REST = 4  # the thread rests at least so many times as long as it has computed

NOT_YET, NO, YES = -1, 0, 1

Int64 = npt.NDArray[np.int64]

_log = structlog.stdlib.get_logger("streaming.board.outcomes")
_STARTED = int(NEVER)


@dataclass(frozen=True)
class AucFigures:
    """The AUC over the kept scores whose label is known.

    Attributes:
        missing: why there are no labels; "": there are.
        loaded: all labels that were there at the start have been read.
        auc, low, high: with its 95% interval; None: `positives` or the others are fewer than `CLASS_MIN`.
        matured: scores whose label is known.
        positives: of them, of label 1.
        known_to: the event time up to which labels are known, epoch ms; None: none has been read.
    """

    missing: str = ""
    loaded: bool = False
    auc: float | None = None
    low: float | None = None
    high: float | None = None
    matured: int = 0
    positives: int = 0
    known_to: int | None = None


@dataclass(frozen=True)
class Outcome:
    """The label of a score: None: not known yet; `after_ms`: of a positive, how long after the request."""

    label: int | None
    after_ms: int | None = None


@dataclass(frozen=True)
class _Judged:
    """Of the scores number `first` and on their labels, and of positives the event's distance, in ms."""

    first: int = 0
    labels: npt.NDArray[np.int8] = field(default_factory=lambda: np.empty(0, np.int8))
    after: Int64 = field(default_factory=lambda: np.empty(0, np.int64))


def scores_kept(app: App, topics: TopicNames, fields: ScoreFields, scores_max: int) -> tuple[Pairs, Outcomes]:
    """What keeps the newest scores of an application, and what became of them."""
    try:
        labels: Labels | str = find_labels(app, topics, fields)
    except NoLabels as why:
        labels = str(why)
    pairs = Pairs(fields, scores_max, keys=None if isinstance(labels, str) else labels.keys)
    return pairs, Outcomes(labels, pairs)


class Outcomes:
    """The state. One thread takes events, any may ask.

    Args:
        labels: where they come from; a text: why there are none.
        pairs: the scores.
        events_max: so many label events are kept.
        every_s: how often labels are computed, at most.
    """

    def __init__(
        self, labels: Labels | str, pairs: Pairs, events_max: int = EVENTS_MAX, every_s: float = COMPUTE_S
    ) -> None:
        self.labels = None if isinstance(labels, str) else labels
        self._pairs, self._events_max, self._every_s = pairs, events_max, every_s
        self.figures = AucFigures(labels if isinstance(labels, str) else "")
        """As they were last computed."""
        self._judged = _Judged()
        self._lock = threading.Lock()
        self._codes: list[Int64] = []
        self._times: list[Int64] = []
        self._count = 0
        self._reached = _STARTED
        self._floor = _STARTED  # events up to this time may have been forgotten
        self._loaded = False
        self._seen: object = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outcomes", daemon=True)

    def start(self) -> None:
        """Begins to compute, where there are labels."""
        if self.labels is not None:
            self._thread.start()

    def stop(self) -> None:
        """Computes no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    # ── taking labels ────────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, events: EventBatch) -> None:
        """Takes what makes labels of events."""
        if self.labels is None:
            return
        codes, times = self.labels.events(events.rows)
        if len(codes):
            with self._lock:
                self._codes.append(codes)
                self._times.append(times)
                self._count += len(codes)
                if len(self._codes) > PIECES_MAX:
                    self._codes, self._times = [np.concatenate(self._codes)], [np.concatenate(self._times)]
            if self._count > self._events_max:
                self._forget()

    def reach(self, time_ms: int | None, *, loaded: bool) -> None:
        """All label events up to a time have been taken; None: it is not known up to when.

        Args:
            loaded: all that are there.
        """
        with self._lock:
            self._reached = self._reached if time_ms is None else max(self._reached, time_ms)
            self._loaded |= loaded

    def in_burst(self) -> bool:
        """Whether so many scores come that labels had better wait."""
        return sum(self._pairs.per_second(2)) > 2 * BURST_PER_S

    @property
    def loaded(self) -> bool:
        """Whether all labels have been read that were there, or there are none."""
        return self.labels is None or self._loaded

    def events_kept(self) -> int:
        """How many label events there are."""
        return self._count

    def begins(self, time_ms: int) -> None:
        """Of events before a time some may never be taken: they are not in their topic any more."""
        with self._lock:
            self._floor = max(self._floor, time_ms)

    def _forget(self) -> None:
        """Forgets events that label no score that is kept; then, if there are still too many, the oldest."""
        kept = self._pairs.requests()
        known = kept.times[kept.times != NO_TIME]
        with self._lock:
            codes, times = np.concatenate(self._codes), np.concatenate(self._times)
            most = self._events_max * 3 // 4
            stay = times > (known.min() if len(known) else _STARTED)
            if stay.sum() > most:
                limit = np.partition(times, len(times) - most)[len(times) - most]
                stay &= times > limit
            if not stay.all():
                self._floor = max(self._floor, int(times[~stay].max()))
            self._codes, self._times, self._count = [codes[stay]], [times[stay]], int(stay.sum())

    # ── what became of the scores ────────────────────────────────────────────────────────────────────────────────────

    def of(self, number: int) -> Outcome | None:
        """What became of a score, by its number; None: there are no labels."""
        if self.labels is None:
            return None
        judged = self._judged
        at = number - judged.first
        if not 0 <= at < len(judged.labels) or judged.labels[at] == NOT_YET:
            return Outcome(None)
        return Outcome(YES, int(judged.after[at])) if judged.labels[at] == YES else Outcome(NO)

    def compute(self) -> None:
        """Computes labels and AUC, where anything has come since the last time."""
        if self.labels is None:
            return
        with self._lock:
            seen = (self._pairs.received, self._count, self._reached, self._floor, self._loaded)
            if seen == self._seen:
                return
            codes = np.concatenate([np.empty(0, np.int64), *self._codes])
            times = np.concatenate([np.empty(0, np.int64), *self._times])
            self._codes, self._times = [codes], [times]
            reached, floor, loaded = self._reached, self._floor, self._loaded
        kept = self._pairs.requests()
        of_kept = np.isin(codes, kept.codes)
        timed = kept.times != NO_TIME
        following = np.full(len(kept.times), NEVER, np.int64)
        horizon = self.labels.horizon_ms
        with_key = timed & (kept.codes != NO_KEY)
        following[with_key] = next_event(
            kept.codes[with_key], kept.times[with_key], codes[of_kept], times[of_kept], horizon
        )
        labels = np.full(len(kept.times), NOT_YET, np.int8)
        # An event that was forgotten may have followed a request of before.
        labels[timed & (kept.times <= reached - horizon) & (kept.times >= floor)] = NO
        yes = following != NEVER
        labels[yes] = YES
        known = labels != NOT_YET
        positives, matured = int(yes.sum()), int(known.sum())
        found = None
        if min(positives, matured - positives) >= CLASS_MIN:
            found = auc_with_interval(labels[known], kept.probabilities[known].astype(np.float64))
        auc, low, high = found or (None, None, None)
        self._judged = _Judged(kept.first, labels, np.where(yes, following - kept.times, 0))
        known_to = None if reached == _STARTED else reached
        self.figures = AucFigures("", loaded, auc, low, high, matured, positives, known_to)
        self._seen = seen

    def _run(self) -> None:
        rest = self._every_s
        while not self._stop.wait(rest):
            began = time.monotonic()
            try:
                self.compute()
            except BadInput as error:
                _log.warning("no labels", why=str(error))
                self.figures = AucFigures(str(error))
            rest = max(self._every_s, REST * (time.monotonic() - began))
