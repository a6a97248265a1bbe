"""Cases in which OpenMLDB's own engine once answered something else: each is equal now, or refused with its reason."""

from __future__ import annotations

import datetime
import json
import math
from typing import Any

import pyarrow as pa
import pytest
from places import CASES

from streaming.engine import Engine, UnsupportedSQL
from streaming.engine.sql.tokens import KEYWORDS

Case = dict[str, Any]
LINES = (CASES / "disagreements.jsonl").read_text(encoding="utf-8").splitlines()
KINDS = {"int16": "smallint", "int32": "int", "int64": "bigint", "date32[day]": "date", "timestamp[ms]": "timestamp"}

# What OpenMLDB answers and the embedded engine refuses: the query, and the reason.
REFUSED_HERE = {
    "select u.id as c from t last join u order by u.ts on t.k = u.k and u.k = 'a'": "two equalities of column k",
    "select u.id as c from t last join u order by u.ts on t.j = u.j and u.j = 0": "two equalities of column j",
    "select u.id as c from t last join u order by u.ts on t.k = u.k and t.s = u.k": "two equalities of column k",
}


def as_case(value: object) -> object:
    """A value as the cases spell it: moments as epoch milliseconds, dates as text."""
    if isinstance(value, datetime.datetime):
        return round(value.replace(tzinfo=datetime.timezone.utc).timestamp() * 1000)
    return value.isoformat() if isinstance(value, datetime.date) else value


def same(mine: object, theirs: object) -> bool:
    """Whether two cells are equal; NaN is equal to NaN, 0.0 is not to -0.0."""
    if isinstance(mine, float) and isinstance(theirs, float):
        return (math.isnan(mine) and math.isnan(theirs)) or (
            mine == theirs and math.copysign(1, mine) == math.copysign(1, theirs)
        )
    return type(mine) is type(theirs) and mine == theirs


def asked(case: Case, *, portable: bool = False) -> pa.Table:
    engine = Engine(portable=portable)
    engine.execute("create database db; use db; " + case["ddl"])
    engine.execute("deploy d " + case["query"])
    for table, rows in case["rows"].items():
        engine.insert(table, rows)
    return engine.request("d", [case["request"]])


@pytest.mark.parametrize("case", [json.loads(line) for line in LINES], ids=lambda case: case["title"])
def test_answers_as_openmldb_or_refuses(case: Case) -> None:
    reason = REFUSED_HERE.get(case["query"])
    if reason is not None or isinstance(case["expected"], str):
        with pytest.raises(UnsupportedSQL, match=reason or " at 1:") as refusal:
            asked(case, portable=True)
        assert refusal.value.args
        return
    answer = asked(case)
    kinds = [KINDS.get(str(kind), str(kind)) for kind in answer.schema.types]
    assert [list(pair) for pair in zip(answer.column_names, kinds, strict=True)] == case["expected"]["types"]
    row = [as_case(value) for value in answer.to_pylist()[0].values()]
    assert all(map(same, row, case["expected"]["row"])), (row, case["expected"]["row"])


NAN, GREATEST = math.nan, 3.4028234663852886e38


@pytest.mark.parametrize(
    ("call", "values", "answer"),
    [
        ("max(v)", (0.25, 0.5, NAN), 0.5),
        ("max(v)", (NAN,), -GREATEST),
        ("max(v)", (NAN, 0.5, 0.25), 0.5),
        ("max(v)", (-math.inf,), -GREATEST),
        ("min(v)", (0.25, 0.5, NAN), 0.25),
        ("min(v)", (NAN, 0.5, 0.25), NAN),
        ("min(v)", (math.inf,), GREATEST),
        ("min_where(v, k = 'a')", (NAN, 0.5, 0.25), 0.25),
        ("min_where(v, k = 'a')", (0.25, 0.5, NAN), NAN),
        ("max_where(v, k = 'a')", (0.25, 0.5, NAN), NAN),
        ("median(v)", (0.25, 0.5, NAN), NAN),
        ("median(v)", (0.5, NAN, 0.25), 0.25),
        ("topn_frequency(v, 3)", (NAN, 0.5, 0.25), "0.250000,0.500000,NULL"),
        ("topn_frequency(v, 3)", (0.25, 0.5, NAN), "nan,NULL,NULL"),
        ("top(v, 2)", (0.25, 0.5, NAN), "nan,nan"),
        ("top(v, 2)", (NAN, 0.5, 0.25), "0.500000,0.250000"),
        ("distinct_count(v)", (NAN, NAN, 0.5), 3),
        ("distinct_count(v)", (0.0, -0.0), 1),
        ("top1_ratio(v)", (0.25, 0.5, NAN), 1.0),
        ("top1_ratio(v)", (NAN, 0.5, 0.25), 2 / 3),
        ("entropy(v)", (0.25, NAN), 0.0),
        ("drawdown(v)", (math.inf,), None),
        ("sum_cate(v, k)", (-0.0, -0.0), "a:-0.000000"),
        ("ew_avg(v, double(null))", (1.0, 3.0), 2.0),
    ],
)
def test_numbers_that_are_none_in_aggregates(call: str, values: tuple[float, ...], answer: object) -> None:
    """Oldest row first; the answers are those of OpenMLDB's engine."""
    engine = Engine()
    engine.execute("create database db; use db; create table t(k string, v float, ts timestamp, index(key=k, ts=ts))")
    engine.execute(
        f"deploy d select {call} over w as c from t window w as (partition by k order by ts rows_range between 10d "
        "preceding and 0s preceding exclude current_row)"
    )
    engine.insert("t", [{"k": "a", "v": value, "ts": 100 + n} for n, value in enumerate(values)])
    assert same(engine.request("d", [{"k": "a", "v": 0.0, "ts": 6000}])["c"].to_pylist()[0], answer)


@pytest.mark.parametrize(("ms", "day"), [(2**63 - 1, 229), (2**63 - 28_800_000, 229), (2**62, 114), (-1, None), (0, 1)])
def test_the_day_of_the_year_does_not_wrap(ms: int, day: int | None) -> None:
    """Of OpenMLDB's functions of times it alone adds eight hours without a sign; found by the fuzzer's seed 58101."""
    engine = Engine()
    engine.execute("create table t(b bigint)")
    engine.execute("deploy d select dayofyear(b) as c from t")
    assert engine.request("d", [{"b": ms}])["c"].to_pylist() == [day]


@pytest.mark.parametrize(
    ("sql", "answer"),
    [
        *(
            ("string(d - d)", "-nan"),
            ("concat(d * 0, '')", "-nan"),
            ("string(-d % 1)", "-nan"),
            ("string(sin(d))", "-nan"),
        ),
        *(
            ("string(ln(-d))", "nan"),
            ("string(log(-5))", "nan"),
            ("string(log2(-d))", "nan"),
            ("string(acos(d))", "nan"),
        ),
        *(("string(double('nan') - d)", "nan"), ("string(pmod(2.0, d - d))", "-nan"), ("string(round(d, d))", "-nan")),
        *(("string(float(d) - d)", "-nan"), ("string(sqrt(-d))", "-nan"), ("string(abs(d - d))", "nan")),
    ],
)
def test_a_nan_has_its_sign_in_a_text(sql: str, answer: str) -> None:
    """Of infinity, as x86 and C's printf have it; the answers are those of OpenMLDB's engine."""
    engine = Engine()
    engine.execute("create table t(d double)")
    engine.execute(f"deploy d select {sql} as c from t")
    assert engine.request("d", [{"d": math.inf}])["c"].to_pylist() == [answer]


@pytest.mark.parametrize(
    ("ms", "fields"),
    [
        (-(2**63), [2, -23, -12, -55, -292275055, 5, 17]),
        (2**63 - 1, [2, -23, 12, 55, -292275055, 5, 17]),  # the sum with eight hours wraps
        (2**63 - 28_800_001, [1, 7, 12, 55, 292278994, 8, 17]),
        (2**63 - 28_800_000, [1, -7, 12, 55, -292275055, 5, 16]),
        (-1, [5, 7, 0, 0, 1970, 1, 1]),
        (-28_800_500, [5, 0, 0, 0, 1970, 1, 1]),
    ],
)
def test_fields_of_times_far_away(ms: int, fields: list[int]) -> None:
    engine = Engine()
    engine.execute("create database db; use db; create table t(k string, b bigint, ts timestamp, index(key=k, ts=ts))")
    names = ("dayofweek", "hour", "minute", "second", "year", "month", "dayofmonth")
    engine.execute(f"deploy d select {', '.join(f'{name}(b)' for name in names)} from t")
    assert list(engine.request("d", [{"k": "a", "b": ms, "ts": 1}]).to_pylist()[0].values()) == fields


TABLES = """create database db; use db;
create table t(k string, s string, ts timestamp, i int, index(key=k, ts=ts));
create table u(k string, s string, ts timestamp, i int, index(key=k, ts=ts));"""
W = "window w as (partition by k order by ts rows between 2 preceding and current row)"
ROWS = [{"k": "a", "s": "x,y", "ts": 1_000 * n, "i": n} for n in range(4)]
REQUEST = {"k": "a", "s": "z", "ts": 4_000, "i": 2}


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        (f"select sum(count(i) over w) over w as c from t {W}", 9),
        (f"select sum(i + count(i) over w) over w as c from t {W}", 16),
        (f"select sum(abs(i) over w) over w as c from t {W}", 7),
        ("select 2 as c,", 2),
        ("select c from (select i as c, from t)", 2),
        (f"select max(window_split(s, ',')) over w as c from t {W}", "z"),
        (f"select min(window_split(s, ',')) over w as c from t {W}", "x"),
        (f"select entropy(window_split(s, ',')) over w as c from t {W}", 1.5219280948873621),
        (f"select first_value(window_split(s, ',')) over w as c from t {W}", "y"),
        (f"select last_value(window_split(s, ',')) over w as c from t {W}", "z"),
        (
            "select x.i as c from t last join (select * from (select k, ts, i from u union all "
            "select k, ts, i + 1 as i from u)) x on t.k = x.k",
            4,
        ),
    ],
)
def test_shapes_that_openmldb_answers(query: str, answer: object) -> None:
    engine = Engine()
    engine.execute(TABLES)
    for table in "tu":
        engine.insert(table, ROWS)
    if "from" in query:
        engine.execute("deploy d " + query)
        assert same(engine.request("d", [REQUEST])["c"].to_pylist()[0], answer)
    else:
        engine.execute(query)


BESIDE = "window r as (partition by k order by ts rows between {} preceding and current row)"
RANGE = "(partition by k order by ts rows_range between {}s preceding and current row{})"


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        (" maxsize 5", " maxsize 6", True),
        ("", " maxsize 6", True),
        (" maxsize 6", " maxsize 6", False),
        ("", "", False),
        (" maxsize 1", " maxsize 6", False),  # the smaller one is merged with no ROWS
    ],
)
def test_rows_beside_two_ranges_of_different_maxsize(first: str, second: str, refused: bool) -> None:
    """OpenMLDB 0.9.0 answers such a question now so, now so."""
    engine = Engine()
    engine.execute(TABLES)
    query = (
        f"select count(i) over r as a, count(i) over v as b, count(i) over x as c from t {BESIDE.format(2)}, "
        f"v as {RANGE.format(10, first)}, x as {RANGE.format(20, second)}"
    )
    if not refused:
        engine.execute("deploy d " + query)
        return
    with pytest.raises(UnsupportedSQL, match="the same MAXSIZE, or none, or select it in a sub-query of its own at 1:"):
        engine.execute("deploy d " + query)


def test_lag_beside_a_maxsize_that_other_rows_pass_is_refused() -> None:
    engine = Engine()
    engine.execute(TABLES)
    with pytest.raises(UnsupportedSQL, match=r"ROWS, or lag\(\), beside ROWS_RANGE windows"):
        engine.execute(
            "deploy d select at(i, 1) over v as a, count(i) over r as b, count(i) over v as c from t "
            f"{BESIDE.format(3)}, "
            f"v as {RANGE.format(5, ' maxsize 2')}"
        )


@pytest.mark.parametrize("call", ["count", "distinct_count", "top1_ratio", "max", "min", "entropy"])
def test_a_list_alone_over_a_frame_without_the_request_is_refused(call: str) -> None:
    engine = Engine()
    engine.execute(TABLES)
    window = "window w as (partition by k order by ts rows between 2 preceding and 1 preceding)"
    item = f"{call}(window_split(s, ',')) over w as c"
    with pytest.raises(UnsupportedSQL, match="an aggregate of a list alone"):
        engine.execute(f"deploy d select {item} from t {window}")
    engine.execute(f"deploy d select {item}, count(i) over w as n from t {window}")


JOINED = "select x.z as c from t last join ({}) x on t.k = x.k"
OF_T = "window w as (partition by t.k order by t.ts rows between 2 preceding and current row)"
COMPUTED = "select k, ts, {} as z from u"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (JOINED.format(COMPUTED.format("i + 1")), "a sub-query that computes"),
        (JOINED.format(f"select * from ({COMPUTED.format('abs(i)')})"), "a sub-query that computes"),
        (JOINED.format(f"{COMPUTED.format('-i')} union all {COMPUTED.format('i')}"), "a sub-query that computes"),
        (f"select sum(z) over w as c from (select k, ts, i + 1 as z from t) {W}", "a sub-query that computes"),
        (
            JOINED.format("select k, ts, i as z from u union all select k, ts, i as z from u"),
            "UNION ALL of a table with",
        ),
        ("select i as index from t", "the keyword index"),
        ("select `index`.i, index.i as c from t `index`", "the keyword index"),
        ("select join(split(s, ','), '-') as c from t", "the keyword join"),
        ("select i as é from t", "the word é"),
        ("select i as c from t where i = 2", "WHERE of a request's rows"),
        ("select x.i as c from (select * from t where i = 2) x", "WHERE of a request's rows"),
        (f"select sum(y.i) over w as c from t y {W.replace('order by ts', 'order by y.ts')}", "a window over y.ts"),
        (f"select sum(y.i) over w as c from (select * from t) y {W.replace('by k', 'by y.k')}", "a window over y.k"),
        (
            f"select count(*) over w as c from t as y last join u on y.k = u.k {OF_T}",
            "a window over rows of a join whose left side has an alias",
        ),
        (
            JOINED.format(f"select z.k, z.ts, sum(z.i) over w as z from u z {OF_T.replace('t.', 'u.')}"),
            "a window over rows of a join whose left side has an alias",
        ),
        ("select i as c from t where s is null", "IS NULL"),
        (f"select i in ({', '.join(map(str, range(1001)))}) as c from t", "IN with a list of more than 1000"),
    ],
)
def test_what_openmldbs_compiler_refuses_is_refused_for_a_cluster(query: str, reason: str) -> None:
    for portable in (True, False):
        engine = Engine(portable=portable)
        engine.execute(TABLES)
        if not portable:
            engine.execute("deploy d " + query)
            engine.explain(query)
            continue
        for run in (engine.explain, lambda sql, engine=engine: engine.execute("deploy d " + sql)):
            with pytest.raises(UnsupportedSQL, match=f"unsupported by OpenMLDB: {reason}"):
                run(query)


@pytest.mark.parametrize(
    "query",
    [
        JOINED.format(COMPUTED.format("cast(string(i) as int)")),
        JOINED.format(COMPUTED.format("-1")),
        JOINED.format(f"select k, ts, i + count(i) over w as z from u {W}"),
        "select z + 1 as c from (select i + 1 as z from t)",
        "select x.z as c from (select k, i + 1 as z from t) x last join u on x.k = u.k",
        "select i as `index` from t",
        "select i as `é` from t",
        f"select sum(y.i) over w as c from t y {OF_T}",
        f"select count(*) over w as c from t last join u as y on t.k = y.k {OF_T}",
        f"select y.i as c from t y {W.replace('by k', 'by y.k')}",
        "select x.i as c from t last join (select * from u where i = 2) x on t.k = x.k",
        "select x.index, x.from from (select i as `index`, i as `from` from t) x",
        "select `join`(split(s, ','), '-') as c from t",
    ],
)
def test_what_openmldbs_compiler_takes_is_taken_for_a_cluster(query: str) -> None:
    engine = Engine(portable=True)
    engine.execute(TABLES)
    engine.execute("deploy d " + query)


@pytest.mark.parametrize(
    ("literal", "text"),
    [
        (r"'a\000b'", "a"),
        (r"'a\x00b'", "a"),
        (r"'\u0000'", ""),
        (r"concat('a\000b', 'c')", "ac"),
        (r"r'\000'", r"\000"),
    ],
)
def test_a_nul_ends_a_literal(literal: str, text: str) -> None:
    engine = Engine()
    engine.execute(TABLES)
    engine.execute(f"deploy d select {literal} as c from t")
    assert engine.request("d", [REQUEST])["c"].to_pylist() == [text]


@pytest.mark.parametrize("text", ["'a\rb'", "i && i", "i as ``", "0x1F", "i as 1a"])
def test_what_is_no_token_of_openmldb_is_refused_with_its_place(text: str) -> None:
    engine = Engine()
    engine.execute(TABLES)
    with pytest.raises(UnsupportedSQL, match=r" at 1:\d+"):
        engine.execute(f"deploy d select {text} from t")


@pytest.mark.parametrize("space", ["\u3000", "\u00a0", "\u2003", "\t", "\r\n"])
def test_spaces_of_every_kind_part_words(space: str) -> None:
    engine = Engine()
    engine.execute(TABLES)
    engine.execute(f"deploy d select{space}i{space}as c{space}from{space}t")
    assert engine.request("d", [REQUEST])["c"].to_pylist() == [2]


@pytest.mark.parametrize(
    "script",
    [
        "create table x({} int, index(key=k))",
        "deploy d select i as {} from t",
        "deploy d select {} from (select i as c from t)",
        "deploy d select {}.i from t as {}",
        "deploy d select i from (select i as c from t) as {}",
        f"deploy d select sum(i) over {{}} from t {W.replace('window w', 'window {}')}",
    ],
)
def test_every_keyword_as_a_name_is_refused_for_a_cluster(script: str) -> None:
    """OpenMLDB's own parser, asked about each, refuses them all; behind a dot and in backquotes it takes them."""
    engine = Engine(portable=True)
    engine.execute(TABLES)
    for word in sorted(KEYWORDS):
        with pytest.raises(UnsupportedSQL, match=rf"(the keyword {word} as a name.*|syntax error.*) at 1:\d+"):
            engine.execute(script.replace("{}", word))
        engine.execute(f"deploy {word}_ select x.{word} from (select i as `{word}` from t) x")


def test_a_call_by_a_keyword_is_refused_for_a_cluster() -> None:
    engine = Engine(portable=True)
    engine.execute(TABLES + " create table x(`at` int, k string, index(key=k))")
    for call, word in (("join(split(s, ','), '-')", "join"), ("hash(i)", "hash"), ("contains(s, 'x')", "contains")):
        with pytest.raises(UnsupportedSQL, match=f"the keyword {word} |unsupported: function {word}"):
            engine.execute(f"deploy d select {call} as c from t")
