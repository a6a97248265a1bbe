"""Every function, operator and aggregate beside OpenMLDB's engine, at the ends of every type.

    python -m pytest tests/engine/test_engine_extremes.py -m slow

Random queries seldom meet two odd values at once; here each function gets all pairs of them, and each aggregate numbers
of every size. What ends OpenMLDB's process (the least integer divided by -1) is left out by its refusal.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from reference.same_answer import ROUNDED, same

from deploy.environments import Missing
from deploy.openmldb.oracle import Oracle, Refused, Table
from streaming.engine import Engine, UnsupportedSQL
from streaming.engine.library import ALIASES, FUNCTIONS, VARIADIC
from streaming.engine.plan.aggregates import AGGREGATES
from streaming.engine.plan.functions import SCALARS

TENTH, LARGE = (float(np.float32(x)) for x in (0.1, 3.4e38))
VALUES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "p": ("smallint", (0, 1, -1, 32767, -32768, 255, None)),
    "i": ("int", (0, 1, -1, 7, -(2**31), 2**31 - 1, 1_000_000_007, None)),
    "b": ("bigint", (0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1, -(2**53) - 1, 10**12 + 7, 1_590_738_990_123, None)),
    "f": ("float", (0.0, -0.0, TENTH, -2.5, 2.5, 1e10, LARGE, math.inf, math.nan, 123456.7890625, 0.5, None)),
    "d": ("double", (0.0, -0.0, 0.1, -2.5, 2.5, 1e10, 1e300, -1e-20, math.inf, -math.inf, math.nan, 2**53 + 2.0, None)),
    "q": ("bool", (True, False, None)),
    "s": ("string", ("", "a", "AbC", "é日本", "12", "-3.7", "1e3", "2020-02-29", "true", "a,b,c", " 5 ", "nan", None)),
    "e": ("date", ("1970-01-01", "2020-02-29", "1999-12-31", "2038-01-19", "2100-03-01", None)),
    "w": ("timestamp", (0, 1, 86_399_999, 57_600_000, 1_590_738_990_123, 951_782_400_000, 4_102_444_800_000, None)),
}
COLUMNS = {name: kind for name, (kind, _) in VALUES.items()}
CASTS = ("bool", "smallint", "int", "bigint", "float", "double", "string", "timestamp", "date")
OPERATORS = ("+", "-", "*", "/", "div", "%", "=", "!=", "<", ">=", "and", "xor", "&", "|", "^")
WINDOW = "window w as (partition by e order by w rows between 7 preceding and current row)"
SEEDS = 40
ROWS_MAX = 60  # pairs of values of each pair of types

# what differs, and why
NO_DATE = "add_months("  # OpenMLDB answers a month that no date has with a day that is none
EDGE = 8 * 3_600_000  # times so near to the ends of a bigint: OpenMLDB's sum with UTC+8 wraps


def functions() -> list[str]:
    """All but those that answer the time of day."""
    return sorted({*SCALARS, *FUNCTIONS, *ALIASES, *VARIADIC} - {"identity", "unix_timestamp"})


def rows(*names: str) -> list[dict[str, Any]]:
    """A request for each value of a column, or for pairs of values of two."""
    base = {name: values[0] for name, (_, values) in VALUES.items()}
    pairs = list(itertools.product(*(VALUES[name][1] for name in dict.fromkeys(names))))
    chosen = pairs[:: max(1, len(pairs) // ROWS_MAX)]
    return [{**base, **dict(zip(dict.fromkeys(names), values, strict=True))} for values in chosen]


def cells(column: pa.ChunkedArray) -> list[Any]:
    """Plain values; text as bytes, because OpenMLDB cuts it by bytes."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    if pa.types.is_date(column.type):
        return [day and day.isoformat() for day in column.to_pylist()]
    found: list[Any] = (column.cast(pa.binary()) if pa.types.is_string(column.type) else column).to_pylist()
    return found


def alike(mine: Any, theirs: Any, rounded: bool) -> bool:
    if isinstance(mine, bytes) and isinstance(theirs, str):
        return mine.decode(errors="replace") == theirs
    return same(mine, theirs, rounded)


def left_open(row: dict[str, Any], item: str) -> bool:
    """Where OpenMLDB answers by accident."""
    if item in ("ucase(s)", "upper(s)", "lcase(s)", "lower(s)") and row["s"] == "":
        return True  # now '' and now NULL: its function does not set what it answers
    return "(b)" in item and row["b"] is not None and abs(row["b"]) > 2**63 - 1 - EDGE


class Pair:
    """Both engines over one table.

    Args:
        stored: its rows, in order of time.
    """

    def __init__(self, oracle: Oracle, stored: Sequence[dict[str, Any]] = ()) -> None:
        self._oracle, self._stored = oracle, stored
        self._engine = Engine()
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        self._engine.execute(f"create table t({columns}, index(key=e, ts=w))")
        self._engine.insert("t", list(stored))

    def differences(self, items: Sequence[str], requests: Sequence[dict[str, Any]]) -> Iterator[str]:
        """What is answered differently, of those that the embedded engine takes."""
        mine: dict[str, list[Any]] = {}
        for item in items:
            try:
                self._engine.execute(f"deploy d select {item} as c from t {WINDOW}")
            except UnsupportedSQL:
                continue
            mine[item] = cells(self._engine.request("d", requests)["c"])
            self._engine.execute("drop deployment d")
        for item, theirs in self._asked(list(mine), requests):
            rounded = ROUNDED.search(f"{item}(") is not None
            for row, one, other in zip(requests, mine[item], theirs, strict=True):
                if not alike(one, other, rounded) and not left_open(row, item):
                    yield f"{item} of {row} is {one!r}, of OpenMLDB {other!r}"

    def _asked(self, items: list[str], requests: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
        if not items:
            return
        select = ", ".join(f"{item} as c{n}" for n, item in enumerate(items))
        try:
            table = Table(COLUMNS, [(("e",), "w")], self._stored)
            answer = self._oracle.ask(f"select {select} from t {WINDOW}", {"t": table}, requests)
        except Refused:  # one of them ends its process: found by halves
            half = len(items) // 2
            if half:
                yield from self._asked(items[:half], requests)
                yield from self._asked(items[half:], requests)
            return
        for n, item in enumerate(items):
            yield item, [row and row[n] for row in answer.rows]


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    """Skips where OpenMLDB's engine was not made."""
    try:
        oracle = Oracle()
    except Missing as missing:
        pytest.skip(str(missing))
    with oracle:
        yield oracle


@pytest.fixture(scope="module")
def pair(oracle: Oracle) -> Pair:
    return Pair(oracle)


@pytest.mark.slow
@pytest.mark.parametrize("name", VALUES)
def test_of_one_argument(pair: Pair, name: str) -> None:
    items = [f"{function}({name})" for function in functions() if (function, name) != ("last_day", "b")]
    items += [f"cast({name} as {kind})" for kind in CASTS] + [f"(-{name})", f"(not {name})", f"(~{name})"]
    assert list(pair.differences(items, rows(name))) == []


@pytest.mark.slow
@pytest.mark.parametrize("names", list(itertools.product(VALUES, VALUES)), ids="".join)
def test_of_two_arguments(pair: Pair, names: tuple[str, str]) -> None:
    left, right = names
    items = [f"({left} {operator} {right})" for operator in OPERATORS]
    items += [f"{function}({left}, {right})" for function in functions()]
    found = pair.differences([item for item in items if NO_DATE not in item], rows(left, right))
    assert list(found) == []


def number(luck: random.Random, kind: str) -> float | int | None:
    """Of any size that the type has, small ones as often as large ones."""
    if luck.random() < 0.15:
        return None
    if kind in ("float", "double"):
        real = luck.choice(
            (luck.uniform(-2, 2), luck.uniform(0, 1e-3), luck.uniform(-1, 1) * 10 ** luck.uniform(0, 30))
        )
        return float(np.float32(real)) if kind == "float" else real
    edge = {"smallint": 1 << 15, "int": 1 << 31, "bigint": 1 << 63}[kind]
    return luck.choice((luck.randint(-10, 10), luck.randint(-edge, edge - 1)))


def aggregates(column: str) -> list[str]:
    """All of them over a column of numbers; those that have a category, by text."""
    items = []
    for name in sorted(AGGREGATES):
        arguments = [column]
        if name == "nth_value_where":
            arguments.append("2")
        if "_where" in name:
            arguments.append("s = 'a'")
        if "_cate" in name:
            arguments.append("s")
        if name.startswith("top_n_") or name in ("topn_frequency", "top", "at", "lag"):
            arguments.append("2")
        if name == "ew_avg":
            arguments.append("0.3")
        items.append(f"{name}({', '.join(arguments)}) over w")
    return items


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_aggregates(oracle: Oracle, seed: int) -> None:
    luck = random.Random(seed)

    def row(at: int) -> dict[str, Any]:
        numbers = {name: number(luck, COLUMNS[name]) for name in "pibfd"}
        return {"q": True, "s": luck.choice(("a", "b", None)), "e": "2020-02-29", "w": at, **numbers}

    pair = Pair(oracle, [row(1_000 + n) for n in range(luck.randint(0, 9))])
    request = row(2_000)
    assert [line for name in "pibfd" for line in pair.differences(aggregates(name), [request])] == []
