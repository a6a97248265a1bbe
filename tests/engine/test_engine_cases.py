"""The engine against answers of OpenMLDB 0.9.2: the golden cases, and a fifth of the real sample's requests."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from places import CASES, SHARED

from streaming.engine import BadRow, Engine
from streaming.engine.types import ARROW, from_name

Case = dict[str, Any]


def read_cases(name: str) -> list[Case]:
    return [json.loads(line) for line in (CASES / name).read_text(encoding="utf-8").splitlines()]


def tutorial(spelling: str) -> Engine:
    """An engine with the tutorial's tables and deployment, in its own spelling or in that of OpenMLDB 0.9."""
    engine = Engine()
    engine.execute((CASES / "tutorial_tables.sql").read_text())
    script = (CASES / "tutorial_deploy.sql").read_text()
    if spelling == "0.9":
        script = script.replace("fz_top1_ratio", "top1_ratio").replace("fz_topn_frequency", "topn_frequency")
    engine.execute(script)
    return engine


def as_case(value: object) -> object:
    """A value as the cases spell it: a timestamp as epoch milliseconds."""
    if isinstance(value, datetime.datetime):
        return round(value.replace(tzinfo=datetime.timezone.utc).timestamp() * 1000)
    return value


def equal(got: object, want: object, kind: pa.DataType) -> bool:
    if got is None or want is None:
        return got is want
    if pa.types.is_float32(kind):  # the cases carry nine digits of a float32
        return np.float32(got) == np.float32(want) and math.copysign(1, got) == math.copysign(1, want)  # type: ignore
    return type(got) is type(want) and got == want


def check(answer: pa.Table, expect: Case) -> None:
    assert answer.column_names == list(expect)
    assert answer.num_rows == 1
    row = {name: as_case(value) for name, value in answer.to_pylist()[0].items()}
    wrong = {n: (row[n], expect[n]) for n in expect if not equal(row[n], expect[n], answer.schema.field(n).type)}
    assert not wrong, "column: (ours, OpenMLDB's)"


@pytest.fixture(scope="module", params=["tutorial", "0.9"])
def deployed(request: pytest.FixtureRequest) -> Engine:
    return tutorial(request.param)


@pytest.mark.parametrize("case", read_cases("cases.jsonl"), ids=lambda case: case["name"])
def test_tutorial_case(deployed: Engine, case: Case) -> None:
    empty = deployed.mark()
    try:
        if "expect_error" in case:
            ((table, rows),) = case["tables"].items()
            with pytest.raises(BadRow):
                deployed.insert(table, rows)
            return
        for table, rows in case["tables"].items():
            deployed.insert(table, rows)
        check(deployed.request("demo", [case["request"]]), case["expect"])
    finally:
        deployed.rollback(empty)


@pytest.mark.parametrize("case", read_cases("cases_generic.jsonl"), ids=lambda case: case["name"])
def test_generic_case(case: Case) -> None:
    engine = Engine()
    columns = "id string, k string, ts timestamp, i int, b bigint, f float, d double, s string"
    for table in case["tables"]:
        engine.execute(f"create table {table}({columns}, index(key=k, ts=ts));")
    engine.execute("deploy d " + case["sql"])
    for table, rows in case["tables"].items():
        engine.insert(table, rows)
    answer = engine.request("d", [case["request"]])
    check(answer, case["expect"])
    kinds = [from_name(name) for name in case["out_types"].values()]
    assert answer.schema.types == [ARROW[kind] for kind in kinds if kind is not None]


needs_sample = pytest.mark.skipif(not (SHARED / "jd").is_dir(), reason="the tutorial's sample is not beside the repo")


def sample(table: str) -> pa.Table:
    return pq.read_table(SHARED / "jd" / table).replace_schema_metadata(None)


def milliseconds(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(column.cast(pa.timestamp("ms")).cast(pa.int64()).to_numpy())


@needs_sample
def test_real_sample_online_and_offline() -> None:
    """Every cell of OpenMLDB's online answers, by replay; and the offline query of the same rows answers the same."""
    engine = tutorial("tutorial")
    tables = {name: sample(name) for name in ("bo_action", "bo_comment", "bo_product", "bo_user")}
    requests = sample("flattenRequest_clean")
    times = [milliseconds(tables[name]["ingestionTime"]) for name in ("bo_action", "bo_comment")]
    times.append(milliseconds(requests["eventTime"]))
    kind = np.repeat([0, 1, 2], [len(t) for t in times])
    order = np.argsort(np.concatenate(times) * 3 + kind, kind="stable")
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    actions, comments, asked = np.split(position, np.cumsum([len(t) for t in times])[:-1])
    engine.insert("bo_product", tables["bo_product"])
    engine.insert("bo_user", tables["bo_user"])
    online = engine.replay(
        "demo",
        requests,
        {"bo_action": tables["bo_action"], "bo_comment": tables["bo_comment"], "flattenRequest": requests},
        asked,
        {"bo_action": actions, "bo_comment": comments, "flattenRequest": asked},
    )
    golden = pq.read_table(SHARED / "golden" / "online.parquet")
    place = {name: i for i, name in enumerate(requests["reqId"].to_pylist())}
    answered = online.take([place[name] for name in golden["reqId_1"].to_pylist()])
    assert answered.schema.equals(golden.schema)
    assert answered.equals(golden)

    offline = Engine()
    offline.execute((CASES / "tutorial_tables.sql").read_text())
    for name, rows in {**tables, "flattenRequest": requests}.items():
        offline.insert(name, rows)
    script = (CASES / "tutorial_deploy.sql").read_text()
    assert offline.query(script[script.index("select") :]).equals(online)


@needs_sample
def test_tutorial_scripts_run_as_they_stand(tmp_path: Path) -> None:
    """LOAD DATA INFILE and SELECT … INTO OUTFILE, with the tutorial's paths standing for folders of this machine."""
    data = tmp_path / "data"
    data.mkdir()
    for folder in (SHARED / "jd").iterdir():
        (data / folder.name).symlink_to(folder)
    (data / "action").mkdir()
    schema = pa.schema(
        [
            ("reqId", pa.string()),
            ("eventTime", pa.timestamp("us")),
            ("ingestionTime", pa.timestamp("us")),
            ("actionValue", pa.int32()),
        ]
    )
    pq.write_table(schema.empty_table(), data / "action" / "empty.parquet")
    engine = Engine(paths={"/root/project/data/JD_data": str(data), "/root/project/out": str(tmp_path / "out")})
    for name in ("tables", "load", "outfile", "deploy"):
        engine.execute((CASES / f"tutorial_{name}.sql").read_text())
    written = pyarrow.csv.read_csv(tmp_path / "out" / "1" / "part-00000.csv")  # csv is OpenMLDB's default
    assert (written.num_rows, written.num_columns) == (13_916, 42)
    assert engine.stats()["JD_db.bo_action"].rows == 89_187


def test_explain_names_windows_joins_and_indexes() -> None:
    engine = Engine()
    engine.execute((CASES / "tutorial_tables.sql").read_text())
    text = engine.explain((CASES / "tutorial_deploy.sql").read_text())
    assert "window: one walk over JD_db.bo_action by pair_id\n  range 10h … 0s maxsize 100: bo_action_br_" in text
    assert "rows 10 … 0: flattenRequest_pair_id_window_unique_count_27" in text
    assert "last join: JD_db.bo_product by sku_id, the last inserted" in text
    assert "index: JD_db.flattenRequest (key user_id, ts eventTime)" in text
