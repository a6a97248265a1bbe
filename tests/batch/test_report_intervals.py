"""Intervals of a report: where nothing speaks against, one for one figure, and those of many samples."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
from fixtures.reports import report_of, samples

from batch.report.figures import PartFigures, part_figures, wilson
from batch.report.page import page
from batch.report.probability_metrics import measure
from batch.report.ranking import Ranking


def figures_of(labels: Any, scores: Any) -> PartFigures:
    return part_figures(measure(labels, scores, 0.1), Ranking.of(labels, scores), [], 1)


def test_what_no_sample_speaks_against_is_not_certain() -> None:
    """The highest seven are all positive, and so are they however often they are drawn again."""
    labels = np.repeat([1.0, 0.0], [70, 6930])
    found = figures_of(labels, np.linspace(1, 0, 7000))
    assert found.top[0].precision == 1
    assert found.top[0].precision_interval == wilson(7, 7)
    assert found.metrics.auc_low is not None
    assert found.metrics.auc_low == pytest.approx((wilson(70, 70) or (0, 0))[0])


def test_verdict_and_page_say_one_interval_of_the_log_loss() -> None:
    report = report_of({"test": samples(900, 90, 1.5, 2)})
    shown = " ".join(ET.fromstring(page({"": report})).itertext())
    m = report.parts["test"].figures.metrics
    assert report.parts["test"].figures.log_loss_interval == (m.log_loss_low, m.log_loss_high)
    assert f"log loss {m.log_loss:.4f}, {m.log_loss_low:.4f} to {m.log_loss_high:.4f}" in report.verdict
    assert f"{m.log_loss:.4f} ({m.log_loss_low:.4f} to {m.log_loss_high:.4f})" in shown


def test_many_scores_are_drawn_as_few_and_yet_give_the_same_intervals() -> None:
    """Samples merged with their neighbours: the curves are of all of them, the bands as wide as without merging."""
    generator = np.random.default_rng(4)
    labels = (generator.random(60_000) < 0.04).astype(np.float32)
    scores = (1 / (1 + np.exp(3 - generator.normal(size=60_000) - 1.5 * labels))).astype(np.float32)
    ranking, metrics = Ranking.of(labels, scores), measure(labels, scores, 0.04)
    few = ranking.merged(5000)
    assert len(ranking.scores) > 50_000
    assert len(few.scores) <= 10_001
    assert (few.count, few.positive) == (60_000, labels.sum())
    assert few.merged(20_000) is few
    assert max(few.positives) <= labels.sum() / 5000 + 2
    assert max(few.negatives) <= (60_000 - labels.sum()) / 5000 + 2
    assert few.auc() == pytest.approx(ranking.auc(), abs=1e-4)
    assert few.log_loss() == pytest.approx(ranking.log_loss(), abs=1e-4)
    merged = part_figures(metrics, ranking, [], 1)
    one_by_one = bands(ranking, 100)
    for name, curve, values in (
        ("roc", merged.roc, ranking.roc),
        ("precision", merged.precision_recall, ranking.precision),
    ):
        assert curve is not None
        assert curve.y == pytest.approx(values(np.array(curve.x)), abs=1e-6)
        assert curve.low is not None
        assert curve.high is not None
        low, high = one_by_one[name]
        for at in range(5, 96, 10):
            wide = high[at] - low[at]
            assert curve.low[at] == pytest.approx(low[at], abs=0.35 * wide + 1e-3)
            assert curve.high[at] == pytest.approx(high[at], abs=0.35 * wide + 1e-3)


def bands(ranking: Ranking, rounds: int) -> dict[str, tuple[Any, Any]]:
    """The middle 95% of curves whose samples are drawn one by one."""
    generator, grid = np.random.default_rng(9), np.linspace(0, 1, 101, dtype=np.float64)
    drawn = [ranking.resampled(generator) for _ in range(rounds)]
    curves = {"roc": [one.roc(grid) for one in drawn], "precision": [one.precision(grid) for one in drawn]}
    return {name: tuple(np.percentile(np.stack(some), [2.5, 97.5], axis=0)) for name, some in curves.items()}
