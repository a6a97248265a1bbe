"""The figures of a report as tables of texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TypeAlias

from batch.report.figures import Interval
from batch.report.report import PartReport, Report

__all__ = [
    "OfPart",
    "OfReport",
    "Rows",
    "data",
    "hashes",
    "histogram",
    "importance",
    "metrics",
    "options",
    "reliability",
    "slices",
    "slices_beside",
    "thresholds",
    "top",
    "training",
]

TEXT_MAX = 80  # letters of a value of the data
MEANING_MAX = 160  # of what an input is


@dataclass(frozen=True)
class Rows:
    """A table: its heads, and rows of as many cells.

    Attributes:
        words: these are words and hashes, not numbers; else `texts` are the places of the columns that are.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: bool = False
    texts: Sequence[int] = ()


OfReport: TypeAlias = Callable[[Report], list[Rows]]
OfPart: TypeAlias = Callable[[str, PartReport], Rows]


def data(report: Report) -> Rows:
    """Requests and positives of each part, and where it begins."""
    found, starts = report.data, {"val": report.data.val_from, "test": report.data.test_from}
    rows = [
        (
            name,
            f"{count:,}",
            f"{found.positives.get(name, 0):,}",
            _share(found.positives.get(name, 0) / count if count else None),
            _moment(starts[name]) if name in starts else "",
        )
        for name, count in found.counts.items()
    ]
    what = f"{found.fields} inputs; split by time, the newest requests are the test"
    return Rows(what, ("part", "requests", "positive", "share", "begins (UTC)"), rows)


def training(report: Report) -> Rows:
    """The learning curve; the star is the model that was kept."""
    rows = [
        (f"{t.step}", f"{t.epoch:g}", _number(t.loss), _number(t.val_log_loss), _number(t.val_auc), "*" * t.best)
        for t in report.training
    ]
    kept = [at for at, row in enumerate(rows) if row[-1]]
    rows = [(*row[:-1], "*" if kept and at == kept[-1] else "") for at, row in enumerate(rows)]
    return Rows("", ("step", "epoch", "loss", "validation log loss", "validation AUC", "kept"), rows)


def metrics(reports: Mapping[str, Report]) -> Rows:
    """A column for each report and part, and one for the base rate's."""
    head, columns = ["metric"], []
    for name, report in reports.items():
        for part, found in report.parts.items():
            m = found.figures.metrics
            ends = None if m.auc_low is None or m.auc_high is None else (m.auc_low, m.auc_high)
            head += [f"{name} {part}".strip(), "base rate"]
            average = with_interval(found.figures.average_precision, found.figures.average_precision_interval)
            positive = m.positives / m.count
            columns.append([f"{m.count:,}", f"{m.positives:,}", with_interval(m.auc, ends), average])
            columns[-1].append(with_interval(m.log_loss, found.figures.log_loss_interval))
            columns[-1].append(with_interval(m.calibration_error, found.figures.calibration_error_interval))
            columns.append(["", "", _number(m.base_auc), _number(positive)])
            columns[-1] += [_number(m.base_log_loss), _number(m.base_calibration_error)]
    names = ("samples", "positive", "AUC", "average precision", "log loss", "calibration error")
    return Rows("", head, [(name, *(column[at] for column in columns)) for at, name in enumerate(names)])


def reliability(name: str, part: PartReport) -> Rows:
    """The bins of the plot."""
    rows = [
        (_number(found.mean), with_interval(found.rate, found.interval), f"{found.count:,}")
        for found in part.figures.reliability
    ]
    return Rows(name, ("predicted", "share of positives", "samples"), rows)


def histogram(name: str, part: PartReport) -> Rows:
    """Counts by class."""
    found = part.figures.histogram
    rows = [
        (f"{low:.4g} to {high:.4g}", f"{positive:,}", f"{negative:,}")
        for low, high, positive, negative in zip(
            found.edges, found.edges[1:], found.positives, found.negatives, strict=False
        )
    ]
    return Rows(name, ("probability", "positive", "negative"), rows)


def top(name: str, part: PartReport) -> Rows:
    """What is among the samples of the highest score."""
    rows = [
        (
            f"{cut.share:.1%}".replace(".0%", "%"),
            f"{cut.count:,}",
            _number(cut.threshold),
            with_interval(cut.precision, cut.precision_interval),
            _times(cut.lift),
            _share(cut.recall),
        )
        for cut in part.figures.top
    ]
    return Rows(name, ("highest", "samples", "lowest score", "precision", "lift", "recall"), rows)


def thresholds(name: str, part: PartReport) -> Rows:
    """What it would mean to act on them."""
    rows = [
        (
            found.name,
            _number(found.probability),
            f"{found.chosen:,}",
            f"{found.right:,}",
            f"{found.missed:,}",
            with_interval(found.precision, found.precision_interval),
            with_interval(found.recall, found.recall_interval),
            _times(found.lift),
            "–" if found.per_positive is None else f"{found.per_positive:.1f}",
        )
        for found in part.figures.thresholds
    ]
    head = ("threshold", "probability", "chosen", "positive", "missed", "precision", "recall", "lift", "per positive")
    return Rows(name, head, rows)


def slices(name: str, part: PartReport) -> Rows:
    """Columns and their values."""
    rows = [
        (
            _short(found.by),
            _short(found.value),
            f"{found.count:,}",
            f"{found.positives:,}",
            _share_with_interval(found.rate, found.rate_interval),
            _share(found.mean),
            with_interval(found.auc, found.auc_interval),
        )
        for found in part.slices
    ]
    return Rows(name, ("by", "value", "samples", "positive", "share", "predicted", "AUC"), rows, texts=(1,))


def slices_beside(caption: str, parts: Mapping[str, PartReport]) -> Rows | None:
    """Columns and their values once, and beside them what each model does there; None: they are not the same samples.

    Args:
        parts: by the name of the model.
    """
    first, *others = ([(s.by, s.value, s.count, s.positives) for s in part.slices] for part in parts.values())
    if any(other != first for other in others):
        return None
    rows = []
    for of_models in zip(*(part.slices for part in parts.values()), strict=True):
        one = of_models[0]
        row = [_short(one.by), _short(one.value), f"{one.count:,}", f"{one.positives:,}"]
        row.append(_share_with_interval(one.rate, one.rate_interval))
        for found in of_models:
            row += [_share(found.mean), with_interval(found.auc, found.auc_interval)]
        rows.append(row)
    heads = [head for name in parts for head in (f"{name} predicted", f"{name} AUC")]
    return Rows(caption, ("by", "value", "samples", "positive", "share", *heads), rows, texts=(1,))


def importance(report: Report, *, with_meanings: bool) -> Rows:
    """All inputs, the most important first.

    Args:
        with_meanings: there is a column of what each is.
    """
    rows = []
    for found in report.importance:
        meaning = [_short(found.meaning, MEANING_MAX)] if with_meanings else []
        lost = (f"{round(value, 4) + 0.0:.4f}" for value in (found.loss, found.least, found.most))  # no -0.0000
        rows.append([found.field, *meaning, *lost])
    what, texts = (["what it is"], (1,)) if with_meanings else ([], ())
    return Rows("", ("input", *what, "AUC lost", "least", "most"), rows, texts=texts)


def options(report: Report) -> Rows:
    """Options of training and versions."""
    rows = [(name, str(value)) for name, value in report.model.options.items()]
    rows.append(("rows of the embeddings", f"{report.model.rows:,}"))
    return Rows("training", ("option", "value"), rows, words=True)


def hashes(report: Report) -> Rows:
    """Hashes, and versions of what ran."""
    rows = [*report.model.hashes.items(), *report.model.versions.items()]
    return Rows("hashes and versions", ("of", "is"), rows, words=True)


def with_interval(value: float | None, ends: Interval) -> str:
    """A figure and its interval; a dash: there is none."""
    return _number(value) if ends is None else f"{_number(value)} ({_number(ends[0])} to {_number(ends[1])})"


def _share_with_interval(value: float, ends: Interval) -> str:
    return _share(value) if ends is None else f"{_share(value)} ({_share(ends[0])} to {_share(ends[1])})"


def _short(text: str, most: int = TEXT_MAX) -> str:
    """A text of the data, as much of it as a table has room for; all of it is in `report.json`."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} letters)"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}×"


def _moment(epoch_ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(epoch_ms / 1000, timezone.utc):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return f"{epoch_ms} ms"
