"""The REST transport over real HTTP against `jd-intent-score apiserver`; rarer faults of a server, injected."""

from __future__ import annotations

import datetime
import json
import math
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpcore
import httpx
import numpy as np
import pyarrow as pa
import pytest
from fixtures.apiserver import ApiServer
from fixtures.jd import actions_of, dimensions_of
from fixtures.scorer import Shop, loaded_store
from places import SQL

from streaming.config import Rest
from streaming.engine import BadRow
from streaming.errors import ArtifactMismatch, ConfigError, StoreUnavailable
from streaming.store.openmldb import rest
from streaming.store.openmldb.rest import ATTEMPTS_MAX, INSERT_ROWS, RestTransport, literal, statements

TYPES = (
    "id string, ts timestamp, i int, b bigint, f float, d double, s string, dt date, bo bool, si smallint, "
    "index(key=id, ts=ts)"
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("ts", pa.timestamp("ms")),
        ("i", pa.int32()),
        ("b", pa.int64()),
        ("f", pa.float32()),
        ("d", pa.float64()),
        ("s", pa.string()),
        ("dt", pa.date32()),
        ("bo", pa.bool_()),
        ("si", pa.int16()),
    ]
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A server with the project's tables and deployment."""
    with ApiServer(tmp_path_factory.mktemp("rest"), "--app", str(SQL / "jd")) as server:
        server.run("x", "CREATE DATABASE types")
        server.run("types", f"CREATE TABLE t({TYPES})", "DEPLOY t SELECT *, ts + 1 AS later FROM t")
        yield server


@pytest.fixture
def rest_settings(server: ApiServer) -> Rest:
    return Rest(url=server.url, connections=3)


@pytest.fixture
def types(rest_settings: Rest) -> Iterator[RestTransport]:
    with RestTransport(rest_settings, "types", "t") as transport:
        yield transport


def rows(*values: tuple[Any, ...]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in values], SCHEMA)


DAY = datetime.date(2024, 1, 2)
FLOAT_MAX = (2 - 2**-23) * 2.0**127
TEXTS = [
    "",
    " ",
    "26-35岁😀",
    'it\'s "quoted"',
    "back\\slash \\n \\' \\",
    "a\nb\r\tc",
    "what?",
    "100%_\\%",
    "''",
    "--x",
    "\x7f\x01",
]


def test_every_value_makes_the_way_there_and_back_unchanged(types: RestTransport) -> None:
    sent = rows(
        *(("k", 10 + n, n, -n, n / 3, -n / 7, text, DAY, n % 2 == 0, -n) for n, text in enumerate(TEXTS)),
        ("max", 253402300799999, 2**31 - 1, 2**63 - 1, FLOAT_MAX, sys.float_info.max, "", DAY, True, 2**15 - 1),
        ("min", 0, -(2**31), -(2**63) + 1, 2**-149, 5e-324, "", datetime.date(1900, 1, 1), False, -(2**15)),
        ("zero", 1, 0, 0, -0.0, -0.0, "", DAY, False, 0),
        ("null", 2, None, None, None, None, None, None, None, None),
        (None, 3, 1, 1, 0.1, 0.1, "key is NULL", DAY, True, 1),
    )
    types.insert("t", sent)
    types.insert("t", sent.slice(3))  # comes again: changes nothing
    stored = types.execute("SELECT * FROM t")
    answered = types.request(sent)
    assert answered.schema.names == [*SCHEMA.names, "later"]
    assert same(answered.select(SCHEMA.names), sent)
    assert answered["later"].cast(pa.int64()).to_pylist() == [ts + 1 for ts in sent["ts"].cast(pa.int64()).to_pylist()]
    assert len(stored) == len(sent)
    for found, row in zip(stored, sent.to_pylist(), strict=True):
        day = row["dt"] and f"{row['dt'].year}-{row['dt'].month}-{row['dt'].day}"
        expected = {**row, "dt": day, "ts": round(row["ts"].replace(tzinfo=datetime.timezone.utc).timestamp() * 1000)}
        assert found == tuple(expected.values())


def same(one: pa.Table, two: pa.Table) -> bool:
    """Cell by cell, -0.0 being another number than 0.0."""
    for name in two.column_names:
        a, b = one[name].combine_chunks(), two[name].combine_chunks()
        if pa.types.is_floating(a.type):
            width = pa.int32() if a.type == pa.float32() else pa.int64()
            a, b = a.view(width), b.view(width)
        if not a.equals(b):
            return False
    return True


@pytest.mark.parametrize("value", [math.nan, math.inf, -(2**63), "a\0b"])
def test_what_has_no_literal_is_refused_by_name(types: RestTransport, value: Any) -> None:
    column = {float: "d", int: "b", str: "s"}[type(value)]
    bad = {"id": "x", "ts": 5, **dict.fromkeys(SCHEMA.names[2:]), column: value}
    good = {**bad, column: None}
    table = pa.Table.from_pylist([good, bad], SCHEMA)
    with pytest.raises(BadRow, match=f"t row 1 column {column}: ") as error:
        list(statements("t", table))
    assert error.value.row == 1


def test_names_that_need_backquotes_have_them(server: ApiServer, rest_settings: Rest) -> None:
    server.run("x", "CREATE DATABASE `order`")
    server.run(
        "order",
        "CREATE TABLE `order`(`select` string, `a b` bigint, `naïve` timestamp, INDEX(KEY=`select`, TS=`naïve`))",
        "DEPLOY d SELECT `select`, count(`a b`) OVER w AS `how many` FROM `order` WINDOW w AS "
        "(PARTITION BY `select` ORDER BY `naïve` ROWS BETWEEN 9 PRECEDING AND CURRENT ROW)",
    )
    with RestTransport(rest_settings, "order", "d") as odd:
        requests, answers = odd.schemas()
        assert (requests.names, answers.names) == (["select", "a b", "naïve"], ["select", "how many"])
        table = pa.table([["x", "x", "y"], [1, 2, 3], [1000, 2000, 3000]], schema=requests)
        odd.insert("order", table)
        answered = odd.request(table.slice(1)).to_pylist()
    assert answered == [{"select": "x", "how many": 3}, {"select": "y", "how many": 2}]


@pytest.mark.parametrize(("database", "deployment"), [("a b", "d"), ("d", "näme"), ("a/b", "d"), ("d", "a.b")])
def test_a_name_that_no_url_of_the_server_has_is_refused(rest_settings: Rest, database: str, deployment: str) -> None:
    with pytest.raises(ConfigError, match=r"finds no (database|deployment)"):
        RestTransport(rest_settings, database, deployment)


def test_literals_are_those_of_the_recorded_statements() -> None:
    values = ["it's \\ \n", 9007199254740993, -5, 0.1, True, None, DAY]
    assert [literal(value) for value in values] == [
        "'it\\'s \\\\ \\n'",
        "9007199254740993",
        "-5",
        "0.1",
        "true",
        "NULL",
        "'2024-01-02'",
    ]


def test_a_statement_holds_many_rows_and_not_too_many() -> None:
    table = pa.table({"a": pa.array(range(2 * INSERT_ROWS + 1))})
    lengths = [statement.count("(") - 1 for statement in statements("t", table)]
    assert lengths == [INSERT_ROWS, INSERT_ROWS, 1]


def test_answers_equal_the_engine_s_cell_by_cell(shop: Shop, rest_settings: Rest) -> None:
    store = loaded_store()
    actions = actions_of(shop.actions[:700]).rows
    with RestTransport(rest_settings, "JD_db", "demo") as transport:
        assert transport.schemas() == (store.request_schema(), store.schema())
        dimensions = dimensions_of(shop)
        store.restore(dimensions)
        for table, columns in dimensions.rows.items():
            transport.insert(table, columns)
        transport.insert("bo_action", actions["bo_action"].slice(0, 300))
        store.engine.insert("JD_db.bo_action", actions["bo_action"].slice(0, 300))
        transport.insert("flattenRequest", actions["flattenRequest"].slice(0, 300))
        store.engine.insert("JD_db.flattenRequest", actions["flattenRequest"].slice(0, 300))
        for table in ("bo_action", "flattenRequest", "bo_comment"):
            assert transport.execute(f"SELECT count(*) FROM {table}") == [(store.sizes()[f"JD_db.{table}"][0],)]
        for count in (1, 99, 400):  # 400: four calls, three at a time
            asked = actions["flattenRequest"].slice(300, count)
            assert transport.request(asked).equals(store.request(asked))
        assert transport.request(actions["flattenRequest"].slice(0, 0)).equals(store.schema().empty_table())


def test_what_is_not_there_is_named(server: ApiServer, types: RestTransport) -> None:
    for database, deployment in (("types", "nosuch"), ("nosuch", "t")):
        with (
            RestTransport(Rest(url=server.url), database, deployment) as transport,
            pytest.raises(ArtifactMismatch, match=f"{deployment} does not exist in"),
        ):
            transport.schemas()
    with pytest.raises(ArtifactMismatch, match="nosuch"):
        types.execute("INSERT INTO nosuch VALUES (1)")
    with pytest.raises(StoreUnavailable, match="nosuch"):  # in flight it may come back
        types.insert("nosuch", rows(("k", 1, *[None] * 8)))


@pytest.mark.parametrize("url", ["localhost:9080", "ftp://x", "http://"])
def test_a_url_must_be_one(url: str) -> None:
    with pytest.raises(ConfigError, match=r"store\.rest\.url"):
        RestTransport(Rest(url=url), "d", "demo")


class Faulty:
    """Answers calls from a script of faults: an exception to raise, a status, or a text to answer with."""

    def __init__(self, *faults: Any) -> None:
        self.faults, self.calls, self.slept = list(faults), 0, list[float]()

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        fault = self.faults.pop(0) if len(self.faults) > 1 else self.faults[0]
        if isinstance(fault, type):
            raise fault("injected", request=request)
        if isinstance(fault, int):
            return httpx.Response(fault, text="injected")
        return httpx.Response(200, content=fault if isinstance(fault, str) else json.dumps(fault))

    def transport(self, beat: Callable[[], None] = lambda: None) -> RestTransport:
        return RestTransport(
            Rest(), "types", "t", beat, transport=httpx.MockTransport(self.handle), sleep=self.slept.append
        )


OK = {"code": 0, "msg": "ok", "data": {"schema": ["Int64"], "data": [[7]]}}


@pytest.mark.parametrize("fault", [httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError, 503])
def test_a_lost_call_is_repeated_a_few_times(fault: Any) -> None:
    faulty = Faulty(fault, fault, OK)
    with faulty.transport() as transport:
        assert transport.execute("SELECT count(*) FROM t") == [(7,)]
    assert faulty.calls == ATTEMPTS_MAX == 3
    assert len(faulty.slept) == 2
    faulty = Faulty(fault)
    with faulty.transport() as transport, pytest.raises(StoreUnavailable, match="POST http://localhost:9080/dbs/types"):
        transport.execute("SELECT count(*) FROM t")
    assert faulty.calls == ATTEMPTS_MAX


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.ReadTimeout, StoreUnavailable),
        ("<html>no such page</html>", StoreUnavailable),
        ("[]", StoreUnavailable),
        ({"code": 1500, "msg": "CallProcedure failed--[E112]Not connected to HOST:PORT yet"}, StoreUnavailable),
        ({"code": 2001, "msg": "put failed--ReturnCode[100]--table does not exist--tid 39"}, StoreUnavailable),
        ({"code": -1, "msg": "ReturnCode[158]--store procedure[fd] not found in db[f1]"}, StoreUnavailable),
        ({"code": 2000, "msg": "fail to get tablet, table f1.e"}, StoreUnavailable),
        ({"code": 2000, "msg": "insert values 1 failed, failed rows peek: 0"}, StoreUnavailable),
        ({"code": -1, "msg": "t does not exist in types"}, StoreUnavailable),
        ({"code": 2000, "msg": "Fail to get insert info--p2-nosuch not exist"}, StoreUnavailable),
        ({"code": 2000, "msg": "Fail to get insert info--can't find column zz in table a"}, StoreUnavailable),
        ({"code": 2000, "msg": "Fail to get insert info--fail to parse row[0]: (l21,1000,1)"}, BadRow),
    ],
)
def test_an_answer_that_says_why_is_not_asked_for_again(answer: Any, error: type[Exception]) -> None:
    faulty = Faulty(answer)
    with faulty.transport() as transport, pytest.raises(error):
        transport.insert("t", rows(("k", 1, *[None] * 8)))
    assert faulty.calls == 1


@pytest.mark.parametrize("row", [["x"], [5], [{"id": "x"}]])
def test_an_answer_that_does_not_fit_its_own_schema_is_refused(row: Any) -> None:
    schema = [{"name": "id", "type": "string"}, {"name": "n", "type": "int64"}]
    faulty = Faulty({"code": 0, "msg": "ok", "data": {"schema": schema, "data": [row]}})
    with faulty.transport() as transport, pytest.raises(ArtifactMismatch, match="does not fit its own schema"):
        transport.request(rows(("k", 1, *[None] * 8)))


def test_one_failed_call_of_several_fails_them_all() -> None:
    faulty = Faulty({"code": 1500, "msg": "CallSQLBatchRequestProcedure failed--[E112]Not connected"})
    many = pa.concat_tables([rows(("k", 1, *[None] * 8))] * 1000)
    with faulty.transport() as transport, pytest.raises(StoreUnavailable, match="E112"):
        transport.request(many)


def test_the_health_beats_while_an_answer_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "SLICE_S", 0.01)
    beaten = threading.Event()

    def handle(_: httpx.Request) -> httpx.Response:
        assert beaten.wait(60), "the call would be awaited without a beat"
        return httpx.Response(200, json=OK)

    transport = RestTransport(Rest(), "d", "demo", beaten.set, transport=httpx.MockTransport(handle))
    with transport:
        assert transport.execute("SELECT count(*) FROM t") == [(7,)]
    assert beaten.is_set()


def test_connections_are_kept(server: ApiServer, types: RestTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    connect = httpcore.SyncBackend.connect_tcp

    def counted(*arguments: Any, **options: Any) -> Any:
        opened.append(arguments)
        return connect(*arguments, **options)

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", counted)
    for _ in range(20):
        types.execute("SHOW TABLES")
    assert len(opened) <= 3


def test_statements_of_a_session_are_none_over_http(types: RestTransport) -> None:
    assert types.execute("USE nosuch") == types.execute("SET @@execute_mode='online'") == []
    assert ("t",) in types.execute("SHOW TABLES")


def test_the_time_of_a_statement_can_be_longer_than_a_call_s(tmp_path: Path) -> None:
    seen: list[Any] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"]["read"])
        return httpx.Response(200, json=OK)

    with RestTransport(Rest(), "d", "demo", transport=httpx.MockTransport(handle)) as transport:
        transport.execute("SELECT count(*) FROM t")
        transport.execute("DEPLOY …", timeout_s=600.0)
    assert seen == [20.0, 600.0]
    assert np.isfinite(seen).all()


@pytest.mark.parametrize("status", [200, 404, 401, 403, 500, 503, None])
def test_a_password_in_the_url_is_in_no_message_and_no_log(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], status: int | None
) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == httpx.BasicAuth("reader", "hunter2/")._auth_header
        if status is None:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(status, text="<html>who are you?</html>")

    caplog.set_level("DEBUG")
    settings = Rest(url="http://reader:hunter2%2F@store:9080/")
    with (
        RestTransport(
            settings, "JD_db", "demo", transport=httpx.MockTransport(handle), sleep=lambda _: None
        ) as transport,
        pytest.raises((StoreUnavailable, ConfigError), match="http://store:9080/dbs/JD_db") as error,
    ):
        transport.execute("SELECT 1")
    told = f"{error.value} {error.value.__cause__} {caplog.text} {capsys.readouterr()}"
    assert status is None or "http://store:9080/dbs/JD_db" in caplog.text, "httpx logs its requests"
    assert not any(part in told for part in ("reader", "hunter2"))
