"""What an engine says of itself, deployments of several databases, and INSERT OR IGNORE."""

from __future__ import annotations

import pytest

from streaming.engine import Engine, UnsupportedSQL
from streaming.engine.types import Type

TABLE = "(id string, ts timestamp, v int not null, f float, index(key=id, ts=ts, ttl=(10m, 5), ttl_type=absandlat))"
SUM = (
    "SELECT id, sum(v) OVER w AS s FROM t\n"
    "WINDOW w AS (PARTITION BY id ORDER BY ts ROWS BETWEEN 9 PRECEDING AND CURRENT ROW)"
)


@pytest.fixture
def engine() -> Engine:
    engine = Engine()
    engine.execute(f"CREATE DATABASE b; CREATE DATABASE a; USE a; CREATE TABLE t{TABLE}; CREATE TABLE u(x string);")
    return engine


def test_tables_are_described(engine: Engine) -> None:
    engine.execute(f"DEPLOY d {SUM};")
    assert engine.databases() == ["a", "b"]
    assert engine.tables("b") == []
    t, u = engine.tables("a")
    assert [(c.name, c.type, c.nullable) for c in t.columns] == [
        ("id", Type.STRING, True),
        ("ts", Type.TIMESTAMP, True),
        ("v", Type.INT, False),
        ("f", Type.FLOAT, True),
    ]
    assert [(i.key, i.ts, i.ttl_type, i.ttl_ms, i.ttl_rows) for i in t.indexes] == [
        (("id",), "ts", "absandlat", 600_000, 9)  # the deployment needs more rows than were declared
    ]
    assert [(i.key, i.ts, i.ttl_type) for i in u.indexes] == [(("x",), None, "absolute")]


def test_a_deployment_is_described_in_its_own_words(engine: Engine) -> None:
    engine.execute(f"SET @@x=1; DEPLOY d\n{SUM} -- ;\n; USE b;")
    (info,) = engine.deployments("a")
    assert (info.database, info.name, info.sql) == ("a", "d", f"DEPLOY d\n{SUM}")
    assert [column.name for column in info.request] == ["id", "ts", "v", "f"]
    assert info.answer == (("id", Type.STRING), ("s", Type.INT))
    assert info.tables == (("a", "t"),)


def test_databases_have_deployments_of_the_same_name(engine: Engine) -> None:
    engine.execute(f"DEPLOY d {SUM}; USE b; CREATE TABLE t{TABLE}; DEPLOY d SELECT id, v + 1 AS more FROM t;")
    row = [{"id": "k", "ts": 1, "v": 7, "f": None}]
    assert engine.request("a.d", row).column_names == ["id", "s"]
    assert engine.request("b.d", row).column_names == ["id", "more"]
    assert engine.request("d", row).column_names == ["id", "more"], "the one of the database in use"
    engine.execute("DROP DEPLOYMENT d;")
    assert engine.request("d", row).column_names == ["id", "s"], "the only one"
    with pytest.raises(KeyError, match=r"b\.d"):
        engine.request("b.d", row)


def test_insert_or_ignore_leaves_out_what_is_there_as_a_whole(engine: Engine) -> None:
    insert = "INSERT OR IGNORE INTO t VALUES "
    engine.execute(insert + "('k', 1, 2, 0.1), ('k', 1, 2, 0.1), (NULL, 1, 2, 0.1), ('', 1, 2, NULL);")
    assert engine.stats()["a.t"].rows == 3
    mark = engine.mark()
    engine.execute(insert + "('k', 1, 2, 0.1), ('', 1, 2, NULL), ('k', 1, 3, 0.1), (NULL, 1, 2, 0.1);")
    assert engine.stats()["a.t"].rows == 4
    engine.rollback(mark)
    engine.execute(insert + "('k', 1, 3, 0.1);")
    assert engine.stats()["a.t"].rows == 4, "a row that was rolled back is not there"
    engine.execute("INSERT INTO t VALUES ('k', 1, 3, 0.1);")
    assert engine.stats()["a.t"].rows == 5, "a plain INSERT takes twins"


def test_a_bad_row_is_refused_with_or_ignore_too(engine: Engine) -> None:
    with pytest.raises(ValueError, match="v"):
        engine.execute("INSERT OR IGNORE INTO t VALUES ('k', 1, NULL, 0.1);")
    with pytest.raises(UnsupportedSQL):
        engine.execute("INSERT OR REPLACE INTO t VALUES ('k', 1, 1, 0.1);")
    assert engine.stats()["a.t"].rows == 0
