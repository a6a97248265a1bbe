"""Ids to rows: exact where training saw the id often enough, the field's cold row where not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from batch.train.vocabulary import Vocabulary

Ids = npt.NDArray[np.int64]

few_ids = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 5, 1 << 32, 2**63 - 1])
any_ids = st.integers(-(2**63), 2**63 - 1)


def naive_rows(training: Ids, asked: Ids, count_min: int) -> Ids:
    """The same by dictionaries, one field after the other."""
    fields = training.shape[1]
    rows = np.empty(asked.shape, np.int64)
    after = fields
    for field in range(fields):
        counts = Counter(training[:, field].tolist())
        kept = sorted(value for value, count in counts.items() if count >= count_min)
        row_of = {value: after + place for place, value in enumerate(kept)}
        rows[:, field] = [row_of.get(value, field) for value in asked[:, field].tolist()]
        after += len(kept)
    return rows


@given(
    training=arrays(np.int64, st.tuples(st.integers(0, 60), st.just(3)), elements=few_ids | any_ids),
    asked=arrays(np.int64, st.tuples(st.integers(0, 60), st.just(3)), elements=few_ids | any_ids),
    count_min=st.integers(1, 3),
)
def test_rows_are_those_of_a_dictionary(training: Ids, asked: Ids, count_min: int) -> None:
    vocabulary = Vocabulary.fit(training, count_min)
    for ids in (training, asked):
        assert vocabulary.lookup(ids).tolist() == naive_rows(training, ids, count_min).tolist()
    assert vocabulary.size == int(vocabulary.row_ranges[-1, 1])


def test_many_ids_and_many_collisions() -> None:
    generator = np.random.default_rng(3)
    # Consecutive small integers, multiples of a power of two and random words: what a weak hash would pile up.
    training = np.stack(
        [np.arange(20_000), np.arange(20_000) << 40, generator.integers(-(2**63), 2**63 - 1, 20_000, dtype=np.int64)],
        axis=1,
    )
    vocabulary = Vocabulary.fit(training, 1)
    rows = vocabulary.lookup(training)
    assert len(np.unique(rows)) == 60_000
    assert vocabulary.size == 60_003
    for field, (start, end) in enumerate(vocabulary.row_ranges.tolist()):
        assert rows[:, field].min() == start
        assert rows[:, field].max() == end - 1


def test_what_is_saved_is_what_comes_back(tmp_path: Path) -> None:
    training = np.random.default_rng(5).integers(0, 50, (400, 4), dtype=np.int64)
    vocabulary = Vocabulary.fit(training, 2)
    vocabulary.save(tmp_path / "a.npz")
    Vocabulary.fit(training, 2).save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = Vocabulary.load(tmp_path / "a.npz")
    assert again.lookup(training).tolist() == vocabulary.lookup(training).tolist()
    assert again.size == vocabulary.size


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_column_of_a_larger_array_needs_no_copy_by_the_caller(order: str) -> None:
    training = np.asarray(np.random.default_rng(5).integers(0, 9, (50, 4)), order="F" if order == "F" else "C")
    vocabulary = Vocabulary.fit(training, 1)
    assert vocabulary.lookup(training[::2]).tolist() == vocabulary.lookup(training)[::2].tolist()
