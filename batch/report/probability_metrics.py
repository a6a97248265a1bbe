"""How good probabilities are: AUC, log loss, calibration error, each beside the constant base rate's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import log_loss, roc_auc_score

from batch.report.ranking import Ranking
from streaming.model.auc import auc_interval

__all__ = ["BINS", "ProbabilityMetrics", "calibration_error", "measure"]

BINS = 10
Z_95 = 1.96  # normal deviates that hold 95%

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class ProbabilityMetrics:
    """Of one part. `auc` is None where only one class occurs; a constant's AUC is 0.5 by definition.

    Args:
        auc_low, auc_high: its 95% confidence interval; None where a class occurs less than twice.
        log_loss_low, log_loss_high: the same of the log loss, as of a mean of independent samples.
        calibration_error: expected calibration error over 10 bins of equal count.
        base_rate: the share of positives in the *training* part, which the base columns predict for every sample.
    """

    count: int
    positives: int
    auc: float | None
    log_loss: float
    calibration_error: float
    base_rate: float
    base_auc: float
    base_log_loss: float
    base_calibration_error: float
    auc_low: float | None = None
    auc_high: float | None = None
    log_loss_low: float | None = None
    log_loss_high: float | None = None


def measure(labels: Floats, probabilities: Floats, base_rate: float) -> ProbabilityMetrics:
    """Compares `probabilities` [n] in [0, 1] with `labels` [n] of 0 and 1."""
    y = labels.astype(np.int8)
    p = probabilities.astype(np.float64)
    constant = np.full(len(y), base_rate)
    both = 0 < int(y.sum()) < len(y)
    low, high = auc_interval(y, p) or (None, None)
    loss = float(log_loss(y, p, labels=[0, 1]))
    edge = np.finfo(p.dtype).eps  # as scikit-learn keeps infinite losses away
    losses = -np.log(np.clip(np.where(y == 1, p, 1 - p), edge, 1 - edge))
    margin = Z_95 * float(losses.std(ddof=1)) / math.sqrt(len(y)) if len(y) > 1 else None
    return ProbabilityMetrics(
        count=len(y),
        positives=int(y.sum()),
        auc=float(roc_auc_score(y, p)) if both else None,
        log_loss=loss,
        calibration_error=calibration_error(labels, p),
        base_rate=base_rate,
        base_auc=0.5,
        base_log_loss=float(log_loss(y, constant, labels=[0, 1])),
        base_calibration_error=abs(base_rate - float(y.mean())),
        auc_low=low,
        auc_high=high,
        log_loss_low=None if margin is None else loss - margin,
        log_loss_high=None if margin is None else loss + margin,
    )


def calibration_error(labels: Floats, probabilities: Floats) -> float:
    """Expected calibration error: samples sorted by probability, cut into 10 bins of equal count; the mean distance of
    a bin's mean probability from its share of positives, weighted by the bin's size (Guo et al. 2017, equal-mass bins).
    A cut within samples of equal probability takes the expected share of them.
    """
    return float(np.abs(Ranking.of(labels, probabilities).calibration_gaps(BINS)).sum())
