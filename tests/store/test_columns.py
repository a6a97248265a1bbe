"""Types and cells of OpenMLDB's servers: every value comes back as the engine would have given it."""

from __future__ import annotations

import datetime
import struct
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streaming.engine import BadRow
from streaming.engine.types import ARROW, NAMES, Type
from streaming.store.openmldb.cluster import times_checked
from streaming.store.openmldb.columns import arrow_type, cells, differences, rows_to_table, schema_of

COLUMNS = [
    ("bo", "Bool"),
    ("si", "int16"),
    ("i", "Int32"),
    ("b", "bigInt"),
    ("f", "float"),
    ("d", "Double"),
    ("ts", "Timestamp"),
    ("dt", "date"),
    ("s", "Varchar"),
]
SCHEMA = schema_of(COLUMNS)


def whole(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


ROW = st.tuples(
    st.booleans(),
    whole(16),
    whole(32),
    whole(64),
    st.floats(width=32, allow_nan=False),
    st.floats(allow_nan=False),
    st.integers(0, 2**62),
    st.dates(datetime.date(1900, 1, 1)),
    st.text(st.characters(codec="utf-8")),
)
NULLABLE = ROW.flatmap(lambda row: st.tuples(*(st.one_of(st.none(), st.just(cell)) for cell in row)))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(NULLABLE, max_size=3))
def test_cells_come_back_as_they_were(rows: list[tuple[Any, ...]]) -> None:
    spelled = [[str(cell) if isinstance(cell, datetime.date) else cell for cell in row] for row in rows]
    table = rows_to_table(SCHEMA, spelled)
    assert table.schema == SCHEMA
    assert [tuple(row) for row in cells(table)] == rows


def test_a_float_is_the_float32_that_was_stored() -> None:
    spelled = struct.unpack("<f", struct.pack("<f", 0.1))[0]
    table = rows_to_table(schema_of([("f", "float")]), [[0.10000000149011612], [None], [float("inf")], [1]])
    assert table["f"].to_pylist() == [spelled, None, float("inf"), 1.0]


def test_dates_need_no_padding() -> None:
    assert rows_to_table(schema_of([("dt", "date")]), [["2024-1-2"]])["dt"][0].as_py() == datetime.date(2024, 1, 2)


@pytest.mark.parametrize(
    ("kind", "cell"),
    [("int32", 2**31), ("int32", "1"), ("string", 1), ("date", "1900-1-0"), ("date", 5), ("bool", "yes")],
)
def test_a_cell_of_another_type_is_an_error(kind: str, cell: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        rows_to_table(schema_of([("x", kind)]), [[cell]])


def test_a_row_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="a row has 1 cells, the schema 9 columns"):
        rows_to_table(SCHEMA, [[True]])


def test_types_are_those_of_the_engine() -> None:
    assert {kind: arrow_type(NAMES[kind]) for kind in Type if kind} == {k: v for k, v in ARROW.items() if k}


def test_unknown_types_are_errors() -> None:
    with pytest.raises(ValueError, match="unknown column type 'blob'"):
        arrow_type("blob")


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("ts", {"ts": None}, "bo_x row 1: ts is NULL or negative, and orders an index"),
        ("ts", {"ts": -1}, "bo_x row 1: ts is NULL or negative"),
        ("dt", {"ts": 5, "dt": datetime.date(1899, 12, 31)}, "bo_x row 1: dt is before 1900-01-01"),
    ],
)
def test_times_that_no_server_takes_are_refused(name: str, row: dict[str, Any], message: str) -> None:
    schema = pa.schema([("ts", pa.timestamp("ms")), ("dt", pa.date32())])
    good = {"ts": 0, "dt": None}
    rows = pa.Table.from_pylist([good, {**good, **row}], schema)
    with pytest.raises(BadRow, match=message):
        times_checked("bo_x", rows, ["ts"])
    assert len(times_checked("bo_x", rows.slice(0, 1), ["ts"])) == 1


def test_differences_of_schemas_are_named() -> None:
    one, two = schema_of([("a", "int"), ("b", "string")]), schema_of([("b", "string"), ("a", "int")])
    assert differences(one, one) == []
    assert differences(one, two) == ["the order is b, a, not a, b"]
    assert differences(one, schema_of([("a", "bigint"), ("c", "int")])) == [
        "b is missing",
        "c is too much",
        "a is int64, not int32",
    ]
