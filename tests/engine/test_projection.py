"""Expressions over batches answer as a deployment of the same expressions does, whatever Arrow computes of them."""

from __future__ import annotations

import datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.engine import Engine, UnsupportedSQL
from streaming.engine.projection import Projection
from streaming.engine.sql.parse import parse_select
from streaming.engine.storage.rows import schema_of
from streaming.engine.storage.table import Column
from streaming.engine.types import Type

COLUMNS = [
    Column("s", Type.STRING),
    Column("u", Type.STRING),
    Column("t", Type.TIMESTAMP),
    Column("b", Type.BIGINT),
    Column("i", Type.INT),
    Column("d", Type.DOUBLE),
    Column("q", Type.BOOL),
    Column("e", Type.DATE),
]
SCHEMA = schema_of(COLUMNS)
TABLE = "CREATE TABLE x (s string, u string, t timestamp, b bigint, i int, d double, q bool, e date);"

TEXTS = [
    "s",
    "u",
    "'_'",
    "concat(s, '_', u)",
    "string(t)",
    "string(b)",
    "string(i)",
    "concat(s, t, b, d, q, e)",
    "concat(s)",
    "ifnull(s, concat(u, '-', string(t)))",
    "ifnull(u, s)",
    "ifnull('x', s)",
    "upper(s)",
    "substr(concat(s, u), 2)",
    "case when q then s else concat(u, 'x') end",
    "date_format(t, '%Y')",
    "concat_ws('/', s, u)",
    "ifnull(NULL, s)",
    "concat(substring(s, 1, 1), u)",
]
OTHERS = [
    "bigint(t)",
    "t",
    "b",
    "b + 1",
    "i * 2.5",
    "7",
    "NULL",
    "true",
    "timestamp(b)",
    "hour(t)",
    "s = u",
    "s != ''",
    "d > i",
    "u IN ('a', 'b', '')",
    "s IS NULL",
    "concat(s, u) = 'ab'",
    "q AND s = 'a'",
    "char_length(string(t))",
    "bigint(s)",
    "bigint(b)",
    "float(d)",
    "date(t)",
    "q",
    "e",
    "timestamp(1500000000000)",
    "ifnull(b, 3)",
]

TEXT = (
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.sampled_from(["a", "b", "", "a\x00"])
)
TIME = st.none() | st.integers(0, 253_402_300_799_999) | st.integers(-(10**14), 10**16) | st.sampled_from([-1, 0, 999])
ROW = st.tuples(
    TEXT,
    TEXT,
    TIME,
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.integers(-(2**31), 2**31 - 1),
    st.none() | st.floats(-1e9, 1e9),
    st.none() | st.booleans(),
    st.none() | st.dates(datetime.date(1900, 1, 1)),
)


def projected(expressions: list[str], rows: pa.RecordBatch) -> list[pa.Array]:
    script = f"SELECT {', '.join(expressions)} FROM x"
    items = parse_select(script).items
    return Projection("x", COLUMNS, [item.expr for item in items], script)(rows)


@given(
    st.lists(st.sampled_from(TEXTS + OTHERS), min_size=1, max_size=6),
    st.lists(ROW, min_size=1, max_size=5),
    st.sampled_from([1, 20]),
)
@settings(max_examples=160, deadline=None)
def test_expressions_answer_as_a_deployment_does(
    expressions: list[str], values: list[tuple[Any, ...]], copies: int
) -> None:
    """Of few rows, which are taken one by one here and there, and of many."""
    arrays, values = [], values * copies
    for place, kind in enumerate(SCHEMA.types):
        column = [row[place] for row in values]
        arrays.append(
            pa.array(column, pa.int64()).view(kind) if pa.types.is_timestamp(kind) else pa.array(column, kind)
        )
    rows = pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
    engine = Engine()
    items = ", ".join(f"{expression} AS c{i}" for i, expression in enumerate(expressions))
    engine.execute(f"{TABLE} DEPLOY d SELECT {items} FROM x")
    expected = engine.request("d", pa.Table.from_batches([rows]))
    found = projected(expressions, rows)
    for i, expression in enumerate(expressions):
        one = expected.column(i).combine_chunks()
        assert found[i].type == one.type, expression
        assert _words(found[i]) == _words(one), expression


def _words(array: pa.Array) -> list[Any]:
    """Timestamps and dates as numbers: not all of them have a date in Python."""
    number = {pa.timestamp("ms"): pa.int64(), pa.date32(): pa.int32()}.get(array.type)
    words: list[Any] = (array if number is None else array.cast(number)).to_pylist()
    return words


def test_more_rows_than_the_kernels_take_at_once() -> None:
    values = [f"{i}" for i in range(1_700)]
    rows = pa.RecordBatch.from_pylist([{"s": value, "u": None, "t": 0} for value in values], schema=SCHEMA)
    text, upper, known = projected(["concat(s, '!')", "upper(concat(s, 'a'))", "u IS NULL"], rows)
    assert text.to_pylist() == [f"{value}!" for value in values]
    assert upper.to_pylist() == [f"{value}A" for value in values]
    assert set(known.to_pylist()) == {True}


def test_texts_of_batches_do_not_stay_for_ever() -> None:
    script = "SELECT upper(s) FROM x"
    projection = Projection("x", COLUMNS, [parse_select(script).items[0].expr], script)
    for start in range(0, 400_000, 2_000):
        batch = [{"s": f"text {start + i}"} for i in range(2_000)]
        (found,) = projection(pa.RecordBatch.from_pylist(batch, schema=SCHEMA))
        assert found[-1].as_py() == f"TEXT {start + 1_999}"
    assert projection.texts_held < 150_000


def test_what_is_known_of_an_expression() -> None:
    script = "SELECT s, x.b + i, 1 + 2, NULL FROM x"
    found = Projection("x", COLUMNS, [item.expr for item in parse_select(script).items], script).expressions
    assert [(e.type, e.column, set(e.columns), e.null) for e in found] == [
        (Type.STRING, "s", {"s"}, False),
        (Type.BIGINT, None, {"b", "i"}, False),
        (Type.INT, None, set(), False),
        (Type.NULL, None, set(), True),
    ]
    assert Projection("x", COLUMNS, [], "").expressions == ()


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("SELECT s,\n nothing FROM x", "unknown column nothing at 2:2"),
        ("SELECT y.s FROM x", "unknown column y.s at 1:8"),
        ("SELECT count(s) FROM x", r"aggregate count\(\) without a window at 1:8"),
        ("SELECT count(s) OVER w FROM x", "w at 1:"),
        ("SELECT hour(s) FROM x", r"hour\(\) of a string at 1:8"),
        ("SELECT * FROM x", r"`\*` here at 1:8"),
    ],
)
def test_what_it_cannot_compute_is_refused_with_its_place(script: str, what: str) -> None:
    with pytest.raises(UnsupportedSQL, match=what):
        Projection("x", COLUMNS, [item.expr for item in parse_select(script).items], script)
