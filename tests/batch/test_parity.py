"""Parity: equal is equal, and every kind of difference is counted and shown."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from places import SQL
from reference.random_features import features

from batch.dataset.fit_encoder import fit
from batch.parity import compare, names_of, read_rows
from streaming.app.folder import load_app

NAMES = names_of(load_app(SQL / "jd"))


def small(**columns: object) -> pa.Table:
    return pa.table({"reqId_1": ["a", "b", "c"], **columns})


def test_the_same_requests_in_another_order_are_equal() -> None:
    table = features()
    table = table.set_column(
        table.schema.get_field_index("reqId_1"), "reqId_1", pa.array([f"r{row}" for row in range(400)])
    )
    report = compare(table, table.take(pa.array(range(399, -1, -1))), NAMES, fit(table))
    assert report.equal
    assert report.requests == 400
    assert len(report.compared) == 41 + 41
    assert "no difference" in report.text()


def test_differences_are_counted_and_shown_by_column() -> None:
    served = small(x=pa.array([1.0, None, float("nan")]), s=["", "u", None])
    offline = small(x=pa.array([1.5, None, float("nan")]), s=[None, "u", ""])
    report = compare(served, offline, NAMES)
    assert not report.equal
    assert {column.column: column.count for column in report.columns} == {"x": 1, "s": 2}
    assert "a: served 1.0, offline 1.5" in report.text()
    assert "a: served '', offline None" in report.text()


def test_ids_differ_only_where_the_model_would_see_it() -> None:
    table = features(50).drop_columns(["reqId_1"]).append_column("reqId_1", pa.array([f"r{row}" for row in range(50)]))
    name = "flattenRequest_pair_id_window_unique_count_32"
    encoder = fit(table)
    changed = [(value or 0) + (10**9 if row == 4 else 0) for row, value in enumerate(table[name].to_pylist())]
    at = table.schema.get_field_index(name)
    served = table.set_column(at, name, pa.array([v or 0 for v in table[name].to_pylist()], pa.int64()))
    offline = served.set_column(at, name, pa.array(changed, pa.int64()))
    report = compare(served, offline, NAMES, encoder)
    assert {column.column: column.count for column in report.columns} == {name: 1, f"id of {name}": 1}
    assert report.columns[0].first[0].request_id == "r4"


def test_another_type_is_a_difference_but_another_time_unit_is_not() -> None:
    served = small(n=pa.array([1, 2, 3], pa.int64()), t=pa.array([1, 2, 3], pa.timestamp("ms")))
    offline = small(n=pa.array([1, 2, 3], pa.int32()), t=pa.array([1000, 2000, 3000], pa.timestamp("us")))
    assert [column.column for column in compare(served, offline, NAMES).columns] == ["n"]


def test_missing_and_repeated_requests_are_counted() -> None:
    served = pa.table({"request_id": ["a", "b", "b", "x"], "purchase_probability": [0.1, 0.2, 0.9, 0.3]})
    offline = pa.table({"reqId": ["b", "a", "y", "z"], "probability": pa.array([0.2, 0.1, 0, 0], pa.float32())})
    report = compare(served, offline, NAMES)
    assert (report.requests, report.only_served, report.only_offline, report.repeated_served) == (2, 1, 2, 1)
    assert not report.columns
    assert not report.equal
    assert "1 served rows repeat a request id" in report.text()


def test_probabilities_agree_within_float_noise_only() -> None:
    served = small(purchase_probability=[0.5, 0.25, 0.125])
    assert compare(served, small(probability=[0.5 + 1e-9, 0.25, 0.125]), NAMES).equal
    report = compare(served, small(probability=[0.5, 0.25, 0.126]), NAMES)
    assert [(column.column, column.count) for column in report.columns] == [("purchase_probability", 1)]


def test_nothing_in_common_is_not_equal() -> None:
    assert not compare(small(), small(), NAMES).equal
    assert not compare(small(x=[1, 2, 3]).slice(0, 0), small(x=[1, 2, 3]).slice(0, 0), NAMES).equal


def test_files_without_a_request_id_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"x\.parquet: no request id"):
        read_rows(tmp_path / "x.parquet", NAMES)
    (tmp_path / "y.parquet").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"y\.parquet: not readable"):
        read_rows(tmp_path / "y.parquet", NAMES)
