"""The area under the ROC curve, with its confidence interval: of a report's samples, and of the board's scores."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["Z95", "auc_difference", "auc_interval", "auc_with_interval"]

Z95 = 1.959964
"""Standard deviations to either side that hold 95% of a normal distribution."""

Floats = npt.NDArray[np.floating]


def auc_with_interval(labels: npt.NDArray[np.int8], probabilities: Floats) -> tuple[float, float, float] | None:
    """The AUC, equal probabilities counting half, and both ends of its 95% confidence interval; of samples [n].

    DeLong's variance (DeLong et al. 1988), on the scale of the AUC's log odds: there the interval stays within 0 and 1.
    An order without a fault has no variance and yet is no certainty: its interval is Wilson's of as many hits in as
    many trials as the rarer class has samples. None where a class occurs less than twice.
    """
    positive, negative = np.sort(probabilities[labels == 1]), np.sort(probabilities[labels == 0])
    if min(len(positive), len(negative)) < 2:
        return None
    above, below = _share_below(negative, positive), 1 - _share_below(positive, negative)
    auc = float(above.mean())
    variance = float(above.var(ddof=1)) / len(positive) + float(below.var(ddof=1)) / len(negative)
    if not 0 < auc < 1:
        most = Z95 * Z95 / (min(len(positive), len(negative)) + Z95 * Z95)
        return (auc, 1 - most, 1.0) if auc >= 1 else (auc, 0.0, most)
    middle, reach = math.log(auc / (1 - auc)), Z95 * math.sqrt(variance) / (auc * (1 - auc))
    low, high = (1 / (1 + math.exp(-(middle + sign * reach))) for sign in (-1, 1))
    return auc, low, high


def auc_interval(labels: npt.NDArray[np.int8], probabilities: Floats) -> tuple[float, float] | None:
    """The interval of `auc_with_interval` alone."""
    found = auc_with_interval(labels, probabilities)
    return None if found is None else found[1:]


def auc_difference(labels: npt.NDArray[np.int8], one: Floats, other: Floats) -> tuple[float, float, float] | None:
    """By how much the AUC of `one` exceeds that of `other` on the same samples [n], with its 95% confidence interval.

    DeLong's, which knows that both were asked the same: what is hard for both does not widen it. None where a class
    occurs less than twice.
    """
    positive, negative = labels == 1, labels == 0
    if min(positive.sum(), negative.sum()) < 2:
        return None
    above, below = (
        _share_below(np.sort(one[negative]), one[positive]) - _share_below(np.sort(other[negative]), other[positive]),
        _share_below(np.sort(other[positive]), other[negative]) - _share_below(np.sort(one[positive]), one[negative]),
    )
    difference = float(above.mean())
    reach = Z95 * math.sqrt(float(above.var(ddof=1)) / len(above) + float(below.var(ddof=1)) / len(below))
    return difference, difference - reach, difference + reach


def _share_below(others: Floats, values: Floats) -> npt.NDArray[np.float64]:
    """Of each value, the share of the sorted `others` that is below it; equal ones count half."""
    ranks = np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")
    share: npt.NDArray[np.float64] = ranks / (2 * len(others))
    return share
