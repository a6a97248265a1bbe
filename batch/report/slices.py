"""How the model does on slices of a part: by a column's value, by the hour, for what training knew and did not know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from batch.dataset.read import Texts
from batch.report.figures import CLASS_MIN, Interval, wilson
from batch.report.ranking import Ranking
from streaming.model.auc import auc_interval

__all__ = ["Slice", "sliced"]

VALUES_MAX = 24  # as many as a day has hours


class Slice(msgspec.Struct, frozen=True):
    """Samples whose `by` is `value`.

    Attributes:
        rate: share of positives, with its interval; `mean`: what the model says on average.
        auc: None, with its interval, where a class has fewer samples than `CLASS_MIN`.
    """

    by: str
    value: str
    count: int
    positives: int
    rate: float
    mean: float
    auc: float | None
    auc_interval: Interval
    rate_interval: Interval = None  # a report of before it was measured has none


def sliced(
    columns: Mapping[str, Texts], labels: npt.NDArray[np.floating], probabilities: npt.NDArray[np.floating]
) -> list[Slice]:
    """The slices of a part, in the order of `columns`; of each column the most frequent values, then all the others.

    Args:
        columns: texts of n rows by what they are. One whose `VALUES_MAX` most frequent values are less than half of the
            samples is left out, as names of users and the like are, and one of a single value: it slices nothing.
        labels, probabilities: [n].
    """
    return [found for by, texts in columns.items() for found in _column(by, texts, labels, probabilities)]


def _column(
    by: str, texts: Texts, labels: npt.NDArray[np.floating], probabilities: npt.NDArray[np.floating]
) -> Iterator[Slice]:
    counts = np.bincount(texts.codes, minlength=len(texts.values))
    there = sorted(np.flatnonzero(counts).tolist(), key=texts.values.__getitem__)
    if len(there) < 2:
        return
    most = sorted(there, key=lambda code: -counts[code])[:VALUES_MAX]
    kept = [code for code in there if code in most]
    if 2 * counts[kept].sum() < len(texts.codes):
        return
    for code in kept:
        chosen = texts.codes == code
        yield _slice(by, texts.values[code], labels[chosen], probabilities[chosen])
    others = ~np.isin(texts.codes, kept)
    if others.any():
        name = f"{len(there) - len(kept):,} others"
        yield _slice(by, name, labels[others], probabilities[others])


def _slice(by: str, value: str, labels: npt.NDArray[np.floating], probabilities: npt.NDArray[np.floating]) -> Slice:
    count, positives = len(labels), int(labels.sum())
    enough = min(positives, count - positives) >= CLASS_MIN
    p = probabilities.astype(np.float64)
    return Slice(
        by=by,
        value=value,
        count=count,
        positives=positives,
        rate=positives / count,
        mean=float(p.mean()),
        auc=Ranking.of(labels, p).auc() if enough else None,
        auc_interval=auc_interval(labels.astype(np.int8), p) if enough else None,
        rate_interval=wilson(positives, count),
    )
