"""Scores validation and test with a checkpoint: `metrics.json`, `predictions.parquet`.

jd-intent-batch evaluate --dataset DIR --checkpoint DIR
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch.dataset.folder_hash import digest
from batch.dataset.read import DatasetError, PartName, read_info, read_part
from batch.train.checkpoint import load_checkpoint, read_shape
from batch.train.probability_metrics import ProbabilityMetrics, measure
from batch.train.verdict import METRICS, Evaluated, write_evaluated
from streaming.files.output_folder import Say, link, made, replacing

__all__ = ["evaluate_checkpoint"]

PREDICTIONS = "predictions.parquet"
PARTS: tuple[PartName, ...] = ("val", "test")


def evaluate_checkpoint(
    dataset: Path, checkpoint: Path, out: Path | None = None, *, force: Say | None = None
) -> dict[str, ProbabilityMetrics]:
    """Metrics of the parts `val` and `test`, whichever the dataset has, each beside the base rate's.

    Writes into `out` (by default the checkpoint's folder) `metrics.json` and `predictions.parquet`: part string,
    request_id string, probability float32, label int8. The dataset may be a later one, encoded with the same encoder;
    then `out` must be another folder, because the checkpoint's own metrics go into the artifact. `force`, for such a
    folder: see `streaming.files.output_folder.replacing`.

    Raises:
        DatasetError: a file is missing or wrong, the checkpoint was trained with another encoder, or `dataset` is not
            the one of the checkpoint and `out` is None.
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
            if name not in (METRICS, PREDICTIONS):
                link(checkpoint / name, folder / name)
        return _measured(dataset, parts, checkpoint, folder)


def _measured(dataset: Path, parts: list[PartName], checkpoint: Path, folder: Path) -> dict[str, ProbabilityMetrics]:
    """Scores the parts; writes metrics and predictions into `folder`."""
    from batch.train.deepfm import probabilities

    trained = load_checkpoint(checkpoint)
    metrics: dict[str, ProbabilityMetrics] = {}
    tables: list[pa.Table] = []
    for name in parts:
        part = read_part(dataset, name)
        predicted = probabilities(trained.model, trained.vocabulary.lookup(part.ids))
        metrics[name] = measure(part.labels, predicted, trained.shape.base_rate)
        columns = {
            "part": pa.array([name] * part.count),
            "request_id": part.request_ids,
            "probability": pa.array(predicted, pa.float32()),
            "label": pa.array(part.labels.astype(np.int8)),
        }
        tables.append(pa.table(columns))
    write_evaluated(folder, Evaluated(digest(checkpoint / "model"), metrics.get("val"), metrics.get("test")))
    pq.write_table(pa.concat_tables(tables), folder / PREDICTIONS)
    return metrics
