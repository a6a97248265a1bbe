"""OpenMLDB's own engine in process, on the tutorial's query and the sample.

    python -m benchmarks.openmldb [--data DIR]

The peer of `benchmarks.engine`: compiled code, one thread, no server, its in-memory catalogue; a request's time is that
of the call from Java. Needs `make spark-environment`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.sample import FOLDER, jd, read_sample
from deploy.openmldb.oracle import Answer, Oracle, Table
from streaming.app.scripts import query_text, tables_script
from streaming.engine.sql import syntax
from streaming.engine.sql.parse import parse

__all__ = ["measure"]

DATABASE = "JD_db"
# what DEPLOY makes of sql/jd/features.sql
INDEXES: dict[str, tuple[tuple[str, ...], str | None]] = {
    "flattenRequest": (("user_id",), "eventTime"),
    "action": (("reqId",), None),
    "bo_product": (("sku_id",), None),
    "bo_user": (("user_id",), None),
    "bo_comment": (("sku_id",), "ingestionTime"),
    "bo_action": (("pair_id",), "ingestionTime"),
}
REQUESTS, ROUNDS = 1_000, 20


def measure(data: dict[str, pa.Table], requests: int = REQUESTS, rounds: int = ROUNDS) -> Answer:
    """Asks OpenMLDB the newest `requests` of the sample over and over, all of its rows being there.

    Raises:
        Missing: OpenMLDB's engine was not made.
    """
    tables = {}
    for statement in parse(tables_script(jd())):
        if isinstance(statement, syntax.CreateTable):
            name = statement.name[-1]
            columns = {column.name: str(column.type) for column in statement.columns}
            tables[name] = Table(columns, [INDEXES[name]], _rows(data[name]) if name in data else [], DATABASE)
    tables = {name: tables[name] for name in sorted(tables, key=lambda name: name != "flattenRequest")}
    newest = data["flattenRequest"].take(pc.sort_indices(data["flattenRequest"]["eventTime"]))
    asked = _rows(newest.slice(newest.num_rows - requests))
    with Oracle() as oracle:
        return oracle.ask(query_text(jd()), tables, asked, database=DATABASE, rounds=rounds)


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    for n, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(n, field.name, table[n].cast(pa.timestamp("ms")).cast(pa.int64()))
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder in the tutorial's layout")
    arguments = parser.parse_args()
    data = read_sample(arguments.data)
    rows = sum(table.num_rows for table in data.values())
    done = measure(data)
    print(f"compile   {done.compile_s:8.3f} s")
    print(f"insert    {rows / done.insert_s / 1e6:8.2f} M rows/s, {rows:,} rows")
    print(f"request   {(done.request_p50_s or 0) * 1e6:8.1f} us p50, {(done.request_p99_s or 0) * 1e6:.1f} us p99")


if __name__ == "__main__":
    main()
