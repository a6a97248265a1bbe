"""Scores validation and test with a checkpoint: `metrics.json`, `predictions.parquet`, `report.json`, `report.html`.

jd-intent-batch evaluate --dataset DIR --checkpoint DIR
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from batch.dataset.folder_hash import digest
from batch.dataset.read import DatasetError, Part, PartName, read_field_names, read_info, read_part, read_slices
from batch.report.page import write_report
from batch.report.probability_metrics import ProbabilityMetrics, measure
from batch.report.report import (
    REPORT_HTML,
    REPORT_JSON,
    Importance,
    Measured,
    Model,
    make_report,
    read_history,
    versions,
)
from batch.train.checkpoint import Checkpoint, ModelShape, load_checkpoint, read_shape
from batch.train.importance import permutation_importance, samples_max
from batch.train.verdict import METRICS, Evaluated, judge, write_evaluated
from streaming.files.output_folder import Say, link, made, replacing

__all__ = ["evaluate_checkpoint"]

PREDICTIONS = "predictions.parquet"
PARTS: tuple[PartName, ...] = ("val", "test")


def evaluate_checkpoint(
    dataset: Path, checkpoint: Path, out: Path | None = None, *, force: Say | None = None
) -> dict[str, ProbabilityMetrics]:
    """Metrics of the parts `val` and `test`, whichever the dataset has, each beside the base rate's.

    Writes into `out` (by default the checkpoint's folder) `metrics.json`, `predictions.parquet` (part string,
    request_id string, probability float32, label int8) and the report (`batch.report`). The dataset may be a later one,
    encoded with the same encoder; then `out` must be another folder, because the checkpoint's own metrics go into the
    artifact. `force`, for such a folder: see `streaming.files.output_folder.replacing`.

    Raises:
        DatasetError: a file is missing or wrong, the checkpoint was trained with another encoder, or `dataset` is not
            the one of the checkpoint and `out` is None; or the model answers something that is no number.
        OutputRefused: `out` holds something else, or touches an input.
    """
    info, shape = read_info(dataset), read_shape(checkpoint)
    if info.encoder_sha256 != shape.encoder_sha256:
        raise DatasetError(
            f"{checkpoint} was trained with encoder {shape.encoder_sha256}, {dataset} has {info.encoder_sha256}"
        )
    if out is None and info.data_sha256 != shape.data_sha256:
        raise DatasetError(f"{checkpoint} was trained on other data than {dataset}: name a folder for the results")
    parts = [name for name in PARTS if name in info.counts]
    if not parts:
        raise DatasetError(f"{dataset / 'dataset.json'}: counts has neither val nor test")
    if out is not None:
        with replacing(out, "evaluation", inputs=[dataset, checkpoint], force=force) as folder:
            return _measured(dataset, parts, checkpoint, folder)
    with replacing(checkpoint, "checkpoint", inputs=[dataset]) as folder:
        for name in made(checkpoint):
            if name not in (METRICS, PREDICTIONS, REPORT_JSON, REPORT_HTML):
                link(checkpoint / name, folder / name)
        return _measured(dataset, parts, checkpoint, folder)


def _measured(dataset: Path, parts: list[PartName], checkpoint: Path, folder: Path) -> dict[str, ProbabilityMetrics]:
    """Scores the parts; writes metrics, predictions and the report into `folder`."""
    from batch.train.deepfm import probabilities

    trained = load_checkpoint(checkpoint)
    measured: dict[str, Measured] = {}
    importance: tuple[list[Importance], int] = ([], 0)
    tables: list[pa.Table] = []
    for name in parts:
        part = read_part(dataset, name)
        rows = trained.vocabulary.lookup(part.ids)
        predicted = probabilities(trained.model, rows)
        wrong = np.flatnonzero(~np.isfinite(predicted))
        if len(wrong):
            request = part.request_ids[int(wrong[0])].as_py()
            raise DatasetError(f"{checkpoint}: the model answers {predicted[wrong[0]]} for request {request} of {name}")
        metrics = measure(part.labels, predicted, trained.shape.base_rate)
        measured[name] = Measured(part.labels, predicted, metrics, read_slices(dataset, name, part.count))
        if name == parts[-1]:  # the part that the verdict is on
            importance = _importance(dataset, trained, rows, part)
        columns = {
            "part": pa.array([name] * part.count),
            "request_id": part.request_ids,
            "probability": pa.array(predicted, pa.float32()),
            "label": pa.array(part.labels.astype(np.int8)),
        }
        tables.append(pa.table(columns))
    found = {name: part.metrics for name, part in measured.items()}
    weights = digest(checkpoint / "model")
    write_evaluated(folder, Evaluated(weights, found.get("val"), found.get("test")))
    pq.write_table(pa.concat_tables(tables), folder / PREDICTIONS)
    _write_report(folder, dataset, checkpoint, trained.shape, weights, measured, importance)
    return found


def _importance(
    dataset: Path, trained: Checkpoint, rows: npt.NDArray[np.int32], part: Part
) -> tuple[list[Importance], int]:
    """Of the model's inputs, by the samples of a part."""
    from batch.train.deepfm import probabilities

    options, fields = trained.shape.options, trained.shape.fields
    return permutation_importance(
        lambda asked: probabilities(trained.model, asked),
        rows,
        part.labels,
        read_field_names(dataset, fields),
        samples=samples_max(fields, options["embedding"], options["layers"]),
        seed=options["seed"],
    )


def _write_report(
    folder: Path,
    dataset: Path,
    checkpoint: Path,
    shape: ModelShape,
    weights: str,
    measured: Mapping[str, Measured],
    importance: tuple[Sequence[Importance], int],
) -> None:
    info = read_info(dataset)
    hashes = {
        "application": f"sha256:{info.app_sha256}",
        "query": shape.sql_sha256,
        "encoder": shape.encoder_sha256,
        "trained on": shape.data_sha256,
        "judged on": info.data_sha256,
        "weights": weights,
    }
    verdict = judge({name: part.metrics for name, part in measured.items()})
    report = make_report(
        info,
        Model(shape.options, shape.rows, hashes, versions()),
        read_history(checkpoint),
        measured,
        importance,
        (verdict.better, f"The model {verdict.text}"),
        shape.options["seed"],
    )
    write_report(folder, report)
