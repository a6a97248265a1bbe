"""What a real 0.9.2 cluster was recorded to take, answer and refuse, through the code that drives the SDK.

Only the router, the part of the SDK that talks to servers, is replaced: it expects what was sent when the recording was
made, and answers what was answered. Rows are built by the SDK's compiled builder.
"""

from __future__ import annotations

import datetime
import itertools
import json
import math
import re
import struct
from typing import Any

import pyarrow as pa
import pytest
from fixtures.jd import jd
from places import CASES
from rigs.fake_router import ServerError, connection, fake_native

from streaming.app.scripts import deploy_script
from streaming.cli.deploy_sql import normal_words, same_sql, shown_sql, table_columns
from streaming.engine import Engine
from streaming.store.openmldb.columns import cells, rows_to_table, schema_of
from streaming.store.openmldb.sdk import deployment_schemas
from streaming.store.openmldb.sdk_process import CallFailed, ConnectOptions, RowRefused, Sdk, Session

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the SDK's own imports

TABLE = [
    ("id", "string"),
    ("ts", "timestamp"),
    ("i", "int32"),
    ("b", "int64"),
    ("f", "float"),
    ("d", "double"),
    ("s", "string"),
    ("dt", "date"),
    ("bo", "bool"),
    ("si", "int16"),
]
REQUEST = [
    ("id", "string"),
    ("k", "string"),
    ("ts", "timestamp"),
    ("i", "int32"),
    ("b", "int64"),
    ("f", "float"),
    ("d", "double"),
    ("s", "string"),
    ("dt", "date"),
    ("bo", "bool"),
    ("si", "int16"),
]


class Replay:
    """Servers that were recorded; what is asked must be what was asked then."""

    def __init__(self) -> None:
        self.refuse_connections = False
        self.answers: dict[str, Any] = {}  # statement → recording
        self.inserted: list[list[Any]] = []
        self.asked: list[list[Any]] = []
        self.answer: tuple[list[tuple[str, str]], list[tuple[Any, ...]]] = ([], [])
        self.insert_error: ServerError | None = None

    def connect(self, password: str) -> None:
        if self.refuse_connections:
            raise ServerError(-1, "")

    def execute(self, database: str, sql: str) -> Any:
        recorded = self.answers[sql]
        if "error" in recorded:
            found = re.fullmatch(r"\[(\d+)\] (.*)", recorded["error"]["message"], re.DOTALL)
            assert found
            raise ServerError(int(found[1]), found[2])
        rows = [tuple(row["tuple"]) for row in recorded["result"]] if recorded["result"] != "no resultset" else []
        return [(f"c{i}", kind_of([row[i] for row in rows])) for i in range(len(rows[0]) if rows else 0)], rows

    def columns(self, database: str, table: str) -> list[tuple[str, str]]:
        return TABLE

    def indexed_times(self, database: str, table: str) -> list[str]:
        return ["ts"]

    def insert(self, database: str, statement: str, rows: list[list[Any]]) -> None:
        if self.insert_error is not None:
            raise self.insert_error
        self.inserted += rows

    def request_columns(self, database: str, deployment: str) -> list[tuple[str, str]]:
        if deployment != "d0":
            raise ServerError(1203, f"p3-{deployment}--{deployment} does not exist in p3")
        return REQUEST

    def call(self, database: str, deployment: str, rows: list[list[Any]], timeout_ms: int) -> Any:
        self.asked += rows
        return self.answer


def kind_of(column: list[Any]) -> str:
    """The type of a recorded column of a SELECT, from its values."""
    kinds = {bool: "bool", int: "int64", float: "double", str: "string", type(None): "string"}
    return next((kinds[type(cell)] for cell in column if cell is not None), "string")


_now: list[Replay] = []


def replay_sdk() -> Sdk:
    return Sdk(lambda **keywords: connection(_now[-1], **keywords), fake_native())


@pytest.fixture
def replay() -> Replay:
    _now.append(Replay())
    return _now[-1]


@pytest.fixture
def session(replay: Replay) -> Session:
    return Session(options())


def options(password: str = "") -> ConnectOptions:
    servers = {"zk": "HOST:PORT", "zkPath": "/openmldb", "zkLogLevel": 0, "user": "root"}
    return ConnectOptions(servers, password, "p2", 20.0, 4, f"{__name__}:replay_sdk")


@pytest.fixture(scope="module")
def recordings() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((CASES / "sdk_recordings.json").read_text())
    return found


def plain(value: Any) -> Any:
    """A recorded value as it was: tuples and dates are spelled out in JSON."""
    if isinstance(value, dict) and "tuple" in value:
        return tuple(plain(part) for part in value["tuple"])
    if isinstance(value, dict) and value.get("type") == "date":
        return datetime.date(*map(int, re.findall(r"\d+", value["repr"])))
    return value


def arrow(columns: list[tuple[str, str]], rows: list[Any]) -> pa.Table:
    """Recorded rows as our columns; raises where a value is none of the column's."""
    spelled = []
    for row in rows:
        cells_ = [plain(cell) for cell in row]
        dates = [
            "-".join(map(str, c)) if isinstance(c, tuple) else str(c) if isinstance(c, datetime.date) else c
            for c in cells_
        ]
        spelled.append(dates)
    return rows_to_table(schema_of(columns), spelled)


def same(one: Any, two: Any) -> bool:
    """Equal, with NaN equal to NaN and every number of the same type."""
    if isinstance(one, float) and isinstance(two, float) and math.isnan(one):
        return math.isnan(two)
    return bool(type(one) is type(two) and one == two)


def test_values_that_the_cluster_took_are_sent_as_they_were_and_come_back(
    recordings: list[dict[str, Any]], session: Session, replay: Replay
) -> None:
    """All accepted rows of ten columns that were read back: by tuples, dicts, native rows, on both kinds of servers."""
    seen = set()
    for number, (insert, read) in enumerate(itertools.pairwise(recordings)):
        args = insert.get("args")
        if insert["step"] != "insert" or read["call"] != "read back" or not isinstance(args, list) or len(args) < 2:
            continue
        row = plain(args[1])
        row = list(row.values()) if isinstance(row, dict) else row
        accepted = "error" not in insert and insert.get("result") in (None, {"tuple": [True, 0, "ok"]})
        if not accepted or not isinstance(row, (list, tuple)) or len(row) != len(TABLE) or "?" not in str(args[0]):
            continue
        try:
            given = arrow(TABLE, [row])
        except ValueError:
            continue  # a bool for an integer: our columns cannot hold it
        session.insert("a", given)
        sent = replay.inserted.pop()
        stored = [tuple(answer["tuple"]) for answer in read["result"]]
        assert len(stored) == 1, number
        assert all(same(a, b) for a, b in zip(sent, stored[0], strict=True)), (number, sent, stored)
        back = arrow(TABLE, stored)
        assert all(same(a, b) for a, b in zip(cells(back)[0], cells(given)[0], strict=True)), number
        seen.add(row[0])
    # NULLs, '', quotes, NUL, non-ASCII text and keys, the greatest bigint, inf and NaN, time 0, float32
    assert {"p1", "pd2", "p3", "p5", "p6", "p8", "p21", "p25", "n1", "n2", "n3", "n岁", "岁u1"} <= seen


def test_times_that_the_cluster_refused_are_refused(recordings: list[dict[str, Any]], session: Session) -> None:
    refused = [r for r in recordings if r["call"] in ("native negative ts", "native None ts")]
    assert len(refused) == 4
    for recorded in refused:
        assert recorded["error"]["message"].endswith("-> False")
        with pytest.raises(RowRefused, match="a: the SDK does not take"):
            session.insert("a", arrow(TABLE, [recorded["args"][1]]))


def test_the_builders_trap_is_there(session: Session) -> None:
    """A size in characters, as the SDK's own cursor gives it, fails: the fake is as strict as the recording."""
    rows = session._router.GetInsertRows("p2", "insert into a values (?,?,?,?,?,?,?,?,?,?)", session._k.Status())
    builder = rows.NewRow()
    assert builder.Init(len("26-35岁"))
    assert not builder.AppendString("26-35岁") or not builder.Build()


def test_answers_are_those_that_were_recorded(
    recordings: list[dict[str, Any]], session: Session, replay: Replay
) -> None:
    """Every call with a whole request row of the right types, one at a time and in batches, NULLs in and out."""
    output = next(r["result"] for r in recordings if r["call"] == "cur.get_resultset_schema()")
    columns = [(column["name"], column["type"]) for column in output]
    asked = 0
    for recorded in recordings:
        if recorded["step"] != "call" or not isinstance(recorded.get("result"), list) or not recorded.get("args"):
            continue
        if recorded["call"].startswith("native Call") or recorded["call"] == "same, timeout variant (future)":
            rows = [plain(row) for row in recorded["args"][0]]
        elif recorded["call"].startswith("callproc") and recorded["args"][0] == "d0":
            row = plain(recorded["args"][1])
            rows = [list(row.values()) if isinstance(row, dict) else row]
        else:
            continue
        if any(len(row) != len(REQUEST) for row in rows):
            continue
        try:
            given = arrow(REQUEST, [[plain(cell) for cell in row] for row in rows])
        except ValueError:
            continue  # a datetime or text for a timestamp: our columns cannot hold it
        replay.answer = columns, [plain(row) for row in recorded["result"]]
        found = session.request("d0", given)
        assert replay.asked == [
            [str(cell) if isinstance(cell, datetime.date) else cell for cell in row] for row in cells(given)
        ]
        assert [(field.name, field.type) for field in found.schema] == [*zip(*_types(columns), strict=True)]
        assert [tuple(map(spelled, row)) for row in cells(found)] == replay.answer[1], recorded["call"]
        replay.asked.clear()
        asked += 1
    assert asked > 20
    none = next(r for r in recordings if r["call"] == "callproc dict None key and ts")
    assert None in plain(none["result"][0])


def _types(columns: list[tuple[str, str]]) -> tuple[list[str], list[pa.DataType]]:
    schema = schema_of(columns)
    return schema.names, schema.types


def spelled(cell: Any) -> Any:
    return str(cell) if isinstance(cell, datetime.date) else cell


def test_many_requests_go_in_few_calls_in_order(session: Session, replay: Replay, monkeypatch: Any) -> None:
    sizes: list[int] = []

    def call(database: str, deployment: str, rows: list[list[Any]], timeout_ms: int) -> Any:
        sizes.append(len(rows))
        assert timeout_ms == 20_000
        return [("id", "string")], [(row[0],) for row in rows]

    monkeypatch.setattr(replay, "call", call)
    row = [None, "k", 5, *[None] * 8]
    for count, expected in ((1, [1]), (250, [100, 100, 50]), (1000, [250] * 4), (4500, [1000] * 4 + [500])):
        sizes.clear()
        table = arrow(REQUEST, [[str(n), *row[1:]] for n in range(count)])
        assert session.request("d0", table)["id"].to_pylist() == [str(n) for n in range(count)]
        assert sizes == expected
    with pytest.raises(CallFailed, match=r"deployment p2.nosuch: \[1203\] p3-nosuch--nosuch does not exist in p3"):
        session.request("nosuch", table)


def test_statements_say_what_was_recorded(recordings: list[dict[str, Any]], session: Session, replay: Replay) -> None:
    """Rows of SHOW, DESC and SELECT; errors with the server's code and text; nothing is fetched after DDL."""
    counts = {"rows": 0, "error": 0, "none": 0}
    for recorded in recordings:
        sql = (recorded.get("args") or [""])[0] if isinstance(recorded.get("args"), list) else ""
        if (
            recorded["call"] != "cur.execute(sql).fetchall()"
            or not isinstance(sql, str)
            or sql.lower().startswith("use")
        ):
            continue
        replay.answers = {sql: recorded}
        if "error" in recorded:
            with pytest.raises(CallFailed) as raised:
                session.execute(sql)
            assert str(raised.value) == recorded["error"]["message"]
            counts["error"] += 1
        elif recorded["result"] == "no resultset" or not recorded["result"]:
            assert session.execute(sql) == []
            counts["none"] += 1
        elif isinstance(recorded["result"][0], dict) and re.match("(?i)show|desc", sql):
            assert session.execute(sql) == [plain(row) for row in recorded["result"]]
            counts["rows"] += 1
    assert min(counts.values()) > 10, counts


def test_a_failed_insert_says_the_servers_message(
    recordings: list[dict[str, Any]], session: Session, replay: Replay
) -> None:
    messages = {
        text
        for recorded in recordings
        if recorded["step"] == "failure" and isinstance(recorded.get("result"), dict)
        for text, _ in recorded["result"].get("ins", {}).get("messages", [])
    }
    assert len(messages) > 3
    row = arrow(TABLE, [["x", 1, *[None] * 8]])
    for message in messages:
        found = re.fullmatch(r"DatabaseError: \[(\d+)\] (.*)", message, re.DOTALL)
        assert found, message
        replay.insert_error = ServerError(int(found[1]), found[2])
        with pytest.raises(CallFailed, match=re.escape(f"[{found[1]}] {found[2]}")):
            session.insert("a", row)


@pytest.mark.parametrize("password", ["s3cret", "it's s3cret", 'a\\ "s3cret"', "s3\ncret", "s3\u0000cret'\""])
def test_a_server_that_was_not_there_is_told_without_the_password(
    recordings: list[dict[str, Any]], replay: Replay, password: str
) -> None:
    recorded = next(r for r in recordings if r["step"] == "connect" and r["args"] == ["zk port closed"])
    assert recorded["outcome"].startswith("builtins.Exception: fail to init OpenMLDB sdk with {'zk': 'HOST:PORT'")
    replay.refuse_connections = True
    with pytest.raises(
        CallFailed, match="OpenMLDB at ZooKeeper HOST:PORT/openmldb does not answer: fail to init"
    ) as raised:
        Session(options(password=password))
    assert "s3" not in str(raised.value)
    assert "cret" not in str(raised.value)


def test_deployments_and_tables_are_read_from_what_the_server_shows(recordings: list[dict[str, Any]]) -> None:
    """SHOW DEPLOYMENT and SHOW CREATE TABLE beside the statements that made them."""
    by_sql: dict[tuple[str, str], dict[str, Any]] = {}
    for recorded in recordings:
        if recorded["step"] in ("ddl", "deploy") and isinstance(recorded.get("args"), list) and recorded["args"]:
            by_sql.setdefault((recorded["target"], recorded["args"][0]), recorded)
    compared = 0
    for target in ("cluster", "standalone"):
        engine = Engine()
        engine.execute("CREATE DATABASE p1; USE p1;")
        for create in (sql for t, sql in by_sql if t == target and re.match(r"CREATE TABLE .*\bt[02]\(", sql)):
            if "IF NOT EXISTS" not in create:  # again, and as another table: to no effect
                engine.execute(create)
        for table in ("t0", "t2"):
            shown = by_sql[target, f"SHOW CREATE TABLE {table}"]["result"][0]["tuple"][1]
            assert table_columns(shown) == engine.table_schema(f"p1.{table}").remove_metadata()
        for name in ("d0", "o1"):
            made = next(sql for t, sql in by_sql if t == target and sql.startswith(f"DEPLOY {name} "))
            engine.execute(f"USE p1; {made}")
            shown = "\n".join(plain(row)[0] for row in by_sql[target, f"SHOW DEPLOYMENT {name}"]["result"])
            assert same_sql(made, shown_sql(shown)) is None
            assert deployment_schemas(shown) == (engine.request_schema(name), engine.schema(name))
            assert same_sql(made.replace("BETWEEN 1d", "BETWEEN 2d").replace("'inf'", "'7d'"), shown_sql(shown))
            compared += 1
    assert compared == 4


def test_the_tutorials_deployment_is_recognised_in_the_servers_spelling() -> None:
    """The file is what OpenMLDB 0.9.2's own parser and formatter make of the DEPLOY of sql/jd."""
    shown = (CASES / "demo_deployment_shown.sql").read_text()
    script = deploy_script(jd())
    mine = script[script.index("DEPLOY demo") :]
    assert same_sql(mine, shown) is None
    changed = shown.replace("top1_ratio(pair_id)", "top1_ratio(sku_id)", 1)
    assert "sku_id" in (same_sql(mine, changed) or "")
    assert same_sql(mine, shown.replace("ROWS_BIAS = 'inf'", "ROWS_BIAS = '0'")) == "ROWS_BIAS is 0, not inf"
    assert "it ends with" in (same_sql(mine, shown + " limit 5") or "")
    assert normal_words('SELECT !a AS `b`, "x" -- no\nFROM t') == ["select", "not", "a", "b", ",", "'x'", "from", "t"]


def test_a_float_is_sent_as_the_float32_that_it_is(session: Session, replay: Replay) -> None:
    session.insert("a", arrow(TABLE, [["x", 1, None, None, 0.1, 0.1, None, None, None, None]]))
    assert replay.inserted[0][4] == struct.unpack("<f", struct.pack("<f", 0.1))[0]
    assert replay.inserted[0][5] == 0.1
