"""Scalar expressions: types, NULL, arithmetic, comparison, text and time, value by value."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pyarrow as pa
import pytest

from streaming.engine import BadRow, Engine

ROW = {
    "id": "x",
    "y": True,
    "h": 7,
    "i": -7,
    "b": 1 << 40,
    "f": 1.5,
    "d": 2.25,
    "ts": 1_590_738_990_000,
    "day": datetime.date(2020, 5, 29),
    "s": "Ab%",
    "n": None,
}
NULLS = {"id": "x"}


@pytest.fixture(scope="module")
def engine() -> Engine:
    made = Engine()
    made.execute(
        "create table t(id string, y bool, h smallint, i int, b bigint, f float, d double, ts timestamp, day date, "
        "s string, n int)"
    )
    return made


def evaluate(engine: Engine, expression: str, row: dict[str, Any]) -> tuple[Any, pa.DataType]:
    engine.execute(f"deploy d select {expression} as v from t;")
    try:
        answer = engine.request("d", [row])
    finally:
        engine.execute("drop deployment d;")
    return answer.to_pylist()[0]["v"], answer.schema.field("v").type


@pytest.mark.parametrize(
    ("expression", "value", "kind"),
    [
        ("h + h", 14, pa.int16()),
        ("h * 10000", 70000, pa.int32()),
        ("smallint(30000) + smallint(30000)", -5536, pa.int16()),
        ("2147483647 + 1", -(1 << 31), pa.int32()),
        ("i + b", (1 << 40) - 7, pa.int64()),
        ("i % 4", -3, pa.int32()),
        ("i div 2", -3, pa.int32()),
        ("i % 0", None, pa.int32()),
        ("i div 0", None, pa.int32()),
        ("i / 2", -3.5, pa.float64()),
        ("f / 0", None, pa.float64()),
        ("f + d", 3.75, pa.float64()),
        ("f * f", 2.25, pa.float32()),
        ("h + y", 8, pa.int16()),
        ("y + y", False, pa.bool_()),
        ("-i", 7, pa.int32()),
        ("h & 3", 3, pa.int32()),
        ("~h", -8, pa.int16()),
        ("ts + 10", datetime.datetime(2020, 5, 29, 7, 56, 30, 10_000), pa.timestamp("ms")),
        ("i < f", True, pa.bool_()),
        ("s = 'Ab%'", True, pa.bool_()),
        ("'10' > 9", False, pa.bool_()),
        ("ts = '2020-05-29 15:56:30'", True, pa.bool_()),
        ("day < '2020-05-30'", True, pa.bool_()),
        ("s like 'A%'", True, pa.bool_()),
        ("s like 'ab\\\\%'", False, pa.bool_()),
        ("s ilike 'aB#%' escape '#'", True, pa.bool_()),
        ("i between -8 and -6", True, pa.bool_()),
        ("i in (1, -7)", True, pa.bool_()),
        ("i not in (1, 2)", True, pa.bool_()),
        ("n is null", True, pa.bool_()),
        ("n + 1", None, pa.int32()),
        ("n = 1 or true", True, pa.bool_()),
        ("true xor y", False, pa.bool_()),
        ("case i when -7 then 'a' else 'b' end", "a", pa.string()),
        ("ifnull(n, 3)", 3, pa.int32()),
        ("concat(s, i, '-', f)", "Ab%-7-1.5", pa.string()),
        ("concat_ws('|', s, h)", "Ab%|7", pa.string()),
        ("upper(s)", "AB%", pa.string()),
        ("substr(s, -2)", "b%", pa.string()),
        ("string(ts)", "2020-05-29 15:56:30", pa.string()),
        ("string(d * 1000000)", "2.25e+06", pa.string()),
        ("date(ts)", datetime.date(2020, 5, 29), pa.date32()),
        ("hour(ts)", 15, pa.int32()),
        ("dayofweek(ts)", 6, pa.int32()),
        ("year(day)", 2020, pa.int32()),
        ("timestamp(day)", datetime.datetime(2020, 5, 28, 16), pa.timestamp("ms")),
        ("int('12x')", None, pa.int32()),
        ("bigint(-2.9)", -2, pa.int64()),
        ("1 < 2 and not y", False, pa.bool_()),
        ("sqrt(d)", 1.5, pa.float64()),
        ("abs(i)", 7, pa.int32()),
        ("floor(-d)", -3.0, pa.float64()),
        ("pow(d, 2)", 5.0625, pa.float64()),
        ("log(double(1))", 0.0, pa.float64()),
        ('s like "Ab\\\\%" escape "\\\\"', True, pa.bool_()),
    ],
)
def test_value_and_type(engine: Engine, expression: str, value: Any, kind: pa.DataType) -> None:
    assert evaluate(engine, expression, ROW) == (value, kind)


@pytest.mark.parametrize("expression", ["h + i", "s = 'a'", "upper(s)", "ts + 1", "f / d", "like_match(s, 'a')", "-d"])
def test_null_in_null_out(engine: Engine, expression: str) -> None:
    assert evaluate(engine, expression, NULLS)[0] is None


@pytest.mark.parametrize(
    ("row", "where"),
    [
        ({"id": 1}, "column id"),
        ({"h": 1 << 15}, "column h"),
        ({"i": 1.0}, "column i"),
        ({"i": True}, "column i"),
        ({"y": 1}, "column y"),
        ({"day": "2020-13-01"}, "column day"),
        ({"nosuch": 1}, "column nosuch"),
        ({"s": "\ud800"}, "column s"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_stored(engine: Engine, row: dict[str, Any], where: str) -> None:
    with pytest.raises(BadRow, match=f"t row 1.*{where}"):
        engine.insert("t", [{"id": "good"}, row])
    assert engine.stats()["t"].rows == 0


def test_a_bad_arrow_column_is_named(engine: Engine) -> None:
    whole = pa.Table.from_pylist([ROW], engine.table_schema("t"))
    with pytest.raises(BadRow, match="column s: Arrow type int64 is not a string"):
        engine.insert("t", whole.set_column(9, "s", pa.array([1])))
    with pytest.raises(BadRow, match="column s is missing"):
        engine.insert("t", whole.drop_columns(["s"]))
    assert engine.stats()["t"].rows == 0


def test_by_category() -> None:
    made = Engine()
    made.execute("create table t(k string, ts timestamp, i int, s string);")
    made.execute(
        "deploy d select count_cate(i, s) over w as c, sum_cate_where(i, i > 1, s) over w as w, "
        "top_n_key_max_cate_where(i, i > 0, s, 2) over w as m from t "
        "window w as (partition by k order by ts rows between 9 preceding and current row);"
    )
    made.insert("t", [{"k": "a", "ts": n, "i": n, "s": "zyx"[n % 3]} for n in range(1, 7)] + [{"k": "a", "ts": 9}])
    answer = made.request("d", [{"k": "a", "ts": 10, "i": 10, "s": "y"}]).to_pylist()
    assert answer == [{"c": "x:2,y:3,z:2", "w": "x:7,y:14,z:9", "m": "z:6,y:10"}]


@pytest.mark.parametrize(
    ("ms", "date"),
    [
        (253_402_271_999_999, [9999, 12, 31, 52]),
        (253_402_272_000_000, [10000, 1, 1, 0]),
        (1 << 50, [37648, 5, 7, 0]),
        (1 << 62, [146140482, 4, 24, 0]),
        (-1, [1970, 1, 1, 1]),
    ],
)
def test_the_calendar_goes_on_behind_the_year_9999(engine: Engine, ms: int, date: list[int]) -> None:
    """The answers of OpenMLDB's engine."""
    parts = ("year(b)", "month(b)", "day(b)", "weekofyear(b)")
    assert [evaluate(engine, part, {"id": "x", "b": ms})[0] for part in parts] == date


@pytest.mark.parametrize("name", ["ceil", "floor", "truncate"])
def test_bigints_are_cut_as_doubles(engine: Engine, name: str) -> None:
    """The answers of OpenMLDB's engine."""
    values = {2**63 - 1: -(2**63), 2**53 + 1: 2**53, -(2**53) - 1: -(2**53), -(2**63): -(2**63), 5: 5}
    for value, expected in values.items():
        assert evaluate(engine, f"{name}(b)", {"id": "x", "b": value}) == (expected, pa.int64())


@pytest.mark.parametrize(
    ("expression", "row", "value"),
    [
        ("i div b", {"i": 7, "b": -(2**63)}, 0),
        ("i % b", {"i": -7, "b": -(2**63)}, -7),
        ("b div i", {"i": 3, "b": -(2**63)}, -3074457345618258602),
        ("b % i", {"i": 3, "b": -(2**63)}, -2),
        ("b div i", {"i": -3, "b": -(2**63)}, 3074457345618258602),
        ("round(i, b)", {"i": 7, "b": 10**12 + 7}, -(2**31)),  # the decimals are an int: here a very negative one
        ("round(h, b)", {"h": 1, "b": 2**63 - 1}, 0),
        ("round(b, i)", {"i": 5, "b": 2**53 + 1}, 2**53 + 1),
        ("ifnull(i, ts)", {"i": -1, "ts": 5}, None),  # -1 is no time
    ],
)
def test_numbers_at_the_ends_of_their_width(engine: Engine, expression: str, row: dict[str, Any], value: Any) -> None:
    """The answers of OpenMLDB's engine."""
    assert evaluate(engine, expression, {"id": "x", **row})[0] == value


@pytest.mark.parametrize(
    ("expression", "row", "value"),
    [
        ("d % f", {"d": -0.0, "f": 2.5}, -0.0),
        ("d % f", {"d": 0.0, "f": math.nan}, math.nan),
        ("d % f", {"d": -5.0, "f": 2.5}, -0.0),
        ("round(d, i)", {"d": 0.0, "i": -400}, math.nan),
        ("round(d, i)", {"d": 9007199254740994.0, "i": -1}, 9007199254741000.0),
        ("round(d, f)", {"d": 1.5, "f": math.nan}, math.nan),
    ],
)
def test_zeros_keep_their_sign_and_what_is_no_number_is_none(
    engine: Engine, expression: str, row: dict[str, Any], value: float
) -> None:
    """The answers of OpenMLDB's engine."""
    found = evaluate(engine, expression, {"id": "x", **row})[0]
    assert (
        math.isnan(found) if math.isnan(value) else (found, math.copysign(1, found)) == (value, math.copysign(1, value))
    )
