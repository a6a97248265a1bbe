"""The verdict on a model: its interval holds what it says, and chance or next to nothing is not exported."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from batch.dataset.read import DatasetError
from batch.report.figures import wilson
from batch.report.probability_metrics import ProbabilityMetrics, measure
from batch.train.export import ExportOptions, export_artifact
from batch.train.verdict import CLASS_MIN, Evaluated, judge, read_evaluated, write_evaluated
from streaming.model.auc import auc_interval


def drawn(positives: int, negatives: int, signal: float, seed: int) -> ProbabilityMetrics:
    """Of a model whose log odds are right for two normal distributions that are `signal` apart."""
    generator = np.random.default_rng(seed)
    labels = np.repeat([1.0, 0.0], [positives, negatives])
    at = generator.normal(labels * signal, 1.0)
    rate = positives / (positives + negatives)
    odds = np.log(rate / (1 - rate)) + signal * at - signal**2 / 2
    return measure(labels, 1 / (1 + np.exp(-odds)), rate)


@pytest.mark.parametrize(("positives", "negatives"), [(12, 400), (60, 60), (300, 2000)])
def test_the_interval_holds_the_true_auc_as_often_as_it_says(positives: int, negatives: int) -> None:
    true, worlds = 0.760250, 400  # of normal distributions 1 apart: Φ(1/√2)
    intervals = [drawn(positives, negatives, 1.0, seed) for seed in range(worlds)]
    held = sum(m.auc_low is not None and m.auc_high is not None and m.auc_low <= true <= m.auc_high for m in intervals)
    assert 0.92 <= held / worlds <= 0.98


def test_the_interval_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1], np.int8)
    found = auc_interval(labels, np.array([0.1, 0.2, 0.5, 0.3, 0.5, 0.9]))
    # shares of negatives below each positive 2/3, 5/6, 1 (the pair of 0.5 counts half), of positives above each
    # negative 1, 1, 1/2: the AUC is 5/6, its variance (1/36)/3 + (1/12)/3
    reach = 1.959964 * np.sqrt(1 / 108 + 1 / 36) / (5 / 36)
    assert found == pytest.approx(tuple(1 / (1 + np.exp(-(np.log(5) + sign * reach))) for sign in (-1, 1)))
    assert auc_interval(labels[2:4], np.array([0.1, 0.2])) is None
    # Three of each in order, and the other way round: no fault was seen, and may be all the same.
    assert auc_interval(labels, np.arange(6) / 6) == pytest.approx(wilson(3, 3) or (0, 0))
    assert auc_interval(labels, -np.arange(6) / 6) == pytest.approx(wilson(0, 3) or (0, 0))


def test_verdicts() -> None:
    good = drawn(40, 1000, 1.0, 1)
    assert judge({"test": good}).better
    assert judge({"val": drawn(20, 500, 0.0, 1), "test": good}).better, "the test part judges"
    few = judge({"test": drawn(1, 999, 3.0, 1)})
    assert not few.better
    assert "test has 1 positive and 999 negative samples" in few.text
    assert not judge({"test": drawn(1000, CLASS_MIN - 1, 3.0, 1)}).better
    assert not judge({"val": measure(np.zeros(50), np.full(50, 0.1), 0.1)}).better
    chance = judge({"val": drawn(200, 2000, 0.0, 1)})
    assert not chance.better
    assert "its order may be chance" in chance.text
    labels = np.repeat([1.0, 0.0], [40, 1000])
    sure = judge({"test": measure(labels, np.where(labels == 1, 0.99, 0.9), 40 / 1040)})
    assert not sure.better
    assert "its probabilities are worse" in sure.text


@pytest.mark.parametrize("field", ["log_loss", "base_log_loss", "auc_low", "base_auc"])
def test_what_is_no_number_is_no_better(field: str) -> None:
    good = drawn(40, 1000, 1.0, 1)
    assert judge({"test": good}).better
    changed: dict[str, Any] = {field: float("nan")}
    assert not judge({"test": dataclasses.replace(good, **changed)}).better


def test_chance_agrees_with_its_verdict() -> None:
    """Of models that know nothing one in forty passes: the interval's upper half of 5%."""
    passed = sum(judge({"test": drawn(50, 500, 0.0, seed)}).better for seed in range(400))
    assert passed <= 24


def test_a_weak_model_is_exported_only_where_that_is_accepted(
    tiny_dataset: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    weights = read_evaluated(tiny_checkpoint).weights_sha256
    write_evaluated(tmp_path, Evaluated(weights, test=drawn(1, 999, 3.0, 1)))
    artifact = tmp_path / "artifact"
    with pytest.raises(
        DatasetError, match=r"metrics\.json: the model cannot be judged: .* --accept-weak-model"
    ) as told:
        export_artifact(tiny_dataset, tiny_checkpoint, artifact, evaluation=tmp_path)
    assert "1 positive" in str(told.value)
    assert not artifact.exists()
    options = ExportOptions(accept_weak_model=True)
    manifest = export_artifact(tiny_dataset, tiny_checkpoint, artifact, options, evaluation=tmp_path)
    assert manifest.metrics == json.loads((tmp_path / "metrics.json").read_text())


def test_a_measurement_belongs_to_its_weights(tiny_dataset: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    there = read_evaluated(tiny_checkpoint)
    write_evaluated(tmp_path, msgspec.structs.replace(there, weights_sha256="sha256:other"))
    for accepted in (False, True):
        with pytest.raises(DatasetError, match=r"of a model with weights sha256:other, .* evaluate` again"):
            export_artifact(
                tiny_dataset,
                tiny_checkpoint,
                tmp_path / "artifact",
                ExportOptions(accept_weak_model=accepted),
                evaluation=tmp_path,
            )
    for content in (b"", b"\xff\xfe", b"[]", b"{}", json.dumps({"weights_sha256": there.weights_sha256}).encode()):
        (tmp_path / "metrics.json").write_bytes(content)
        with pytest.raises(DatasetError, match=r"metrics\.json"):
            export_artifact(tiny_dataset, tiny_checkpoint, tmp_path / "artifact", evaluation=tmp_path)
    weightless = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint", ignore=shutil.ignore_patterns("model"))
    with pytest.raises(DatasetError, match="model does not exist"):
        export_artifact(tiny_dataset, weightless, tmp_path / "artifact")
