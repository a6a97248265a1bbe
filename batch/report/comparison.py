"""Two reports side by side, and in one line whether their AUCs differ by more than chance.

Where both folders have the predictions, of the same requests, the difference has an interval of its own: two intervals
that overlap say little of two models that were asked the same.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.dataset.read import DatasetError
from batch.report.figures import CLASS_MIN
from batch.report.page import page
from batch.report.ranking import Ranking
from batch.report.report import REPORT_HTML, Report, read_report
from streaming.files.output_folder import Say, replacing
from streaming.model.auc import auc_difference

__all__ = ["compare_reports", "difference"]

PREDICTIONS = "predictions.parquet"
_COLUMNS = {"part": pa.string(), "request_id": pa.string(), "probability": pa.float32(), "label": pa.int8()}
_ALIKE = "cannot be told apart"


def compare_reports(first: Path, second: Path, out: Path, *, force: Say | None = None) -> list[str]:
    """Writes `out/report.html` of two folders that `evaluate` wrote.

    Returns:
        Lines that say what came of it: the verdict on each, and on their difference.

    Raises:
        DatasetError: a folder has no report, or a wrong one.
        OutputRefused: `out` holds something else, or touches an input.
    """
    with replacing(out, "comparison", inputs=[first, second], force=force) as folder:
        reports = dict(zip(_names(first, second), (read_report(first), read_report(second)), strict=True))
        told = difference(reports, _on_the_same(first, second, [*reports.values()]))
        (folder / REPORT_HTML).write_text(page(reports, told), encoding="utf-8")
    return [*(f"{name}: {report.verdict}" for name, report in reports.items()), told]


def difference(reports: dict[str, Report], paired: tuple[float, float, float] | None = None) -> str:
    """Which of two models has the higher AUC; what forbids to say so.

    Args:
        paired: by how much the AUC of the first is higher on the same requests, and the interval of that; None: it is
            not known, and the intervals of both decide.
    """
    (name, one), (other_name, other) = reports.items()
    if one.judged != other.judged or one.model.hashes.get("judged on") != other.model.hashes.get("judged on"):
        return f"{name} and {other_name} were judged on different data: their figures cannot be compared"
    a, b = (report.parts[report.judged].figures.metrics for report in (one, other))
    if (a.count, a.positives) != (b.count, b.positives):
        return f"{name} and {other_name} were judged on different samples: their figures cannot be compared"
    if a.auc is None or b.auc is None or min(a.positives, a.count - a.positives) < CLASS_MIN:
        return f"{name} and {other_name} cannot be compared: {one.judged} has too few samples of a class"
    better, worse = (name, other_name) if a.auc >= b.auc else (other_name, name)
    high, low = (a, b) if a.auc >= b.auc else (b, a)
    apart = high.auc_low is not None and low.auc_high is not None and high.auc_low > low.auc_high
    what = f"AUC {high.auc:.4f} beside {low.auc:.4f} on {one.judged}"
    if paired is not None:
        by, least, most = paired if better == name else (-paired[0], -paired[2], -paired[1])
        more = f"{what}, {by:.4f} more ({least:.4f} to {most:.4f} with 95% confidence, on the same requests)"
        return f"{better} is better than {worse}: {more}" if least > 0 else f"{better} and {worse} {_ALIKE}: {more}"
    if apart:
        return f"{better} is better than {worse}: {what}, their intervals lie apart"
    return f"{better} and {worse} {_ALIKE} by their intervals: {what}"


def _on_the_same(first: Path, second: Path, reports: list[Report]) -> tuple[float, float, float] | None:
    """By how much the AUC of the first is higher, on the requests that both were judged on; None where the predictions
    of either are not there, or are not those of its report, or the requests are others.

    Raises:
        DatasetError: predictions are no parquet.
    """
    one, other = (_predictions(folder, report) for folder, report in zip((first, second), reports, strict=True))
    if one is None or other is None or one.num_rows != other.num_rows:
        return None
    at = pc.index_in(one["request_id"].combine_chunks(), value_set=other["request_id"].combine_chunks())
    if at.null_count or len(at.unique()) != one.num_rows:
        return None
    other = other.take(at)
    if not one["label"].equals(other["label"]):
        return None
    labels, probabilities = one["label"].to_numpy(), (table["probability"].to_numpy() for table in (one, other))
    return auc_difference(labels, *(values.astype(np.float64) for values in probabilities))


def _predictions(folder: Path, report: Report) -> pa.Table | None:
    path, auc = folder / PREDICTIONS, report.parts[report.judged].figures.metrics.auc
    if auc is None or not path.is_file():
        return None
    try:
        table = pq.read_table(path, columns=[*_COLUMNS]).cast(pa.schema(_COLUMNS))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        line = str(error).partition("\n")[0]
        raise DatasetError(f"{path}: not the predictions that `jd-intent-batch evaluate` writes: {line}") from error
    table = table.filter(pc.equal(table["part"], report.judged))
    found = Ranking.of(table["label"].to_numpy().astype(np.float64), table["probability"].to_numpy()).auc()
    return table if abs(found - auc) < 1e-6 else None


def _names(first: Path, second: Path) -> tuple[str, str]:
    """What tells the two folders apart: as much of the end of their paths as need be."""
    a, b = (Path(os.path.abspath(folder)).parts for folder in (first, second))  # `resolve` fails on links in a circle
    for length in range(1, max(len(a), len(b)) + 1):
        names = "/".join(a[-length:]), "/".join(b[-length:])
        if names[0] != names[1]:
            return names
    return f"{first.name} (A)", f"{second.name} (B)"
