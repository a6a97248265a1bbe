"""What a model is good for, in words for those who will use it: no AUC, no threshold."""

from __future__ import annotations

from batch.report.figures import CLASS_MIN, wilson
from batch.report.report import Report

__all__ = ["in_plain_words"]

SHARE = 0.05  # of the samples, those of the highest score


def in_plain_words(report: Report) -> list[str]:
    """What the highest scores of the judged part hold; and where its probabilities are too high or too low on average
    by more than chance, how to use them. None where a class has too few samples to tell."""
    figures = report.parts[report.judged].figures
    count, positives = figures.metrics.count, figures.metrics.positives
    if min(positives, count - positives) < CLASS_MIN:
        return []
    came = positives / count
    cut = min(figures.top, key=lambda one: abs(one.share - SHARE))
    low, high = cut.precision_interval or (0.0, 1.0)
    lines = [
        f"The {cut.share:.0%} with the highest scores, {cut.count:,} of {count:,}: {cut.precision:.0%} of them are "
        f"positive ({low:.0%} to {high:.0%}), {cut.precision / came:.1f} times the share among all ({came:.1%}), and "
        f"{cut.precision * cut.count / positives:.0%} of all positives are among them."
    ]
    said = sum(one.mean * one.count for one in figures.reliability) / count
    low, high = wilson(positives, count) or (0.0, 1.0)
    if not low <= said <= high:
        advice = ": rank by its probabilities, do not take them at their word" if report.better else ""
        lines.append(f"On average it says {said:.2%}, and {came:.2%} came true{advice}.")
    return lines
