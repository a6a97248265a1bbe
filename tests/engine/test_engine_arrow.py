"""Rows from Arrow: the kernel that reads its buffers against the conversion column by column, and against dicts."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streaming.engine import BadRow, Engine
from streaming.engine.storage.arrow_rows import words_of
from streaming.engine.storage.rows import _from_arrow
from streaming.engine.storage.strings import StringPool
from streaming.engine.storage.table import Column
from streaming.engine.types import Type

TIMES = [pa.int64(), *(pa.timestamp(unit) for unit in ("ms", "us", "ns"))]
INTS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.null()]
SIZES = {Type.SMALLINT: 16, Type.INT: 32, Type.BIGINT: 64}
ARROWS: dict[Type, list[pa.DataType]] = {
    Type.BOOL: [pa.bool_()],
    Type.SMALLINT: INTS,
    Type.INT: INTS,
    Type.BIGINT: INTS,
    Type.FLOAT: [pa.float32(), pa.float64(), pa.null()],
    Type.DOUBLE: [pa.float32(), pa.float64(), pa.null()],
    Type.TIMESTAMP: TIMES,
    Type.DATE: [pa.date32()],
    Type.STRING: [pa.string(), pa.large_string(), pa.null()],
}
# of every length around the eight bytes that are read at a time, alike at their beginning or their end
texts = st.one_of(
    st.text(max_size=20),
    st.integers(0, 24).map("x".__mul__),
    st.integers(0, 24).map(lambda n: "x" * n + "y"),
    st.integers(0, 24).map(lambda n: "y" + "x" * n),
)
relaxed = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def value_of(kind: Type, arrow: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_null(arrow):
        return st.none()
    if kind == Type.BOOL:
        return st.booleans()
    if kind in SIZES:
        bits = min(SIZES[kind], arrow.bit_width)
        return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1)
    if kind in (Type.FLOAT, Type.DOUBLE):
        return st.floats(width=32 if arrow == pa.float32() else 64)
    if kind == Type.TIMESTAMP:
        return st.integers(-(1 << 61), 1 << 61)
    if kind == Type.DATE:
        return st.dates(datetime.date(1900, 1, 1))
    return texts


@st.composite
def tables(draw: st.DrawFn) -> tuple[tuple[Column, ...], pa.Table]:
    kinds = draw(st.lists(st.sampled_from(sorted(ARROWS)), min_size=1, max_size=70))
    rows = draw(st.integers(1, 20))
    columns, arrays = [], []
    for n, kind in enumerate(kinds):
        columns.append(Column(f"c{n}", kind))
        arrow = draw(st.sampled_from(ARROWS[kind]))
        values = draw(st.lists(st.one_of(st.none(), value_of(kind, arrow)), min_size=rows, max_size=rows))
        arrays.append(pa.array(values, arrow))
    table = pa.table(arrays, names=[column.name for column in columns])
    first = draw(st.integers(0, rows))
    table = table.slice(first, draw(st.integers(0, rows - first)))  # buffers with an offset, also in bits
    if draw(st.booleans()):
        table = pa.concat_tables([table, table])  # several chunks
    order = draw(st.permutations(range(len(columns))))
    return tuple(columns), table.select(order)


@relaxed
@given(tables(), st.booleans())
def test_the_kernel_reads_what_the_columns_say(given_table: tuple[tuple[Column, ...], pa.Table], crowded: bool) -> None:
    columns, table = given_table
    slow, fast = StringPool(), StringPool()
    if crowded:  # the pool has to grow in the middle of a batch
        fast.ends = fast.ends[:6].copy()
    want = _from_arrow("t", columns, table, slow)
    got = words_of(columns, table, fast)
    assert got is not None
    for c, column in enumerate(columns):
        if column.type == Type.STRING:
            assert [slow.text(code) for code in want[:, c]] == [fast.text(code) for code in got[:, c]]
            assert ((want[:, c] == 0) == (got[:, c] == 0)).all()
            want[:, c] = got[:, c]
    # NaNs are the same bits: words are compared
    assert np.array_equal(got, want)


@relaxed
@given(st.lists(texts, max_size=60), st.lists(texts, max_size=60))
def test_equal_texts_have_one_code_and_a_pool_forgets_exactly(first: list[str], more: list[str]) -> None:
    pool = StringPool()
    codes = pool.codes(first)
    assert [pool.text(code) for code in codes] == first
    assert len(set(codes.tolist())) == len(set(first))
    count, slots = pool.count, pool.slots.copy()
    again = pool.codes(more)
    assert [pool.text(code) for code in again] == more
    for text, code in zip(more, again, strict=True):
        if text in first:
            assert code == codes[first.index(text)]
    pool.truncate(count)
    assert np.array_equal(pool.slots, slots)
    assert np.array_equal(pool.codes(first), codes)


def test_what_does_not_fit_is_named_as_before() -> None:
    engine = Engine()
    engine.execute("create table t(a smallint, s string); deploy d select a from t;")
    with pytest.raises(BadRow, match="t column a: Integer value 40000 not in range"):
        engine.insert("t", pa.table({"a": pa.array([1, 40_000], pa.int32()), "s": ["x", "y"]}))
    assert engine.stats()["t"].rows == 0
    with pytest.raises(BadRow, match="unknown column b"):
        engine.insert("t", pa.table({"a": pa.array([1], pa.int16()), "b": ["x"]}))
    with pytest.raises(BadRow, match="Arrow type int64 is not a string"):
        engine.request("d", pa.table({"a": pa.array([1], pa.int16()), "s": [1]}))
    answer = engine.request("d", pa.table({"s": pa.array(["x"]).dictionary_encode(), "a": pa.array([7], pa.uint8())}))
    assert answer.to_pylist() == [{"a": 7}]
