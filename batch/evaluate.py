"""Scores validation and test with a checkpoint: `metrics.json`, `predictions.parquet`.

jd-intent-batch evaluate --dataset DIR --checkpoint DIR
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch.dataset import DatasetError, PartName, read_info, read_part
from batch.folder import digest
from batch.metrics import Metrics, measure
from batch.train import load_checkpoint
from batch.verdict import Evaluated, write_evaluated

__all__ = ["evaluate"]

PARTS: tuple[PartName, ...] = ("val", "test")


def evaluate(dataset: Path, checkpoint: Path, out: Path | None = None) -> dict[str, Metrics]:
    """Metrics of the parts `val` and `test`, whichever the dataset has, each beside the base rate's.

    Writes into `out` (by default the checkpoint's folder) `metrics.json` and `predictions.parquet`: part string,
    reqId string, probability float32, label int8. The dataset may be a later one, encoded with the same encoder; then
    `out` must be another folder, because the checkpoint's own metrics go into the artifact.

    Raises:
        DatasetError: a file is missing or wrong, the checkpoint was trained with another encoder, or `dataset` is not
            the one of the checkpoint and `out` is None.
    """
    from batch.deepfm import probabilities  # noqa: PLC0415  (OneFlow)

    info = read_info(dataset)
    trained = load_checkpoint(checkpoint)
    if info.encoder_sha256 != trained.shape.encoder_sha256:
        raise DatasetError(
            f"{checkpoint} was trained with encoder {trained.shape.encoder_sha256}, {dataset} has {info.encoder_sha256}"
        )
    if out is None and info.data_sha256 != trained.shape.data_sha256:
        raise DatasetError(f"{checkpoint} was trained on other data than {dataset}: name a folder for the results")
    parts = [name for name in PARTS if name in info.counts]
    if not parts:
        raise DatasetError(f"{dataset / 'dataset.json'}: counts has neither val nor test")
    metrics: dict[str, Metrics] = {}
    tables: list[pa.Table] = []
    for name in parts:
        part = read_part(dataset, name)
        predicted = probabilities(trained.model, trained.vocabulary.lookup(part.ids))
        metrics[name] = measure(part.labels, predicted, trained.shape.base_rate)
        columns = {
            "part": pa.array([name] * part.count),
            "reqId": part.request_ids,
            "probability": pa.array(predicted, pa.float32()),
            "label": pa.array(part.labels.astype(np.int8)),
        }
        tables.append(pa.table(columns))
    target = checkpoint if out is None else out
    target.mkdir(parents=True, exist_ok=True)
    write_evaluated(target, Evaluated(digest(checkpoint / "model"), metrics.get("val"), metrics.get("test")))
    pq.write_table(pa.concat_tables(tables), target / "predictions.parquet")
    return metrics
