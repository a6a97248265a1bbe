"""A slice of `make fuzz`: inputs that nobody would send."""

from __future__ import annotations

from rigs.fuzz import fuzz

INPUTS = 20_000


def test_whatever_comes_is_an_event_or_refused() -> None:
    counts = fuzz(INPUTS, 1)
    assert counts["messages"] + counts["configurations"] > INPUTS * 0.9
    # near enough to valid ones to get past the first check, and far enough to be refused
    assert min(counts["accepted"], counts["refused"]) > counts["messages"] // 10
    assert counts["configurations"]
