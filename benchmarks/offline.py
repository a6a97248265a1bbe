"""The offline query at growing sizes: `python -m benchmarks.offline [--data DIR]`, `make bench-offline`.

What `jd-intent-batch extract` costs beyond the sample: the query of `sql/jd` over 0.1, 0.3 and 1 M requests with ten
times as many actions, each size in a process of its own. Time and memory must be linear: beside each figure stands what
one request takes of it. Keys are made (as many requests per user, pair and product as in the sample), all other columns
are the sample's; times are spread over its ten weeks.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from benchmarks.memory import numbered, resident_mib
from benchmarks.sample import FOLDER, ROOT, jd, read_sample
from streaming.app.scripts import query_text, tables_script
from streaming.engine import Engine
from streaming.engine.native.warm import warm_up

ACTIONS_PER_REQUEST = 10
# how many requests of the sample there are per user, per product and per pair
PER_USER, PER_PRODUCT, PER_PAIR = 1.53, 3.79, 1.39
SPAN_MS = 70 * 86_400_000

Int64 = npt.NDArray[np.int64]


def grown(data: dict[str, pa.Table], requests: int, seed: int = 1) -> dict[str, pa.Table]:
    """The sample's tables, grown to so many requests: rows are drawn from it, their keys and times are new."""
    rng = np.random.default_rng(seed)
    users, products, pairs = (max(1, int(requests / each)) for each in (PER_USER, PER_PRODUCT, PER_PAIR))
    user_of, product_of = rng.integers(0, users, pairs), rng.integers(0, products, pairs)
    first = int(pc.min(data["flattenRequest"]["eventTime"]).cast(pa.timestamp("ms")).cast(pa.int64()).as_py())

    def drawn(table: str, count: int, **columns: pa.Array) -> pa.Table:
        rows = data[table].take(pa.array(rng.integers(0, data[table].num_rows, count)))
        for name, column in columns.items():
            rows = rows.set_column(rows.column_names.index(name), name, column.cast(rows[name].type))
        return rows

    def times(count: int) -> pa.Array:
        return pa.array(first + rng.integers(0, SPAN_MS // 1000, count) * 1000).cast(pa.timestamp("ms"))

    asked, acted = rng.integers(0, pairs, requests), rng.integers(0, pairs, requests * ACTIONS_PER_REQUEST)
    weeks = 10
    return {
        "bo_product": drawn("bo_product", products, sku_id=numbered("sku", np.arange(products))),
        "bo_user": drawn("bo_user", users, user_id=numbered("user", np.arange(users))),
        "bo_action": drawn("bo_action", len(acted), pair_id=numbered("pair", acted), ingestionTime=times(len(acted))),
        "bo_comment": drawn(
            "bo_comment",
            products * weeks,
            sku_id=numbered("sku", np.tile(np.arange(products), weeks)),
            ingestionTime=times(products * weeks),
        ),
        "flattenRequest": drawn(
            "flattenRequest",
            requests,
            reqId=numbered("request", np.arange(requests)),
            user_id=numbered("user", user_of[asked]),
            sku_id=numbered("sku", product_of[asked]),
            pair_id=numbered("pair", asked),
            eventTime=times(requests),
        ),
    }


def measure(data: dict[str, pa.Table], requests: int) -> dict[str, float]:
    """One size, in this process: seconds and MiB."""
    engine = Engine()
    engine.execute(tables_script(jd()))
    warm_up()
    tables = grown(data, requests)
    rows = sum(table.num_rows for table in tables.values())
    begin = time.perf_counter()
    for name in list(tables):
        engine.insert(f"JD_db.{name}", tables.pop(name))
    inserted = time.perf_counter() - begin
    state = (sum(table.bytes for table in engine.stats().values()) + engine.strings().bytes) / 2**20
    before, begin, used = resident_mib(), time.perf_counter(), time.process_time()
    answer = engine.query(query_text(jd()))
    wall, cpu = time.perf_counter() - begin, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if answer.num_rows != requests:
        raise RuntimeError(f"{answer.num_rows} answers for {requests} requests")
    return {
        "rows": rows,
        "insert_s": inserted,
        "state_mib": state,
        "before_mib": before,
        "peak_mib": peak,
        "answer_mib": answer.nbytes / 2**20,
        "wall_s": wall,
        "cpu_s": cpu,
    }


def main() -> None:
    """Each size in a process of its own, then one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder in the tutorial's layout")
    parser.add_argument("--requests", type=int, nargs="*", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # the size that a process of ours measures
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        parser.error(f"{arguments.data} is not a folder: give one with --data")
    if arguments.one:
        data = read_sample(arguments.data)
        print(json.dumps(measure(data, arguments.one)))
        return
    grid = Table(
        "requests",
        "actions",
        "rows in all",
        "insert",
        "query",
        "each, processor",
        "state",
        "answer",
        "peak",
        "peak per request",
    )
    for requests in arguments.requests:
        argv = [sys.executable, "-m", "benchmarks.offline", "--data", str(arguments.data), "--one", str(requests)]
        done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        got = json.loads(done.stdout)
        grid.add_row(
            f"{requests:,}",
            f"{requests * ACTIONS_PER_REQUEST:,}",
            f"{got['rows']:,}",
            f"{got['insert_s']:.1f} s",
            f"{got['wall_s']:.1f} s",
            f"{got['cpu_s'] / requests * 1e6:.1f} us",
            f"{got['state_mib']:,.0f} MiB",
            f"{got['answer_mib']:,.0f} MiB",
            f"{got['peak_mib']:,.0f} MiB",
            f"{got['peak_mib'] * 1024 / requests:.1f} KiB",
        )
    Console(width=160).print(grid)


if __name__ == "__main__":
    main()
