"""What a deployment is known to read and to show, of the tutorial's query and of others."""

from __future__ import annotations

import pyarrow.parquet as pq
from fixtures.jd import jd
from places import CASES

from streaming.app.scripts import deploy_script, tables_script
from streaming.engine import Engine
from streaming.engine.deployment.contract import Read

TABLES = (
    "CREATE TABLE t(id string, k string, j int, ts timestamp, v double); CREATE TABLE u(k string, ts timestamp, w int);"
)


def test_the_tutorials_deployment() -> None:
    engine = Engine()
    engine.execute(tables_script(jd()))
    engine.execute(deploy_script(jd()))
    contract = engine.contract("demo")
    assert contract.main == "flattenRequest"
    assert {(read.table, *read.columns): read.request for read in contract.reads} == {
        ("action", "reqId"): ("reqId",),
        ("bo_action", "pair_id"): ("pair_id",),
        ("bo_comment", "sku_id"): ("sku_id",),
        ("bo_product", "sku_id"): ("sku_id",),
        ("bo_user", "user_id"): ("user_id",),
        ("flattenRequest", "user_id"): ("user_id",),
    }
    assert dict(contract.times) == {
        "bo_action": ("ingestionTime",),
        "bo_comment": ("ingestionTime",),
        "flattenRequest": ("eventTime",),
    }
    assert len(contract.never_null) == 16
    assert {"reqId_1": "reqId", "reqId_17": "reqId"}.items() <= dict(contract.echoes).items()
    answers = pq.read_table(CASES / "online_answers.parquet")  # of OpenMLDB's own engine
    assert [name for name in contract.never_null if answers[name].null_count] == []
    assert [name for name, _ in contract.echoes if answers[name].null_count] == []


def test_keys_that_are_computed_or_come_from_a_join_may_read_any_row() -> None:
    engine = Engine()
    engine.execute(
        TABLES + "DEPLOY d SELECT t.id, a.w, b.w AS w2 FROM t LAST JOIN u AS a ORDER BY a.ts ON t.k = a.k AND a.w > 0"
        " LAST JOIN u AS b ON b.w = t.j + 1;"
    )
    contract = engine.contract("d")
    assert set(contract.reads) == {Read("u", ("k",), ("k",)), Read("u", ("w",), ())}
    assert contract.times == (("u", ("ts",)),)
    assert contract.never_null == ()
    assert contract.echoes == (("id", "id"),)


def test_what_can_be_null_is_not_called_never_null() -> None:
    engine = Engine()
    engine.execute(
        TABLES + "DEPLOY d SELECT count(v) OVER w AS n, count_where(v, v > 1) OVER w AS c, max(v) OVER w AS m,"
        " top1_ratio(k) OVER w AS r, top1_ratio(k) OVER x AS past FROM t"
        " WINDOW w AS (PARTITION BY k ORDER BY ts ROWS BETWEEN 3 PRECEDING AND CURRENT ROW),"
        " x AS (PARTITION BY k ORDER BY ts ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING);"
    )
    assert engine.contract("d").never_null == ("n", "c", "r")
