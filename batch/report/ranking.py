"""Samples by their score: what every curve and every cut of a report is counted from.

Samples of equal score are one group and are never told apart: no figure depends on the order in which they came. A cut
within a group takes the expected share of it, as a random order would.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "Ranking"]

Floats = npt.NDArray[np.float64]

_SURE = float(np.finfo(np.float64).eps)  # from certainty: a log loss stays finite, and is scikit-learn's


@dataclass(frozen=True)
class Ranking:
    """Groups of equal score, the highest first.

    Attributes:
        scores: float64 [g], falling.
        positives, negatives: samples of the group, float64 [g]; of a resample a group may have none.
    """

    scores: Floats
    positives: Floats
    negatives: Floats

    @classmethod
    def of(cls, labels: npt.NDArray[np.floating], probabilities: npt.NDArray[np.floating]) -> Ranking:
        """Of samples [n]: labels of 0 and 1, finite probabilities."""
        values, place = np.unique(-probabilities.astype(np.float64), return_inverse=True)
        positives = np.bincount(place, weights=labels.astype(np.float64), minlength=len(values)).astype(np.float64)
        counts = np.bincount(place, minlength=len(values)).astype(np.float64)
        return cls(-values, positives, counts - positives)

    @property
    def count(self) -> int:
        """Samples."""
        return int(self.positives.sum() + self.negatives.sum())

    @property
    def positive(self) -> int:
        """Samples of label 1."""
        return int(self.positives.sum())

    def resampled(self, generator: np.random.Generator) -> Ranking:
        """As many samples, drawn with replacement (the bootstrap)."""
        cells = np.concatenate([self.positives, self.negatives])
        drawn = generator.multinomial(self.count, cells / cells.sum()).astype(np.float64)
        return Ranking(self.scores, drawn[: len(self.scores)], drawn[len(self.scores) :])

    def merged(self, most: int) -> Ranking:
        """Neighbours taken together, at the mean of their scores, so that no more than `2 * most` groups are left, none
        of them with more than one in `most` of either class besides its last score; few groups stay as they are."""
        if len(self.scores) <= most:
            return self
        sizes = self.positives + self.negatives
        place = np.zeros(len(sizes), np.int64)
        for counts in (self.positives, self.negatives):
            before = np.cumsum(counts) - counts
            place += (before * (most / max(1.0, float(counts.sum())))).astype(np.int64)
        first = np.flatnonzero(np.diff(place, prepend=-1))
        positives, negatives = np.add.reduceat(self.positives, first), np.add.reduceat(self.negatives, first)
        return Ranking(np.add.reduceat(self.scores * sizes, first) / (positives + negatives), positives, negatives)

    def hits(self, first: float) -> float:
        """Positives among the `first` samples of the highest score."""
        ends = np.cumsum(self.positives + self.negatives)
        at = np.concatenate([[0.0], ends])
        return float(np.interp(first, at, np.concatenate([[0.0], np.cumsum(self.positives)])))

    def above(self, threshold: float) -> tuple[float, float]:
        """Positives and negatives whose score is the threshold or more."""
        chosen = self.scores >= threshold
        return float(self.positives[chosen].sum()), float(self.negatives[chosen].sum())

    def score_at(self, first: float) -> float:
        """The lowest score among the `first` samples of the highest score."""
        ends = np.cumsum(self.positives + self.negatives)
        return float(self.scores[min(int(np.searchsorted(ends, first)), len(self.scores) - 1)])

    def auc(self) -> float:
        """The area under the ROC curve; NaN where a class is missing."""
        before = np.cumsum(self.negatives) - self.negatives
        total = self.positives.sum() * self.negatives.sum()
        if not total:
            return float("nan")
        return 1 - float((self.positives * (before + self.negatives / 2)).sum() / total)

    def roc(self, grid: Floats) -> Floats:
        """The true positive rate at false positive rates [m]; where the curve rises straight up, its upper end."""
        false = np.concatenate([[0.0], np.cumsum(self.negatives) / self.negatives.sum()])
        true = np.concatenate([[0.0], np.cumsum(self.positives) / self.positives.sum()])
        last = np.append(np.diff(false) > 0, True)
        curve: Floats = np.interp(grid, false[last], true[last])
        return curve

    def precision(self, grid: Floats) -> Floats:
        """The precision at recalls [m]: of the highest threshold that reaches the recall."""
        found = np.cumsum(self.positives)
        taken = found + np.cumsum(self.negatives)
        at = np.searchsorted(found, np.maximum(grid * found[-1] - 1e-9, 0.5))
        at = np.minimum(at, len(found) - 1)
        precision: Floats = found[at] / np.maximum(taken[at], 1)
        return precision

    def log_loss(self) -> float:
        """The mean of -log of what was said of the label that came, as scikit-learn's."""
        said = np.clip(self.scores, _SURE, 1 - _SURE)
        return -float((self.positives * np.log(said) + self.negatives * np.log1p(-said)).sum()) / self.count

    def calibration_gaps(self, bins: int) -> Floats:
        """By how much what is said exceeds what happens, in each of so many bins of equal count, the lowest scores
        first: of the mean score less the share of positives, each times the bin's share of all samples, [bins]."""
        sizes = (self.positives + self.negatives)[::-1]
        ends = np.concatenate([[0.0], np.cumsum(sizes)])
        base, over = divmod(self.count, bins)
        edges = np.concatenate([[0.0], np.cumsum([base + (at < over) for at in range(bins)])])
        said = np.interp(edges, ends, np.concatenate([[0.0], np.cumsum(self.scores[::-1] * sizes)]))
        came = np.interp(edges, ends, np.concatenate([[0.0], np.cumsum(self.positives[::-1])]))
        gaps: Floats = np.diff(said - came) / self.count
        return gaps

    def average_precision(self) -> float:
        """The mean of the precision over the positives, as scikit-learn's; NaN where there is none."""
        found = np.cumsum(self.positives)
        if not found[-1]:
            return float("nan")
        precision = found / np.maximum(found + np.cumsum(self.negatives), 1)
        return float((precision * self.positives).sum() / found[-1])
