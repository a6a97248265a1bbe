"""Freed memory: what is past its time to live goes for good, and no answer changes by it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import naive_engine as naive

from streaming.engine import Engine, UnsupportedSQL
from streaming.engine.deployment.ttl import Ttl, merge_ttls

COLUMNS = "k string, j int, ts timestamp, d double, s string"
MINUTE = 60_000
QUERY = """select j, count(ts) over w as n, sum(d) over w as d, topn_frequency(s, 2) over w as top from t
window w as (union u partition by {key} order by ts rows_range between unbounded preceding and current row)"""

# times lie half a minute off the bounds of the times to live, which are whole minutes before the wall clock
row_of = st.fixed_dictionaries(
    {
        "k": st.sampled_from([None, "", "a", "b"]),
        "j": st.sampled_from([None, 0, 1]),
        "ts": st.integers(1, 12),
        "d": st.sampled_from([0.5, 1.0, 2.0]),
        "s": st.sampled_from([None, "", "a", "long", "日本"]),
    }
)
rows_of = st.lists(row_of, max_size=12)
ttls = st.sampled_from(
    [
        "ttl=5m, ttl_type=absolute",
        "ttl=2, ttl_type=latest",
        "ttl=(5m,2), ttl_type=absandlat",
        "ttl=(5m,3), ttl_type=absorlat",
    ]
)
relaxed = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def made(key: str, ttl: str, other: str) -> Engine:
    engine = Engine()
    for table in "tu":
        engine.execute(
            f"create table {table}({COLUMNS}, index(key={key}, ts=ts, {ttl}), index(key=s, ts=ts, {other}));"
        )
    as_declared = "options(skip_index_check=true)"
    engine.execute(f"deploy windows {as_declared} " + QUERY.format(key=key))
    engine.execute(f"deploy joined {as_declared} select u.s, u.ts, t.d from t last join u order by u.ts on t.s = u.s;")
    return engine


def at(rows: list[naive.Row], now: int) -> list[naive.Row]:
    return [{**row, "ts": now - row["ts"] * MINUTE + MINUTE // 2} for row in rows]


@relaxed
@given(
    first=rows_of,
    t=st.lists(rows_of, max_size=4),
    u=rows_of,
    asked=st.lists(row_of, min_size=1, max_size=4),
    key=st.sampled_from("kj"),
    ttl=ttls,
    other=ttls,
    back=st.integers(0, 3),
    hold=st.booleans(),
)
def test_freeing_changes_no_answer_now_and_after_a_rollback(
    first: list[naive.Row],
    t: list[list[naive.Row]],
    u: list[naive.Row],
    asked: list[naive.Row],
    key: str,
    ttl: str,
    other: str,
    back: int,
    hold: bool,
) -> None:
    now = int(time.time() * 1000)
    freeing, keeping = made(key, ttl, other), made(key, ttl, other)
    requests = at(asked, now)
    marks: list[tuple[Any, Any]] = []

    def same() -> None:
        freeing.free()
        for deployment in ("windows", "joined"):
            assert freeing.request(deployment, requests).equals(keeping.request(deployment, requests))

    for engine in (freeing, keeping):
        engine.insert("t", at(first, now))
        engine.insert("u", at(u, now))
    same()
    for rows in t:
        marks.append((freeing.mark(), keeping.mark()))
        freeing.insert("t", at(rows, now))
        keeping.insert("t", at(rows, now))
        if not hold:
            marks.clear()
        same()
    for mine, theirs in reversed(marks[: back + 1]):
        freeing.rollback(mine)
        keeping.rollback(theirs)
        same()
    freeing.insert("u", at(u, now))
    keeping.insert("u", at(u, now))
    same()
    for rows in t:
        freeing.insert("t", at(rows, now))
        keeping.insert("t", at(rows, now))
    same()
    assert freeing.stats()["t"].rows <= keeping.stats()["t"].rows


def test_rows_keys_and_strings_stay_as_many_as_live() -> None:
    """Two million rows through a table of which 2,000 keys x 2 rows live: inserts free by themselves."""
    engine = Engine()
    engine.execute(
        "create table t(k string, ts bigint, s string, index(key=k, ts=ts, ttl=2, ttl_type=latest));"
        "deploy d options(skip_index_check=true) select k, count(s) over w as n from t "
        "window w as (partition by k order by ts rows between 5 preceding and current row);"
    )
    sizes, held = [], engine.mark()
    for batch in range(40):
        first = 50_000 * batch
        number = np.arange(first, first + 50_000)
        engine.insert(
            "t", pa.table({"k": [f"k{n % 2000}" for n in number], "ts": number, "s": [f"s{n:07d}" for n in number]})
        )
        sizes.append((engine.stats()["t"].rows, engine.stats()["t"].bytes, engine.strings().bytes))
    rows, table_bytes, string_bytes = (max(column) for column in zip(*sizes[20:], strict=True))
    assert (rows, table_bytes, string_bytes) <= tuple(max(column) for column in zip(*sizes[:20], strict=True))
    assert rows < 4_000 + 65_536 + 2 * 50_000
    answer = engine.request("d", [{"k": "k7", "ts": 2_000_000, "s": "x"}, {"k": "new", "ts": 2_000_000}])
    assert answer.to_pylist() == [{"k": "k7", "n": 3}, {"k": "new", "n": 0}]
    engine.free()
    assert engine.stats()["t"].rows == 4_000
    assert engine.strings().rows == 4 + 2_000 + 4_000
    engine.rollback(held)
    assert engine.stats()["t"].rows == 0


def test_offline_and_later_indexes_refuse_a_table_that_lost_rows() -> None:
    engine = Engine()
    engine.execute("create table t(k string, ts timestamp, index(key=k, ts=ts, ttl=1, ttl_type=latest));")
    window = "window w as (partition by k order by ts rows between 3 preceding and current row)"
    sql = f"select k, count(k) over w as n from t {window}"
    engine.insert("t", [{"k": "a", "ts": n} for n in range(3)])
    assert engine.free() == 0  # no deployment reads it: offline, all of it is there
    assert engine.query(sql)["n"].to_pylist() == [1, 2, 3]
    engine.execute(f"deploy d options(skip_index_check=true) {sql};")
    capture = engine.capture(engine.mark())
    assert engine.free() == 0
    capture.close()
    assert engine.free() == 2
    assert engine.request("d", [{"k": "a", "ts": 9}])["n"].to_pylist() == [2]
    with pytest.raises(UnsupportedSQL, match="t: 2 rows whose time to live was over are gone"):
        engine.query(sql)
    with pytest.raises(UnsupportedSQL, match=r"a new or longer index \(k\) would miss them"):
        engine.execute("create index i on t(k) options(ttl=2, ttl_type=latest);")
    with pytest.raises(UnsupportedSQL, match=r"index \(k, ts\) would miss them"):
        engine.execute(f"deploy again {sql};")
    engine.execute(f"deploy again options(skip_index_check=true) {sql};")


@pytest.mark.parametrize(
    ("options", "lives"),
    [
        ("", 5),
        ("options(range_bias='inf', rows_bias='inf')", 5),
        ("options(range_bias=10m, rows_bias=0)", 4),
        ("options(range_bias=600000, rows_bias=0)", 4),
        ("options(range_bias=30m, rows_bias=0)", 5),
        ("options(range_bias=1s, rows_bias=0)", 3),
    ],
)
def test_what_a_deploy_makes_lives_as_long_as_its_windows_and_biases(options: str, lives: int) -> None:
    now = int(time.time() * 1000)
    engine = Engine()
    engine.execute("create table t(k string, ts timestamp);")
    engine.execute(
        f"deploy d {options} select count(ts) over w as n, count(ts) over v as m from t "
        "window w as (partition by k order by ts rows_range between 20m preceding and current row), "
        "v as (partition by k order by ts rows between 3 preceding and current row);"
    )
    engine.insert("t", [{"k": "a", "ts": now - n * MINUTE} for n in (1, 5, 15, 25, 35)])
    engine.free()
    assert engine.stats()["t"].rows == lives
    assert engine.request("d", [{"k": "a", "ts": now}]).to_pylist() == [{"n": 4, "m": 4}]


def test_a_second_deployment_lengthens_what_the_first_one_needs() -> None:
    engine = Engine()
    engine.execute("create table t(k string, ts timestamp);")
    for name, rows in (("a", 1), ("b", 3)):
        engine.execute(
            f"deploy {name} options(range_bias=0, rows_bias=0) select count(ts) over w as n from t "
            f"window w as (partition by k order by ts rows between {rows} preceding and current row);"
        )
    engine.insert("t", [{"k": "a", "ts": n} for n in range(6)])
    assert engine.free() == 3
    assert engine.request("b", [{"k": "a", "ts": 9}])["n"].to_pylist() == [4]
    with pytest.raises(UnsupportedSQL, match="ROWS_BIAS 'many'"):
        engine.execute(
            "deploy c options(rows_bias='many') select count(ts) over w as n from t "
            "window w as (partition by k order by ts rows between 1 preceding and current row);"
        )


def test_rows_live_by_the_engines_clock() -> None:
    now = 1_000_000
    engine = Engine(clock=lambda: now)
    engine.execute(
        "create table t(k string, ts timestamp, index(key=k, ts=ts, ttl=1m));"
        "deploy d select count(k) over w as n from t "
        "window w as (partition by k order by ts rows_range between 1m preceding and current row);"
    )
    engine.insert("t", [{"k": "a", "ts": 950_000}, {"k": "a", "ts": 990_000}])
    request = [{"k": "a", "ts": 1_000_000}]
    assert engine.request("d", request)["n"].to_pylist() == [3]
    now = 1_011_000
    assert engine.request("d", request)["n"].to_pylist() == [2]
    assert engine.free() == 1


def count_of(ddl: str, options: str, frame: str, row: int, request: int) -> int:
    """How many rows a frame has, of one stored row and the request, both so many minutes old."""
    now = 1_700_000_000_000
    engine = Engine(clock=lambda: now)
    engine.execute(ddl)
    engine.execute(
        f"deploy d {options} select count(k) over w as c from t "
        f"window w as (partition by k order by ts rows_range between {frame} preceding and current row);"
    )
    engine.insert("t", [{"k": "a", "ts": now - row}])
    found: int = engine.request("d", [{"k": "a", "ts": now - request}])["c"].to_pylist()[0]
    return found


@pytest.mark.parametrize(
    ("declared", "options", "rows"),
    [
        ("ttl=1m, ttl_type=absolute", "options(range_bias=0, rows_bias=0)", 2),
        ("ttl=1m, ttl_type=absolute", "", 2),
        ("ttl=1m, ttl_type=absolute", "options(range_bias='INF', rows_bias='inf')", 2),
        ("ttl=(1m,1), ttl_type=absorlat", "", 2),
        ("ttl=1m, ttl_type=absolute", "options(skip_index_check='true')", 1),
    ],
)
def test_a_deployment_lengthens_what_the_script_declared(declared: str, options: str, rows: int) -> None:
    ddl = f"create table t(k string, ts timestamp, index(key=k, ts=ts, {declared}));"
    assert count_of(ddl, options, "10m", 5 * MINUTE, 0) == rows


@pytest.mark.parametrize(("bias", "rows"), [("60000", 1), ("20", 1), ("11m", 2), ("'inf'", 2)])
def test_a_range_bias_is_milliseconds_or_a_span(bias: str, rows: int) -> None:
    ddl = "create table t(k string, ts timestamp);"
    options = f"options(range_bias={bias}, rows_bias=0)"
    assert count_of(ddl, options, "1m", 10 * MINUTE + MINUTE // 2, 10 * MINUTE) == rows


@pytest.mark.parametrize("bias", ["range_bias='7d'", "range_bias='many'", "rows_bias=7d", "rows_bias='7'"])
def test_a_bias_that_openmldb_calls_illegal_is_refused(bias: str) -> None:
    with pytest.raises(UnsupportedSQL, match="_BIAS"):
        count_of("create table t(k string, ts timestamp);", f"options({bias})", "1m", 1, 0)


@pytest.mark.parametrize(
    ("one", "other", "merged"),
    [
        ((60_000, 0, False), (0, 3, False), (60_000, 3, True)),
        ((60_000, 3, False), (90_000, 0, False), (90_000, 0, False)),
        ((60_000, 3, False), (0, 5, False), (0, 5, False)),
        ((60_000, 3, True), (0, 5, False), (60_000, 5, True)),
        ((60_000, 3, True), (90_000, 2, False), (90_000, 3, True)),
        ((60_000, 3, False), (90_000, 2, False), (90_000, 3, False)),
        ((60_000, 0, False), (0, 0, False), (0, 0, False)),
    ],
)
def test_two_times_to_live_are_merged_as_openmldb_does(one: Ttl, other: Ttl, merged: Ttl) -> None:
    assert merge_ttls(one, other) == merge_ttls(other, one) == merged
