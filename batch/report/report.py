"""A model's report: `report.json` with every figure, and `report.html`, the same for people."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from batch.dataset.read import DatasetError, DatasetInfo, Texts
from batch.report.figures import PartFigures, choose_thresholds, part_figures
from batch.report.probability_metrics import ProbabilityMetrics
from batch.report.ranking import Ranking
from batch.report.slices import Slice, sliced

__all__ = [
    "REPORT_HTML",
    "REPORT_JSON",
    "Data",
    "Importance",
    "Measured",
    "Model",
    "PartReport",
    "Report",
    "Training",
    "make_report",
    "read_history",
    "read_report",
    "versions",
]

REPORT_HTML, REPORT_JSON = "report.html", "report.json"

FORMAT = 1
_PACKAGES = ("jd-intent-scorer", "numpy", "scikit-learn", "pyarrow", "oneflow")


class Measured(msgspec.Struct, frozen=True):
    """A part as it was scored: labels and probabilities [n], its metrics, texts of its n rows to slice it by."""

    labels: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    metrics: ProbabilityMetrics
    columns: Mapping[str, Texts]


class Importance(msgspec.Struct, frozen=True):
    """How much AUC is lost when one input of the model is shuffled among the samples: the mean, least and most.

    `meaning`: what the input is, see `DatasetInfo`.
    """

    field: str
    loss: float
    least: float
    most: float
    meaning: str = ""


class Training(msgspec.Struct, frozen=True):
    """A line of the checkpoint's `history.jsonl`, see `batch.train.training.Evaluation`."""

    step: int
    epoch: float
    loss: float
    val_auc: float | None
    val_log_loss: float
    best: bool


class Data(msgspec.Struct, frozen=True):
    """What was learnt from and judged on: requests and positives by part, and where the parts begin (epoch ms)."""

    counts: dict[str, int]
    positives: dict[str, int]
    val_from: int
    test_from: int
    fields: int


class Model(msgspec.Struct, frozen=True):
    """How the model was made: options of training, rows of its embeddings, hashes, versions of what ran."""

    options: dict[str, Any]
    rows: int
    hashes: dict[str, str]
    versions: dict[str, str]


class PartReport(msgspec.Struct, frozen=True):
    """A part's figures and its slices."""

    figures: PartFigures
    slices: list[Slice]


class Report(msgspec.Struct, frozen=True):
    """`report.json`.

    Attributes:
        app: the application's name.
        better: than the base rate.
        verdict: why, in one line.
        judged: the part that the verdict is on.
        parts: by `val`, `test`.
        importance: the most important first; empty: too few samples of a class.
        importance_samples: of the judged part, that were shuffled.
    """

    app: str
    better: bool
    verdict: str
    judged: str
    data: Data
    model: Model
    training: list[Training]
    parts: dict[str, PartReport]
    importance: list[Importance]
    importance_samples: int
    format: int = FORMAT


def make_report(
    info: DatasetInfo,
    model: Model,
    training: list[Training],
    measured: Mapping[str, Measured],
    importance: tuple[Sequence[Importance], int],
    verdict: tuple[bool, str],
    seed: int,
) -> Report:
    """The report of what was measured; equal input, equal report.

    Args:
        info: of the dataset.
        measured: by `val`, `test` or both.
        importance: of the inputs, with the number of samples.
        verdict: better than the base rate, and why.
        seed: of the bootstrap.
    """
    rankings = {name: Ranking.of(part.labels, part.probabilities) for name, part in measured.items()}
    thresholds = choose_thresholds(rankings["val"] if "val" in rankings else rankings["test"])
    fields, samples = importance
    return Report(
        app=info.app,
        better=verdict[0],
        verdict=verdict[1],
        judged="test" if "test" in measured else "val",
        data=Data(info.counts, info.positives, info.split.val_from, info.split.test_from, info.fields),
        model=model,
        training=training,
        parts={
            name: PartReport(
                part_figures(part.metrics, rankings[name], thresholds, seed),
                sliced(part.columns, part.labels, part.probabilities),
            )
            for name, part in measured.items()
        },
        importance=[
            msgspec.structs.replace(found, meaning=info.meanings.get(found.field, ""))
            for found in sorted(fields, key=lambda found: (-found.loss, found.field))
        ],
        importance_samples=samples,
    )


def read_history(checkpoint: Path) -> list[Training]:
    """The learning curve that training kept, `history.jsonl`; none where there is no such file.

    Raises:
        DatasetError: a line of it is wrong.
    """
    path = checkpoint / "history.jsonl"
    try:
        return [msgspec.json.decode(line, type=Training) for line in path.read_bytes().splitlines() if line.strip()]
    except FileNotFoundError:
        return []
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: {error}") from error


def read_report(folder: Path) -> Report:
    """Reads `report.json`.

    Raises:
        DatasetError: it is missing or wrong, or of another version of the program.
    """
    path = folder / REPORT_JSON
    again = "run `jd-intent-batch evaluate` again"
    try:
        report = msgspec.json.decode(path.read_bytes(), type=Report)
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist: run `jd-intent-batch evaluate` first") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: {error}: {again}") from error
    if report.format != FORMAT:
        raise DatasetError(f"{path} has format {report.format}, not {FORMAT}: {again}")
    if report.judged not in report.parts:
        raise DatasetError(f"{path}: part {report.judged!r}, which was judged, is not in it: {again}")
    return report


def versions() -> dict[str, str]:
    """Of Python and of the packages that a model's figures come from, those that are here."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
