"""The engine against what OpenMLDB answers and takes: expressions, windows, joins, types of arguments.

The files in `cases/` hold the answers of OpenMLDB's engine in request mode (0.9.0; its SQL compiler, for the types, is
0.9.2's), on a few fixed rows whose NULLs, ties, late rows and edge values make the rules visible.
"""

from __future__ import annotations

import datetime
import itertools
import json
import math
from typing import Any

import pyarrow as pa
import pytest
from places import CASES

from streaming.engine import BadRow, Engine, UnsupportedSQL
from streaming.engine.plan.select import plan
from streaming.engine.sql.parse import parse_select
from streaming.engine.storage.strings import StringPool
from streaming.engine.storage.table import Column, Table
from streaming.engine.types import ARROW, Type, from_name

Case = dict[str, Any]


def lines(name: str) -> list[Case]:
    return [json.loads(line) for line in (CASES / name).read_text(encoding="utf-8").splitlines()]


def plain(value: Any) -> Any:
    """A value as the cases spell it."""
    if isinstance(value, datetime.datetime):
        return round(value.replace(tzinfo=datetime.timezone.utc).timestamp() * 1000)
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def read(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return [plain(value) for value in column.to_pylist()]


def given(columns: list[list[str]], row: list[Any]) -> Case:
    number = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
    kinds = [kind in ("float", "double") for _, kind in columns]
    values = [number.get(v, v) if real and isinstance(v, str) else v for v, real in zip(row, kinds, strict=True)]
    return {name: value for (name, _), value in zip(columns, values, strict=True)}


def arrow(kind: str) -> pa.DataType:
    found = from_name(kind)
    assert found is not None
    return ARROW[found]


EXPRESSIONS = lines("expressions.jsonl")


@pytest.fixture(scope="module")
def expressions() -> Engine:
    engine = Engine()
    engine.execute("create table t(" + ", ".join(f"{name} {kind}" for name, kind in EXPRESSIONS[0]["columns"]) + ");")
    return engine


@pytest.mark.parametrize("case", EXPRESSIONS[1:], ids=lambda case: case["sql"])
def test_expression(expressions: Engine, case: Case) -> None:
    if case.get("refused"):
        with pytest.raises(UnsupportedSQL, match=r" at \d+:\d+"):
            expressions.execute(f"select {case['sql']} as v from t;")
        return
    expressions.execute(f"deploy d select {case['sql']} as v from t;")
    try:
        columns = EXPRESSIONS[0]["columns"]
        answer = expressions.request("d", [given(columns, row) for row in EXPRESSIONS[0]["rows"]])
    finally:
        expressions.execute("drop deployment d;")
    assert read(answer.column("v")) == case["values"]
    assert answer.schema.field("v").type == arrow(case["type"])


def tables(head: Case) -> Engine:
    engine = Engine()
    columns = ", ".join(f"{name} {kind}" for name, kind in head["columns"])
    indexes = "".join(f", index(key={key}, ts=ts)" for key in head.get("indexes", []))
    for name, rows in head["tables"].items():
        engine.execute(f"create table {name}({columns}{indexes});")
        engine.insert(name, [given(head["columns"], row) for row in rows])
    return engine


@pytest.fixture(scope="module", params=["windows", "joins", "lists"])
def rows_and_cases(request: pytest.FixtureRequest) -> tuple[Engine, Case, list[Case]]:
    head, *cases = lines(f"{request.param}.jsonl")
    return tables(head), head, cases


def test_windows_and_joins(rows_and_cases: tuple[Engine, Case, list[Case]]) -> None:
    engine, head, cases = rows_and_cases
    requests = [given(head["columns"], row) for row in head["requests"]]
    wrong = []
    for case in cases:
        engine.execute(f"deploy d {case['sql']};")
        answer = engine.request("d", requests)
        engine.execute("drop deployment d;")
        got = [list(row) for row in zip(*map(read, answer.columns), strict=True)]
        if got != case["rows"] or answer.schema.types != [arrow(kind) for kind in case["types"]]:
            wrong.append((case["sql"], got, case["rows"]))
    assert cases
    assert wrong == []


SHAPES = lines("shapes.jsonl")


@pytest.fixture(scope="module")
def shapes() -> tuple[Engine, list[Case]]:
    """An engine with the tables of the shapes, and the requests."""
    engine = Engine()
    engine.execute("create database db; use db;")
    for name, table in SHAPES[0]["tables"].items():
        columns = ", ".join(f"{column} {kind}" for column, kind in table["columns"])
        indexes = "".join(f", index(key=({','.join(key)}){f', ts={ts}' if ts else ''})" for key, ts in table["indexes"])
        engine.execute(f"create table {name}({columns}{indexes});")
        engine.insert(name, [given(table["columns"], row) for row in table["rows"]])
    return engine, [given(SHAPES[0]["tables"]["t"]["columns"], row) for row in SHAPES[0]["requests"]]


@pytest.mark.parametrize("case", SHAPES[1:], ids=lambda case: case["sql"])
def test_shape_of_a_query(shapes: tuple[Engine, list[Case]], case: Case) -> None:
    """What both of OpenMLDB's compilers take is answered as by its engine, what both refuse is refused."""
    engine, requests = shapes
    if case.get("refused"):
        with pytest.raises(UnsupportedSQL, match=r" at \d+:\d+"):
            engine.execute(f"deploy d {case['sql']}")
        return
    engine.execute(f"deploy d {case['sql']}")
    try:
        answer = engine.request("d", requests)
    finally:
        engine.execute("drop deployment d;")
    assert [list(row) for row in zip(*map(read, answer.columns), strict=True)] == case["rows"]
    assert answer.column_names == [name for name, _ in case["columns"]]
    assert answer.schema.types == [arrow(kind) for _, kind in case["columns"]]


LETTERS = {
    "b": "bool",
    "h": "smallint",
    "i": "int",
    "l": "bigint",
    "f": "float",
    "d": "double",
    "t": "timestamp",
    "y": "date",
    "s": "string",
}
COLUMNS = {**{letter: letter for letter in LETTERS}, "n": "null"}
W = " window w as (partition by k order by ts rows between 1 preceding and current row)"


TYPED = Table(
    "",
    "t",
    [Column("k", Type.STRING), Column("ts", Type.TIMESTAMP)]
    + [Column(letter, from_name(kind) or Type.NULL) for letter, kind in LETTERS.items()],
)
POOL = StringPool()


def type_of(sql: str) -> str:
    (output,) = plan(parse_select(sql), sql, "", lambda name: TYPED if name == ("t",) else None, POOL).outputs
    return "bool" if output.node.type == Type.NULL else str(output.node.type)


@pytest.mark.parametrize("case", lines("signatures.jsonl"), ids=lambda case: case["sql"])
def test_exactly_the_types_that_openmldb_takes(case: Case) -> None:
    """Every combination of argument types is accepted or refused as OpenMLDB's compiler does it, with its result."""
    takes = {combination: kind for kind, all_of in case["types"].items() for combination in all_of.split()}
    wrong = {}
    for combination in map("".join, itertools.product(COLUMNS, repeat=case["arity"])):
        expression = case["sql"].format(*(COLUMNS[letter] for letter in combination))
        window = W if " over w" in expression else ""
        try:
            kind = type_of(f"select {expression} as v from t{window}")
        except UnsupportedSQL:
            kind = "refused"
        if kind != takes.get(combination, "refused"):
            wrong[combination] = (kind, takes.get(combination, "refused"))
    assert wrong == {}, "argument types: (ours, OpenMLDB's)"


def stored(*databases: str) -> Engine:
    """A table t in each database, with a row whose number says which."""
    engine = Engine()
    for number, database in enumerate(databases):
        engine.execute(
            f"create database {database}; create table {database}.t(k string, i int, ts timestamp, index(key=k, ts=ts))"
        )
        engine.insert(f"{database}.t", [{"k": "a", "i": number, "ts": 1000}])
    return engine


REQUEST = {"k": "a", "i": 5, "ts": 3000}


@pytest.mark.parametrize(
    ("sql", "row"),
    [
        ("select one.t.k, two.t.i from one.t last join two.t order by two.t.ts on one.t.k = two.t.k", ["a", 1]),
        ("select t.k, two.t.i from t last join two.t on t.k = two.t.k", ["a", 1]),
        ("select t.i, x.i as j, two.t.i as h from t last join two.t x on t.k = x.k", [5, 1, 1]),
        ("select one.x.i from t last join two.t x on t.k = x.k", [1]),
        ("select one.y.k from (select k from two.t) as y", ["a"]),
        (
            "select k, sum(two.t.i) over w as s from two.t window w as (partition by two.t.k order by ts rows between "
            "1 preceding and current row)",
            ["a", 6],
        ),
    ],
)
def test_names_belong_to_the_database_in_use_or_to_the_one_they_name(sql: str, row: list[Any]) -> None:
    """The answers of OpenMLDB's engine."""
    engine = stored("one", "two")
    engine.execute("use one; deploy d " + sql)
    assert list(engine.request("d", [REQUEST]).to_pylist()[0].values()) == row


@pytest.mark.parametrize(
    "sql",
    [
        "select t.k from two.t",
        "select t.i from t last join two.t as x order by two.x.ts on t.k = x.k",
        "select two.t.k from t",
        "select two.y.k from (select k from two.t) as y",
        "select t.i + 1 from two.t",
    ],
)
def test_names_are_not_looked_up_in_other_databases(sql: str) -> None:
    engine = stored("one", "two")
    with pytest.raises(UnsupportedSQL, match="unknown column"):
        engine.execute("use one; deploy d " + sql)


def test_what_a_script_may_say_besides() -> None:
    engine = Engine()
    engine.execute(
        "create table t(k varchar(20), e date, ts timestamp, b bool, index(key=k, ts=ts),) "
        "options(partitionnum=1, distribution=[('a:1', ['b:2', 'c:3'])]);"
        "insert into t values('a', '2021-1-3', 1000, 1), ('a', '2021-10-03', 2000, false);"
    )
    assert engine.query("select b from t").column("b").to_pylist() == [True, False]
    with pytest.raises(UnsupportedSQL, match=r"2 \(int\) is not a bool at 1:\d+"):
        engine.execute("insert into t values('a', null, 1000, 2)")
    with pytest.raises(UnsupportedSQL, match=r"KEY=f, a float at 1:\d+"):
        engine.execute("create table u(f float, index(key=f))")
    assert engine.query("select e from t").column("e").to_pylist() == [
        datetime.date(2021, 1, 3),
        datetime.date(2021, 10, 3),
    ]
    for bad in ("2021-13-1", "2021-2-30", "21-1-1", "2021-1-1x", "2021-1"):
        with pytest.raises(BadRow, match="t row 0 column e"):
            engine.insert("t", [{"k": "a", "e": bad, "ts": 1}])


@pytest.mark.parametrize("end", ["-1 preceding", "-0 preceding", "-3 open preceding", "current row"])
def test_a_frame_that_would_end_behind_the_request_ends_with_it(end: str) -> None:
    engine = stored("one")
    engine.execute(
        "use one; deploy d select sum(i) over w as s from t window w as "
        f"(partition by k order by ts rows between 2 preceding and {end})"
    )
    engine.insert("one.t", [{"k": "a", "i": 10, "ts": 2000}])
    assert engine.request("d", [REQUEST]).to_pylist() == [{"s": 15}]


LONG = (
    "options(long_windows='w:1d') select count_where(i, {}) over w from t window w as "
    "(partition by k order by ts rows between 2 preceding and current row)"
)


@pytest.mark.parametrize("condition", ["i < 4", "4 >= i", "k = 'a'", "i != -1"])
def test_long_windows_are_answered_like_others(condition: str) -> None:
    engine = stored("one")
    engine.execute("use one; deploy d " + LONG.format(condition))
    assert engine.request("d", [REQUEST]).num_rows == 1


@pytest.mark.parametrize("condition", ["i < 4 and i > 1", "i > i", "if_null(i, 0) > 4", "bool(i)"])
def test_long_windows_take_the_conditions_that_openmldb_takes(condition: str) -> None:
    engine = stored("one")
    with pytest.raises(UnsupportedSQL, match=r"in long window w a condition .* at 1:\d+"):
        engine.execute("use one; deploy d " + LONG.format(condition))


@pytest.mark.parametrize(
    ("option", "item", "reason"),
    [
        ("w:2", "count_where(i, i > 1)", r"count_where\(\) with a bucket of rows at 1:54"),
        ("w:1d:2", "count(i)", "neither a window, nor one with a bucket"),
        ("w:1y", "count(i)", "neither a window, nor one with a bucket"),
        ("w,v", "count(i)", "LONG_WINDOWS v: no aggregate is over it"),
        ("w", "topn_frequency(i, 2)", r"topn_frequency\(\), of which OpenMLDB keeps no aggregates"),
        ("w", "sum(i + 1)", "an aggregate of something that is not a column"),
        ("w", "count_where(i, ts > '2020-01-01')", "a condition on a timestamp"),
        ("w", "1 + count(i)", "an item that is more than one aggregate"),
    ],
)
def test_options_that_openmldb_rejects_are_rejected(option: str, item: str, reason: str) -> None:
    engine = stored("one")
    window = "window w as (partition by k order by ts rows between 2 preceding and current row)"
    with pytest.raises(UnsupportedSQL, match=reason):
        engine.execute(f"use one; deploy d options(long_windows='{option}') select {item} over w from t {window}")


def test_long_windows_are_of_one_table() -> None:
    engine = stored("one")
    engine.execute("use one; create table more(k string, i int, ts timestamp, index(key=k, ts=ts));")
    with pytest.raises(UnsupportedSQL, match="LONG_WINDOWS in a query of several tables"):
        engine.execute(
            "deploy d options(long_windows='w') select sum(t.i) over w from t last join more on t.k = more.k "
            "window w as (partition by t.k order by t.ts rows between 2 preceding and current row)"
        )
