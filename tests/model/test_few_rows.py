"""Few rows are encoded value by value, many as arrays: to the same ids."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.errors import ArtifactMismatch
from streaming.model.encoder import FEW_ROWS, NULL_ID, Binned, Category, Encoder, Field, ListShape, ListTop

STARTS: dict[str, list[float]] = {
    "integer": [-(2.0**62), -5.0, 0.0, 3.0, 2.0**53],
    "real": [-1e30, -1.5, 0.0, 0.0192, 16_777_216.0, 3e38],
    "days_since": [-1.0, 0.0, 0.5, 1.0, 400.0],
    "hour": [0.0, 5.0, 12.0, 23.0],
    "weekday": [1.0, 2.0, 7.0],
}
MOMENTS = st.integers(-62_000_000_000_000, 253_000_000_000_000) | st.integers(1_400_000_000_000, 1_500_000_000_000)
WHOLE = st.integers(-128, 127)
LONG = st.sampled_from([0, 3, 2**53, 2**53 + 1, 2**62 + 2**38 + 1, 16_777_217, -(2**63), 2**63 - 1])
REAL = st.floats(width=64) | st.sampled_from(
    [0.0192, -0.0, 3.4e38, 3.5e38, math.inf, -math.inf, math.nan, 16_777_217.0]
)
TEXT = st.sampled_from(["", "NULL", "a", "b,,NULL", ",a,b", "岁"])
KINDS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "flag": (pa.bool_(), st.booleans()),
    "small": (pa.int16(), WHOLE),
    "long": (pa.int64(), WHOLE | LONG),
    "single": (pa.float32(), st.floats(width=32)),
    "double": (pa.float64(), REAL),
    "moment": (pa.timestamp("ms"), MOMENTS),
    "late": (pa.timestamp("us"), MOMENTS.map(lambda moment: moment * 1000 + 999)),
    "day": (pa.date32(), st.integers(-25_000, 2_900_000)),
    "text": (pa.string(), TEXT),
}
BINNED = [
    *(("integer", column) for column in ("flag", "small", "long")),
    *(("real", column) for column in ("flag", "small", "long", "single", "double")),
    *(("days_since", column) for column in ("moment", "late", "day")),
    *(("hour", column) for column in ("moment", "late")),
    *(("weekday", column) for column in ("moment", "day")),
]
FIELDS: list[Field] = [
    *(Binned(f"{of} {c}", c, of, STARTS[of], "moment" if of == "days_since" else "") for of, c in BINNED),  # type: ignore[arg-type]
    *(Category(f"whole {column}", column, (0, 0), "whole") for column in ("flag", "small", "long")),
    Category("text", "text", (0, 0)),
    ListTop("top", "text", (0, 0), 1),
    ListShape("shape", "text"),
]
ROWS = st.lists(st.tuples(*(st.none() | values for _, values in KINDS.values())), min_size=1, max_size=20)


def encoder(zone: str) -> Encoder:
    return Encoder(FIELDS, np.empty(0, np.int64), [0] * len(FIELDS), zone)


def table_of(rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table(
        {name: pa.array(list(c), kind) for (name, (kind, _)), c in zip(KINDS.items(), columns, strict=True)}
    )


@given(
    rows=ROWS, zone=st.sampled_from(["Asia/Shanghai", "Europe/Berlin", "Australia/Lord_Howe"]), few=st.integers(1, 12)
)
def test_few_rows_get_the_ids_that_many_get(rows: list[tuple[Any, ...]], zone: str, few: int) -> None:
    table = table_of(rows)
    many = pa.concat_tables([table] * (FEW_ROWS + 1))
    one = encoder(zone)
    expected = one.encode(many)[: len(rows)]
    pieces = [one.encode(table.slice(at, few)) for at in range(0, len(rows), few)]
    assert np.array_equal(np.concatenate(pieces), expected)
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1, 2)])
    assert np.array_equal(one.encode(chunked), expected[: chunked.num_rows])
    assert one.encode(table.slice(0, 1)).flags.c_contiguous


def test_few_rows_of_other_types_are_refused_as_many_are() -> None:
    one, rows = encoder("UTC"), [tuple(None for _ in KINDS)]
    assert (one.encode(table_of(rows)) == NULL_ID).all()
    for name in KINDS:
        with pytest.raises(ArtifactMismatch, match=f"column {name}"):
            one.encode(table_of(rows).drop_columns([name]))
    wrong = table_of(rows)
    at = wrong.schema.get_field_index("text")
    with pytest.raises(ArtifactMismatch, match="column text: the encoder needs a string"):
        one.encode(wrong.set_column(at, "text", pa.array([1])))
