"""Two reports side by side, and in one line whether their AUCs differ by more than chance."""

from __future__ import annotations

import os
from pathlib import Path

from batch.report.figures import CLASS_MIN
from batch.report.page import page
from batch.report.report import REPORT_HTML, Report, read_report
from streaming.files.output_folder import Say, replacing

__all__ = ["compare_reports", "difference"]


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
        (folder / REPORT_HTML).write_text(page(reports), encoding="utf-8")
    return [*(f"{name}: {report.verdict}" for name, report in reports.items()), difference(reports)]


def difference(reports: dict[str, Report]) -> str:
    """Which of two models has the higher AUC, by their intervals; what forbids to say so."""
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
    if apart:
        return f"{better} is better than {worse}: {what}, their intervals lie apart"
    return f"{better} and {worse} cannot be told apart by their intervals: {what}"


def _names(first: Path, second: Path) -> tuple[str, str]:
    """What tells the two folders apart: as much of the end of their paths as need be."""
    a, b = (Path(os.path.abspath(folder)).parts for folder in (first, second))  # `resolve` fails on links in a circle
    for length in range(1, max(len(a), len(b)) + 1):
        names = "/".join(a[-length:]), "/".join(b[-length:])
        if names[0] != names[1]:
            return names
    return f"{first.name} (A)", f"{second.name} (B)"
