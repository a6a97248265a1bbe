"""Aggregates whose steps have the width of their type: the answers of OpenMLDB's engine to values that show it."""

from __future__ import annotations

import math

import pytest

from streaming.engine import Engine

INT, BIGINT = 2**31 - 1, 2**63 - 1
TABLE = "create table t(k string, ts timestamp, i int, b bigint, p smallint, f float, d double, index(key=k, ts=ts));"
WINDOW = "from t window w as (partition by k order by ts rows between 5 preceding and current row)"


def answer(name: str, column: str, *values: float) -> float | None:
    """Of an aggregate over these values, the oldest first; the last one is the request's."""
    engine = Engine()
    engine.execute(TABLE)
    engine.execute(f"deploy d select {name}({column}) over w as c {WINDOW}")
    rows = [{"k": "a", "ts": 1000 + n, column: value} for n, value in enumerate(values)]
    engine.insert("t", rows[:-1])
    found: float | None = engine.request("d", rows[-1:])["c"].to_pylist()[0]
    return found


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("i", (INT, INT), -1.0),  # the sum of two ints wraps
        ("i", (INT, 1), -(2.0**30)),
        ("i", (-INT - 1, -1), 1073741823.5),
        ("b", (BIGINT, BIGINT), -1.0),
        ("b", (BIGINT, 1), -(2.0**62)),
        ("p", (32767, 32767), 32767.0),  # that of two smallints is an int
        ("f", (0.1, 0.2), 0.15000000596046448),  # that of two floats a float
        ("f", (3e38, 3e38), math.inf),
        ("d", (0.1, 0.2), 0.15000000000000002),
        ("i", (-3, -4, 7), -3.0),
    ],
)
def test_the_mean_of_the_two_in_the_middle(column: str, values: tuple[float, ...], expected: float) -> None:
    assert answer("median", column, *values) == expected


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("f", (2.712611436843872, 0.2352798730134964), 0.9132644671064873),  # a fall between floats is a float
        ("f", (2.320603847503662, 0.32761237025260925), 0.8588245036276427),
        ("d", (2.712611436843872, 0.2352798730134964), 0.9132644396400375),
        ("i", (4, 1, 8), 0.75),
        ("f", (0.5, 1.0), 0.0),
    ],
)
def test_the_greatest_fall(column: str, values: tuple[float, ...], expected: float) -> None:
    assert answer("drawdown", column, *values) == expected
