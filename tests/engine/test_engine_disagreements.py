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
