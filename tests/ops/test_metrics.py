"""AUC, log loss and calibration error, each beside the base rate's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from batch.report.probability_metrics import calibration_error, measure


def test_by_hand() -> None:
    labels = np.array([0, 1, 0, 1], np.float32)
    probabilities = np.array([0.1, 0.9, 0.6, 0.4], np.float32)
    metrics = measure(labels, probabilities, base_rate=0.25)
    assert metrics.auc == 0.75  # of 4 pairs, (0.4, 0.6) is in the wrong order
    expected = -(math.log(0.9) + math.log(0.9) + math.log(0.4) + math.log(0.4)) / 4
    assert metrics.log_loss == pytest.approx(expected, abs=1e-6)
    assert metrics.base_log_loss == pytest.approx(-(math.log(0.25) + math.log(0.75)) / 2)
    assert metrics.base_calibration_error == pytest.approx(0.25)
    assert (metrics.count, metrics.positives, metrics.base_auc) == (4, 2, 0.5)


def test_calibration_error_is_zero_for_the_truth_and_the_shift_for_a_shifted_one() -> None:
    generator = np.random.default_rng(0)
    truth = generator.uniform(0.1, 0.8, 200_000)
    labels = (generator.random(len(truth)) < truth).astype(np.float32)
    assert calibration_error(labels, truth) < 0.005
    assert calibration_error(labels, truth + 0.1) == pytest.approx(0.1, abs=0.005)


def test_calibration_bins_hold_equal_counts() -> None:
    # 10 samples, 10 bins of one: the error is the mean distance.
    probabilities = np.linspace(0.05, 0.95, 10)
    labels = np.zeros(10, np.float32)
    assert calibration_error(labels, probabilities) == pytest.approx(0.5)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_auc(label: int) -> None:
    metrics = measure(np.full(5, label, np.float32), np.linspace(0.1, 0.9, 5), base_rate=0.5)
    assert metrics.auc is None
    assert math.isfinite(metrics.log_loss)
