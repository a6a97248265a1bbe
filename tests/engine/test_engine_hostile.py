"""No value makes a request raise: every function and aggregate of the values at the ends of their types."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from streaming.engine import BadRow, Engine, UnsupportedSQL
from streaming.engine.library import ALIASES, FUNCTIONS, VARIADIC
from streaming.engine.plan.aggregates import AGGREGATES
from streaming.engine.plan.functions import SCALARS

COLUMNS = {"w": "timestamp", "e": "date", "s": "string", "f": "float", "d": "double", "i": "int", "b": "bigint"}
FAR = (0, -1, -28_800_500, -(2**63), 2**63 - 1, 253_402_271_999_000, 253_402_300_799_999, -62_135_596_800_000)
NOT_FINITE = (math.nan, math.inf, -math.inf, 0.0, -0.0)
VALUES: dict[str, tuple[Any, ...]] = {
    "w": FAR,
    "e": ("1900-01-01", "9999-12-31", "1970-01-01", None),
    "s": (
        "",
        "9999-12-31 23:59:59",
        "99991231",
        "0001-01-01",
        "%" * 50,
        "\0",
        "1e400",
        "nan",
        "%E%O%Z%z%s%+",
        "\\",
        None,
    ),
    "f": (*NOT_FINITE, 3.4e38, 1e-45),
    "d": (*NOT_FINITE, 1.7e308, 5e-324, 1e19, None),
    "i": (0, -(2**31), 2**31 - 1, None),
    "b": (*FAR, 10**15, None),
}
WINDOW = "window x as (partition by k order by ts rows between 5 preceding and current row)"


def engine_of_all() -> Engine:
    engine = Engine()
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    engine.execute(
        f"create database db; use db; create table t(k string, ts timestamp, {columns}, index(key=k, ts=ts))"
    )
    return engine


def calls() -> Iterator[str]:
    """Of one column, of a cast of one, of two columns, and over a window."""
    names = sorted({*SCALARS, *FUNCTIONS, *ALIASES, *VARIADIC} - {"identity"})
    for name, column in itertools.product(names, COLUMNS):
        yield f"{name}({column})"
        yield f"{name}(date({column}))"
        for other in COLUMNS:
            yield f"{name}({column}, {other})"
    for operator, column, other in itertools.product(("+", "-", "*", "/", "div", "%", "<"), COLUMNS, COLUMNS):
        yield f"{column} {operator} {other}"
    for kind, column in itertools.product(("bool", "smallint", "int", "float", "string", "timestamp", "date"), COLUMNS):
        yield f"cast({column} as {kind})"
    for name, column in itertools.product(AGGREGATES, COLUMNS):
        for more in ("", ", d", ", 2", ", b, i > 0", ", i > 0", ", s", ", i > 0, w", ", i > 0, e, 2"):
            yield f"{name}({column}{more}) over x"


def test_no_value_makes_a_request_raise() -> None:
    engine, taken = engine_of_all(), []
    for item in calls():
        try:
            engine.execute(f"select {item} as c from t {WINDOW}")
        except UnsupportedSQL:
            continue
        taken.append(item)
    assert len(taken) > 1_000
    count = max(map(len, VALUES.values()))
    rows = [
        {"k": "a", "ts": 1_000 * n, **{name: values[(n * step) % len(values)] for name, values in VALUES.items()}}
        for step in (1, 3)
        for n in range(count)
    ]
    engine.insert("t", rows)
    for first in range(0, len(taken), 100):
        items = ", ".join(f"{item} as c{n}" for n, item in enumerate(taken[first : first + 100]))
        engine.execute(f"deploy d{first} select {items} from t {WINDOW}")
        answer = engine.request(f"d{first}", rows)
        assert answer.num_rows == len(rows)
        alone = engine.request(f"d{first}", rows[3:4])  # as texts: NaN is not equal to itself
        assert list(map(str, alone.columns)) == list(map(str, answer.take([3]).columns))


@pytest.mark.parametrize("day", ["1899-12-31", "0001-01-01"])
def test_a_date_before_1900_is_refused(day: str) -> None:
    engine = engine_of_all()
    with pytest.raises(BadRow, match="before 1900"):
        engine.insert("t", [{"k": "a", "ts": 1, "e": day}])
    row = {"k": ["a"], "ts": [1], "e": pa.array([-30_000], pa.date32())}
    rest = {name: pa.nulls(1) for name in COLUMNS if name != "e"}
    with pytest.raises(BadRow, match="1900"):
        engine.insert("t", pa.table({**row, **rest}))
