"""The five-day rule: bounds, repeated orders, and the numbers known of the tutorial's public sample."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from places import SHARED, SQL

from batch.dataset.label import binary, epoch_ms, events_of, later_event
from batch.features.data_layout import BadData
from streaming.app.folder import load_app
from streaming.app.later_event import follows, horizon_of

SAMPLE = SHARED / "jd"
HORIZON_MS = 5 * 86_400_000


def labels(requests: list[tuple[int, int]], orders: list[tuple[int, int]], horizon_ms: int = HORIZON_MS) -> list[int]:
    (request_pair, request_ms) = np.array(requests, np.int64).reshape(-1, 2).T
    (order_pair, order_ms) = np.array(orders, np.int64).reshape(-1, 2).T
    return [int(label) for label in follows(request_pair, request_ms, order_pair, order_ms, horizon_ms)]


def test_bounds_are_strictly_later_and_five_days_inclusive() -> None:
    order = [(7, 1_000)]
    assert labels([(7, 1_000), (7, 999), (7, 1_001)], order) == [0, 1, 0]
    assert labels([(7, 1_000 - HORIZON_MS), (7, 999 - HORIZON_MS)], order) == [1, 0]


def test_the_next_order_decides_not_the_first_or_the_last() -> None:
    orders = [(1, 50), (1, 500), (1, 10)]  # unsorted
    assert labels([(1, 10), (1, 50), (1, 450), (1, 500)], orders, horizon_ms=100) == [1, 0, 1, 0]


def test_other_pairs_orders_do_not_count() -> None:
    assert labels([(1, 0), (2, 0), (3, 0), (-5, 0)], [(2, 1)]) == [0, 1, 0, 0]
    assert labels([(1, 0)], []) == [0]
    assert labels([], [(1, 0)]) == []


def test_agrees_with_a_plain_loop_on_random_events() -> None:
    rng = np.random.default_rng(5)
    requests = np.stack([rng.integers(0, 30, 500), rng.integers(0, 2_000, 500)], axis=1)
    orders = np.stack([rng.integers(0, 40, 80), rng.integers(0, 2_000, 80)], axis=1)
    slow = [int(any(p == q and t < u <= t + 90 for q, u in orders)) for p, t in requests]
    assert labels(requests.tolist(), orders.tolist(), horizon_ms=90) == slow
    assert 0 < sum(slow) < len(slow)


def _keys(*values: object) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values)])


def test_null_in_a_key_never_matches_and_every_column_of_it_must() -> None:
    requests = [_keys("a", None, "b", "b"), _keys(1, 1, 1, 2)]
    events = [_keys("a", None, "b"), _keys(1, 1, 2)]
    times, later = np.zeros(4, np.int64), np.full(3, 5, np.int64)
    assert later_event(requests, times, events, later, 10).tolist() == [1, 0, 0, 1]


@given(
    requests=st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from([1, 2, None]), st.integers(0, 50))),
    events=st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from([1, 2, None]), st.integers(0, 50))),
)
def test_keys_of_two_columns_agree_with_a_plain_loop(
    requests: list[tuple[str | None, int | None, int]], events: list[tuple[str | None, int | None, int]]
) -> None:
    def columns(rows: list[tuple[str | None, int | None, int]]) -> list[pa.ChunkedArray]:
        kinds = pa.string(), pa.int64()
        return [pa.chunked_array([pa.array([row[at] for row in rows], kind)]) for at, kind in enumerate(kinds)]

    def times(rows: list[tuple[str | None, int | None, int]]) -> NDArray[np.int64]:
        return np.array([row[2] for row in rows], np.int64)

    found = later_event(columns(requests), times(requests), columns(events), times(events), 7)
    slow = [
        int(None not in (a, b) and any((a, b) == (c, d) and t < u <= t + 7 for c, d, u in events))
        for a, b, t in requests
    ]
    assert found.tolist() == slow


def test_a_missing_time_is_an_error_that_names_the_row() -> None:
    with pytest.raises(ValueError, match="row 1"):
        epoch_ms(pa.chunked_array([pa.array([0, None], pa.timestamp("ms"))]))


def test_above_0_is_1_null_is_no_label_and_other_numbers_are_not_supported() -> None:
    label, known, above = binary(pa.chunked_array([pa.array([1, 0, None, 2], pa.int32())]), "bought")
    assert (label.tolist(), known.tolist(), above) == ([1, 0, 0, 1], [True, True, False, True], 1)
    assert binary(pa.chunked_array([pa.array([True, None, False])]), "bought")[0].tolist() == [1, 0, 0]
    for wrong in (0.5, -1.0, float("nan")):
        with pytest.raises(BadData, match=r"bought is .* in row 1 of the features: a label is 0 or 1 .* not supported"):
            binary(pa.chunked_array([pa.array([1.0, wrong])]), "bought")


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the tutorial's sample data is not beside this checkout (../shared/jd)")
def test_the_public_samples_known_numbers() -> None:
    """One request lies between the first and the second order of its pair: it counts here, not where only firsts do."""
    actions, requests = pq.read_table(SAMPLE / "bo_action"), pq.read_table(SAMPLE / "flattenRequest_clean")
    orders = actions.filter(pc.equal(actions["type"], "4"))
    assert pc.sum(pc.is_in(requests["pair_id"], pc.unique(orders["pair_id"]))).as_py() == 366
    app = load_app(SQL / "jd")
    assert horizon_of(app) == HORIZON_MS
    assert app.settings.label.later_event is not None
    rows, true = events_of(app, app.settings.label.later_event, SAMPLE)
    found = rows.filter(pa.array(true))
    assert found.num_rows == orders.num_rows
    label = later_event(
        [requests["pair_id"]],
        epoch_ms(requests["eventTime"]),
        [found["pair_id"]],
        epoch_ms(found["ingestionTime"]),
        HORIZON_MS,
    )
    assert label.sum() == 122
    pairs = {pair: number for number, pair in enumerate(pc.unique(requests["pair_id"]).to_pylist())}
    first_order: dict[int, int] = {}
    for pair, ms in sorted(zip(orders["pair_id"].to_pylist(), orders["time"].to_pylist(), strict=True), reverse=True):
        first_order[pairs.get(pair, -1)] = ms
    request = [pairs[pair] for pair in requests["pair_id"].to_pylist()]
    times = requests["time"].to_pylist()
    known = list(zip(request, times, strict=True))
    assert sum(labels(known, list(first_order.items()))) == 121
    assert sum(labels(known, list(first_order.items()), horizon_ms=1 << 40)) == 185
