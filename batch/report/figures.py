"""The figures of one part of a dataset, each with its interval where there are samples enough for one.

Intervals are of 95%. Those of curves come from a seeded bootstrap: the samples are drawn again, with replacement,
`ROUNDS` times, and the middle 95% of what comes of it are the interval. Shares have Wilson's: what is drawn again of
seven that are all positive is all positive, too, and would say that nothing else can be. The log loss has that of
a mean, the same that the verdict says.

Of many scores neighbours are drawn as one (`DRAWN_MAX`): what that changes in a curve, some ten-thousandths, is taken
from the interval, and two million samples take a second where they took minutes.

A calibration error is a sum of distances: chance alone makes it greater than zero, and drawing again makes it greater
still. So what is drawn is shifted by as much as its mean exceeds the figure, and the interval reaches down to zero
where a model that is right would have such an error in one of forty worlds or more.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from batch.report.probability_metrics import BINS, ProbabilityMetrics
from batch.report.ranking import Floats, Ranking
from streaming.model.auc import Z95

__all__ = [
    "CLASS_MIN",
    "Bin",
    "Curve",
    "Cut",
    "Histogram",
    "Interval",
    "PartFigures",
    "Threshold",
    "choose_thresholds",
    "part_figures",
    "wilson",
]

CLASS_MIN = 10
"""Positives, and negatives, below which nothing can be said: the AUC of a coin then has a standard error of 0.1."""

ROUNDS = 200
DRAWN_MAX = 5_000  # see `Ranking.merged`
GRID = 101
SHARES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
HISTOGRAM_BINS = 30
_LOG_ODDS_MAX = 12.0  # beyond it float32 probabilities are 0 or 1

Interval = tuple[float, float] | None


class Curve(msgspec.Struct, frozen=True):
    """Points of a curve. `low`, `high`: the interval at each x; none: too few samples of a class."""

    x: list[float]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None


class Bin(msgspec.Struct, frozen=True):
    """Samples of like probability: `mean` is what the model says of them, `rate` the share that was positive."""

    count: int
    mean: float
    rate: float
    interval: Interval


class Histogram(msgspec.Struct, frozen=True):
    """Samples by probability: `edges` [b + 1] are evenly spaced in log odds; counts [b] by class."""

    edges: list[float]
    positives: list[int]
    negatives: list[int]


class Cut(msgspec.Struct, frozen=True):
    """The `count` samples of the highest score, the `share` of all: what is among them.

    Attributes:
        threshold: the lowest score among them.
        precision: the share of positives; `lift`: the same as a multiple of the share of positives in all samples.
        recall: the share of all positives that is among them; None: there is no positive.
    """

    share: float
    count: int
    threshold: float
    precision: float
    precision_interval: Interval
    lift: float | None
    recall: float | None


class Threshold(msgspec.Struct, frozen=True):
    """What it would mean to act on every sample whose probability is `probability` or more.

    Attributes:
        name: why this threshold.
        chosen: samples to act on; `right` of them are positive; `missed`: positives that are not among them.
        per_positive: samples to act on for each positive; None: there is none.
    """

    name: str
    probability: float
    chosen: int
    right: int
    missed: int
    precision: float | None
    precision_interval: Interval
    recall: float | None
    recall_interval: Interval
    lift: float | None
    per_positive: float | None


class PartFigures(msgspec.Struct, frozen=True):
    """All figures of a part; `roc` and `precision_recall` are None where a class is missing.

    Attributes:
        log_loss_interval, calibration_error_interval: of those of `metrics`.
    """

    metrics: ProbabilityMetrics
    average_precision: float | None
    average_precision_interval: Interval
    roc: Curve | None
    precision_recall: Curve | None
    reliability: list[Bin]
    histogram: Histogram
    top: list[Cut]
    thresholds: list[Threshold]
    log_loss_interval: Interval = None  # a report of before they were measured has neither
    calibration_error_interval: Interval = None


def part_figures(
    metrics: ProbabilityMetrics, ranking: Ranking, thresholds: list[tuple[str, float]], seed: int
) -> PartFigures:
    """The figures of a part of at least one sample.

    Args:
        metrics: of the same samples.
        thresholds: names and probabilities, see `choose_thresholds`.
        seed: of the bootstrap.
    """
    n, positive = ranking.count, ranking.positive
    both = 0 < positive < n
    enough = min(positive, n - positive) >= CLASS_MIN
    grid: Floats = np.linspace(0, 1, GRID, dtype=np.float64)
    counts = sorted({max(1, round(share * n)) for share in SHARES})
    drawn = _bootstrap(ranking, grid, seed) if enough else {}
    base = positive / n

    def curve(name: str, values: Floats) -> Curve:
        low, high = drawn.get(name, (None, None))
        return Curve(_rounded(grid), _rounded(values), _maybe(low), _maybe(high))

    def interval(name: str) -> Interval:
        return (float(drawn[name][0][0]), float(drawn[name][1][0])) if name in drawn else None

    top = []
    for count in counts:
        hits = ranking.hits(count)
        top.append(
            Cut(
                share=count / n,
                count=count,
                threshold=ranking.score_at(count),
                precision=hits / count,
                precision_interval=wilson(hits, count) if enough else None,
                lift=hits / count / base if positive else None,
                recall=hits / positive if positive else None,
            )
        )
    return PartFigures(
        metrics=metrics,
        average_precision=ranking.average_precision() if positive else None,
        average_precision_interval=interval("average_precision"),
        roc=curve("roc", ranking.roc(grid)) if both else None,
        precision_recall=curve("precision_recall", ranking.precision(grid)) if both else None,
        reliability=_reliability(ranking),
        histogram=_histogram(ranking),
        top=top,
        thresholds=[_threshold(ranking, name, value) for name, value in thresholds],
        log_loss_interval=(metrics.log_loss_low, metrics.log_loss_high)
        if enough and metrics.log_loss_low is not None and metrics.log_loss_high is not None
        else None,
        calibration_error_interval=interval("calibration_error"),
    )


def choose_thresholds(ranking: Ranking) -> list[tuple[str, float]]:
    """Three thresholds with their names: few and sure, balanced, and wide; of a part without positives only the first.

    They are chosen on validation and then applied to every part, as they would be in use.
    """
    n = ranking.count
    found = [("the highest 1%", ranking.score_at(max(1, round(0.01 * n))))]
    if not ranking.positive:
        return found
    right = np.cumsum(ranking.positives)
    taken = right + np.cumsum(ranking.negatives)
    best = int(np.argmax(2 * right / (taken + ranking.positive)))
    found.append(("best F1", float(ranking.scores[best])))
    wide = int(np.searchsorted(right, 0.8 * ranking.positive - 1e-9))
    found.append(("recall of 80%", float(ranking.scores[wide])))
    return found


def wilson(hits: float, count: float) -> Interval:
    """The 95% interval of a share (Wilson 1927); None: of nothing."""
    if count <= 0:
        return None
    share, square = hits / count, Z95 * Z95
    middle = (share + square / (2 * count)) / (1 + square / count)
    reach = Z95 * math.sqrt(share * (1 - share) / count + square / (4 * count * count)) / (1 + square / count)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _bootstrap(
    ranking: Ranking, grid: Floats, seed: int
) -> dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Of each figure the ends of its interval, [m] each."""
    generator = np.random.default_rng(seed)
    merged = ranking.merged(DRAWN_MAX)
    drawn: list[dict[str, Floats]] = []
    gaps = []
    for _ in range(ROUNDS):
        again = merged.resampled(generator)
        if 0 < again.positive < again.count:
            drawn.append(_drawn_figures(again, grid))
            gaps.append(again.calibration_gaps(BINS))
    exact, rough = _drawn_figures(ranking, grid), _drawn_figures(merged, grid)
    ends: dict[str, tuple[Floats, Floats]] = {}
    for name, values in exact.items():
        low, high = np.percentile(np.stack([one[name] for one in drawn]), [2.5, 97.5], axis=0)
        shift = values - rough[name]
        ends[name] = np.clip(low + shift, 0, 1), np.clip(high + shift, 0, 1)
    ends["calibration_error"] = _calibration_ends(ranking.calibration_gaps(BINS), np.stack(gaps))
    return ends


def _drawn_figures(ranking: Ranking, grid: Floats) -> dict[str, Floats]:
    """What is drawn again and again, [m] each."""
    return {
        "roc": ranking.roc(grid),
        "precision_recall": ranking.precision(grid),
        "average_precision": np.array([ranking.average_precision()]),
    }


def _calibration_ends(gaps: Floats, drawn: Floats) -> tuple[Floats, Floats]:
    """The ends of the calibration error's interval, [1] each, see above.

    Args:
        gaps: of the samples, [b]; drawn: of each draw, [r, b].
    """
    error, errors = np.abs(gaps).sum(), np.abs(drawn).sum(axis=1)
    low, high = np.percentile(errors - (errors.mean() - error), [2.5, 97.5])
    by_chance = np.percentile(np.abs(drawn - gaps).sum(axis=1), 97.5)
    return np.array([0.0 if error <= by_chance else max(0.0, low)]), np.array([high])


def _reliability(ranking: Ranking) -> list[Bin]:
    """Bins of about as many samples each; a group of equal score is in one bin, that of its middle."""
    sizes = ranking.positives + ranking.negatives
    middles = np.cumsum(sizes) - sizes / 2
    place = np.minimum((BINS * middles / sizes.sum()).astype(int), BINS - 1)
    bins = []
    for at in range(BINS - 1, -1, -1):  # scores fall, bins rise
        chosen = place == at
        count, hits = float(sizes[chosen].sum()), float(ranking.positives[chosen].sum())
        if count:
            mean = float((ranking.scores[chosen] * sizes[chosen]).sum() / count)
            bins.append(Bin(int(count), mean, hits / count, wilson(hits, count)))
    return bins


def _histogram(ranking: Ranking) -> Histogram:
    bound = 1 / (1 + math.exp(_LOG_ODDS_MAX))
    clipped = np.clip(ranking.scores, bound, 1 - bound)
    odds = np.log(clipped / (1 - clipped))
    low, high = float(odds.min()), float(odds.max())
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, HISTOGRAM_BINS + 1)
    positives, _ = np.histogram(odds, edges, weights=ranking.positives)
    negatives, _ = np.histogram(odds, edges, weights=ranking.negatives)
    return Histogram(
        [float(edge) for edge in 1 / (1 + np.exp(-edges))],
        [round(value) for value in positives],
        [round(value) for value in negatives],
    )


def _threshold(ranking: Ranking, name: str, probability: float) -> Threshold:
    right, wrong = ranking.above(probability)
    chosen, positive = right + wrong, ranking.positive
    precision = right / chosen if chosen else None
    return Threshold(
        name=name,
        probability=probability,
        chosen=int(chosen),
        right=int(right),
        missed=int(positive - right),
        precision=precision,
        precision_interval=wilson(right, chosen),
        recall=right / positive if positive else None,
        recall_interval=wilson(right, positive),
        lift=precision / (positive / ranking.count) if precision is not None and positive else None,
        per_positive=chosen / right if right else None,
    )


def _rounded(values: Floats) -> list[float]:
    return [round(float(value), 6) for value in values]


def _maybe(values: Floats | None) -> list[float] | None:
    return None if values is None else _rounded(values)
