"""Which of two models is better, where both were asked the same: beside drawing the samples again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.reports import report_of
from sklearn.metrics import roc_auc_score

from batch.dataset.read import DatasetError
from batch.report.comparison import compare_reports
from batch.report.page import write_report
from streaming.model.auc import auc_difference

COUNT = 3000


def two_models(noise: float) -> tuple[Any, Any, Any]:
    """Labels, what a model says, and what one says that sees the same less clearly."""
    generator = np.random.default_rng(3)
    labels = (generator.random(COUNT) < 0.1).astype(np.float32)
    odds = generator.normal(size=COUNT) + 1.5 * labels - 2
    other = odds + generator.normal(size=COUNT) * noise
    good, weak = ((1 / (1 + np.exp(-one))).astype(np.float32) for one in (odds, other))
    return labels, good, weak


def evaluation(folder: Path, labels: Any, probabilities: Any, ids: list[str], *, said: Any = None) -> Path:
    """What `evaluate` writes; `said`: probabilities of its file, where they are others than the report's."""
    folder.mkdir()
    write_report(folder, report_of({"test": (labels, probabilities)}))
    columns = {"part": ["test"] * COUNT, "request_id": ids, "label": pa.array(labels.astype(np.int8))}
    kept = pa.array(probabilities if said is None else said, pa.float32())
    pq.write_table(pa.table({**columns, "probability": kept}), folder / "predictions.parquet")
    return folder


def test_the_difference_is_that_of_samples_drawn_again() -> None:
    labels, good, weak = two_models(0.5)
    found = auc_difference(labels.astype(np.int8), good, weak)
    assert found is not None
    assert found[0] == pytest.approx(roc_auc_score(labels, good) - roc_auc_score(labels, weak), abs=1e-9)
    generator, drawn = np.random.default_rng(1), []
    for _ in range(400):
        at = generator.integers(0, COUNT, COUNT)
        drawn.append(roc_auc_score(labels[at], good[at]) - roc_auc_score(labels[at], weak[at]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert found[1:] == pytest.approx((low, high), abs=0.15 * (high - low))
    back = auc_difference(labels.astype(np.int8), weak, good)
    assert back == pytest.approx((-found[0], -found[2], -found[1]))
    assert auc_difference(np.array([1, 0, 0], np.int8), np.arange(3.0), np.arange(3.0)) is None


def test_two_models_on_the_same_requests_are_told_apart_though_their_intervals_overlap(tmp_path: Path) -> None:
    labels, good, weak = two_models(0.5)
    ids = [f"r{at}" for at in range(COUNT)]
    one = evaluation(tmp_path / "one", labels, good, ids)
    order = np.random.default_rng(0).permutation(COUNT)  # whatever their order
    other = evaluation(tmp_path / "other", labels[order], weak[order], [ids[at] for at in order])
    *_, told = compare_reports(one, other, tmp_path / "out")
    assert told.startswith("one is better than other: AUC ")
    assert "with 95% confidence, on the same requests" in told
    assert compare_reports(other, one, tmp_path / "back")[-1] == told
    assert f'<p class="verdict told">{told}</p>' in (tmp_path / "out" / "report.html").read_text()
    (other / "predictions.parquet").unlink()
    *_, told = compare_reports(one, other, tmp_path / "intervals")
    assert told.startswith("one and other cannot be told apart by their intervals: AUC ")


def test_what_cannot_be_paired_goes_by_the_intervals(tmp_path: Path) -> None:
    labels, good, weak = two_models(0.5)
    ids = [f"r{at}" for at in range(COUNT)]
    one = evaluation(tmp_path / "one", labels, good, ids)
    others = evaluation(tmp_path / "others", labels, weak, ["x", *ids[1:]])
    twice = evaluation(tmp_path / "twice", labels, weak, [ids[1], *ids[1:]])
    older = evaluation(tmp_path / "older", labels, weak, ids, said=good)
    for other in (others, twice, older):
        assert "by their intervals" in compare_reports(one, other, tmp_path / "out")[-1], other
    (others / "predictions.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"predictions\.parquet: not the predictions"):
        compare_reports(one, others, tmp_path / "out")
