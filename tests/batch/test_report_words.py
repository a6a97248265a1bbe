"""What a report says to those who do not read an AUC, and how it shows texts that are long or odd."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from fixtures.reports import report_of, samples

from batch.report.page import page, write_report
from batch.report.plain_words import in_plain_words
from batch.report.report import Report
from batch.report.tables import TEXT_MAX


def shown(report: Report) -> str:
    return " ".join(" ".join(ET.fromstring(page({"": report})).itertext()).split())


def test_the_highest_scores_in_words_are_those_that_are_counted() -> None:
    labels, probabilities = samples(2000, 200, 2.0, 1)
    probabilities = probabilities + np.linspace(0, 1e-4, 2000, dtype=np.float32)  # no two are equal
    report = report_of({"val": samples(900, 90, 1.5, 3), "test": (labels, probabilities)})
    first, *others = in_plain_words(report)
    highest = labels[np.argsort(-probabilities)][:100]
    assert first.startswith(
        f"The 5% with the highest scores, 100 of 2,000: {highest.mean():.0%} of them are positive ("
    )
    assert f"), {highest.mean() / 0.1:.1f} times the share among all (10.0%), " in first
    assert first.endswith(f"and {highest.sum() / 200:.0%} of all positives are among them.")
    said = float(probabilities.mean())
    advice = "rank by its probabilities, do not take them at their word"
    assert others == [f"On average it says {said:.2%}, and 10.00% came true: {advice}."]
    assert first in shown(report)


def test_of_probabilities_that_are_right_on_average_nothing_is_said() -> None:
    generator = np.random.default_rng(1)
    probabilities = (generator.random(5000) ** 3).astype(np.float32)
    labels = (generator.random(5000) < probabilities).astype(np.float32)
    assert len(in_plain_words(report_of({"test": (labels, probabilities)}))) == 1
    doubled = np.minimum(probabilities * 1.5, 1)
    assert len(in_plain_words(report_of({"test": (labels, doubled)}))) == 2


@pytest.mark.parametrize("positives", [0, 9, 300, 291])
def test_of_too_few_nothing_is_said(positives: int) -> None:
    assert in_plain_words(report_of({"test": samples(300, positives, 1.0, 1)})) == []


def test_a_long_text_is_cut_on_the_page_and_whole_in_the_figures(tmp_path: Path) -> None:
    """A value of 10 kB would make the table as wide as a house."""
    long = '<script>alert("x")</script>\'&' + "x" * 10_000
    report = report_of({"test": samples(800, 80, 1.5, 1)}, values=[long, "other"])
    write_report(tmp_path, report)
    text = (tmp_path / "report.html").read_text()
    assert "<script" not in text
    assert "x" * (TEXT_MAX + 1) not in text
    assert f"{long[:TEXT_MAX]}… ({len(long):,} letters)" in shown(report)
    slices = json.loads((tmp_path / "report.json").read_bytes())["parts"]["test"]["slices"]
    assert {one["value"] for one in slices} == {long, "other"}
