"""Splitting by time: order, ties, embargo, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from batch.dataset.split import by_time


def test_parts_follow_each_other_in_time_and_cover_all() -> None:
    times = np.random.default_rng(2).integers(0, 10**9, 1000)
    split = by_time(times)
    assert [len(split.train), len(split.val), len(split.test)] == [800, 100, 100]
    assert sorted(np.concatenate([split.train, split.val, split.test]).tolist()) == list(range(1000))
    assert times[split.train].max() < split.val_from_ms == times[split.val].min()
    assert times[split.val].max() < split.test_from_ms == times[split.test].min()
    for part in (split.train, split.val, split.test):
        assert np.all(np.diff(times[part]) >= 0)


def test_equal_times_are_never_divided() -> None:
    times = np.repeat(np.arange(10) * 1000, 37)
    split = by_time(times, 0.15, 0.15)
    parts = [set(times[part].tolist()) for part in (split.train, split.val, split.test)]
    assert not parts[0] & parts[1]
    assert not parts[1] & parts[2]
    assert sum(map(len, parts)) == 10


def test_an_embargo_leaves_out_what_is_close_to_the_next_part() -> None:
    times = np.arange(1000) * 60_000
    split = by_time(times, embargo_ms=600_000)
    assert times[split.train].max() < split.val_from_ms - 600_000
    assert times[split.val].max() < split.test_from_ms - 600_000
    assert len(split.train) == 790
    assert len(split.test) == 100


@pytest.mark.parametrize(
    ("times", "fractions", "embargo", "message"),
    [
        ([5] * 100, (0.1, 0.1), 0, "train part is empty"),
        ([1, 2], (0.1, 0.1), 0, "2 requests"),
        (list(range(100)), (0.1, 0.1), 10**6, "train part is empty"),
        (list(range(100)), (0.0, 0.1), 0, "--val-fraction"),
        (list(range(100)), (0.1, 1.5), 0, "--test-fraction"),
        (list(range(100)), (0.5, 0.5), 0, "nothing to train on"),
        (list(range(100)), (0.1, 0.1), -1, "--embargo"),
    ],
)
def test_what_cannot_be_split_is_refused(
    times: list[int], fractions: tuple[float, float], embargo: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        by_time(np.array(times, np.int64), *fractions, embargo_ms=embargo)
