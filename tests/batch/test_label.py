"""The five-day rule: bounds, repeated orders, and the numbers known of the tutorial's public sample."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from places import SHARED

from batch.dataset.label import HORIZON_MS, LABEL_COLUMN, five_day_rule, later_order, recorded

SAMPLE = SHARED / "jd"


def labels(requests: list[tuple[int, int]], orders: list[tuple[int, int]], horizon_ms: int = HORIZON_MS) -> list[int]:
    (request_pair, request_ms) = np.array(requests, np.int64).reshape(-1, 2).T
    (order_pair, order_ms) = np.array(orders, np.int64).reshape(-1, 2).T
    return [int(label) for label in later_order(request_pair, request_ms, order_pair, order_ms, horizon_ms)]


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


def _table(pair: list[str | None], ms: list[int | None], time: str, **more: list[str]) -> pa.Table:
    return pa.table({"pair_id": pa.array(pair, pa.string()), time: pa.array(ms, pa.timestamp("ms")), **more})


def test_null_pairs_never_match_and_only_type_4_counts() -> None:
    requests = _table(["a", None, "b"], [0, 0, 0], "eventTime")
    actions = _table(["a", None, "b"], [5, 5, 5], "ingestionTime", type=["4", "4", "2"])
    assert five_day_rule(requests, actions).tolist() == [1, 0, 0]


def test_a_missing_time_is_an_error_that_names_the_row() -> None:
    requests = _table(["a", "a"], [0, None], "eventTime")
    with pytest.raises(ValueError, match="row 1"):
        five_day_rule(requests, _table(["a"], [5], "ingestionTime", type=["4"]))


def test_recorded_labels_are_the_action_tables_own() -> None:
    label, known = recorded(pa.table({LABEL_COLUMN: pa.array([1, 0, None, 2], pa.int32())}))
    assert label.tolist() == [1, 0, 0, 1]
    assert known.tolist() == [True, True, False, True]


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the tutorial's sample data is not beside this checkout (../shared/jd)")
def test_the_public_samples_known_numbers() -> None:
    """One request lies between the first and the second order of its pair: it counts here, not where only firsts do."""
    actions, requests = pq.read_table(SAMPLE / "bo_action"), pq.read_table(SAMPLE / "flattenRequest_clean")
    orders = actions.filter(pc.equal(actions["type"], "4"))
    assert pc.sum(pc.is_in(requests["pair_id"], pc.unique(orders["pair_id"]))).as_py() == 366
    assert five_day_rule(requests, actions).sum() == 122
    pairs = {pair: number for number, pair in enumerate(pc.unique(requests["pair_id"]).to_pylist())}
    first_order: dict[int, int] = {}
    for pair, ms in sorted(zip(orders["pair_id"].to_pylist(), orders["time"].to_pylist(), strict=True), reverse=True):
        first_order[pairs.get(pair, -1)] = ms
    request = [pairs[pair] for pair in requests["pair_id"].to_pylist()]
    times = requests["time"].to_pylist()
    known = list(zip(request, times, strict=True))
    assert sum(labels(known, list(first_order.items()))) == 121
    assert sum(labels(known, list(first_order.items()), horizon_ms=1 << 40)) == 185
