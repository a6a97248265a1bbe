"""The embedded engine on the tutorial's query: `python -m benchmarks.engine [--data DIR] [--scale N …] [--cold]`.

Prints microseconds per request at batch sizes 1, 100 and 1,000, inserted rows per second, seconds to deploy, and time
and memory of the offline query at several sizes, each beside OpenMLDB 0.9.2's own engine where its figure is known
(measured in process, one thread, on the real sample; the peer does not install from a package index, so it is quoted).
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streaming.engine import Engine

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "bo_product": "bo_product",
    "bo_user": "bo_user",
    "bo_action": "bo_action",
    "bo_comment": "bo_comment",
    "flattenRequest": "flattenRequest_clean",
}
# OpenMLDB 0.9.2, 2 cores: microseconds per request p50, inserted rows per second, seconds to compile the query
PEER = {"request_us": 28.5, "insert_rows_s": 0.57e6, "deploy_s": 0.08}


def sql(name: str) -> str:
    """A script of sql/."""
    return (ROOT / "sql" / f"{name}.sql").read_text(encoding="utf-8")


def best(function: Callable[[], object], rounds: int) -> float:
    """Median seconds of a call."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def scaled(table: pa.Table, times: int) -> pa.Table:
    """The table `times` over, each copy with keys of its own."""
    copies = [table]
    for n in range(1, times):
        copy = table
        for name in ("reqId", "pair_id", "user_id", "sku_id"):
            if name in table.column_names:
                place = table.column_names.index(name)
                copy = copy.set_column(place, name, pc.binary_join_element_wise(copy[name], f"#{n}", ""))
        copies.append(copy)
    return pa.concat_tables(copies)


def start(cold: bool) -> float:
    """Seconds of a new process from import to the answer of its first request; `cold`: with no kernel compiled."""
    script = (
        "from streaming.engine import Engine; import pathlib, sys; engine = Engine();"
        "[engine.execute(pathlib.Path(p).read_text()) for p in sys.argv[1:]];"
        "engine.request('demo', [{'eventTime': 1}])"
    )
    paths = [str(ROOT / "sql" / f"{name}.sql") for name in ("create_tables", "deploy")]
    with tempfile.TemporaryDirectory() as cache:
        env = {**os.environ, **({"XDG_CACHE_HOME": cache} if cold else {})}
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", script, *paths], check=True, cwd=ROOT, env=env)
        return time.perf_counter() - begin


def online(data: dict[str, pa.Table]) -> None:
    """Deploys, loads, asks."""
    engine = Engine()
    engine.execute(sql("create_tables"))
    start = time.perf_counter()
    engine.execute(sql("deploy"))
    print(f"deploy                 {time.perf_counter() - start:8.3f} s        OpenMLDB {PEER['deploy_s']:.3f} s")
    rows, seconds = 0, 0.0
    for table, content in data.items():
        start = time.perf_counter()
        engine.insert(f"JD_db.{table}", content)
        seconds += time.perf_counter() - start
        rows += content.num_rows
    print(f"insert, columnar       {rows / seconds / 1e6:8.2f} M rows/s  OpenMLDB {PEER['insert_rows_s'] / 1e6:.2f}")
    requests = data["flattenRequest"]
    newest = requests.take(pc.sort_indices(requests["eventTime"])).slice(requests.num_rows - 1_000)
    for size in (1, 100, 1_000):
        batch = newest.slice(0, size)
        asked = batch.to_pylist() if size == 1 else batch
        engine.request("demo", asked)
        seconds = best(lambda asked=asked: engine.request("demo", asked), max(20, 400 // size))  # type: ignore[misc]
        each = seconds / size * 1e6
        ratio = PEER["request_us"] / each
        print(
            f"request, batch {size:5d}   {each:8.1f} us        OpenMLDB {PEER['request_us']:.1f}, "
            f"{ratio:.1f} times its requests/s"
        )


def offline(data: dict[str, pa.Table], scales: list[int]) -> None:
    """The offline query at growing sizes."""
    for scale in scales:
        engine = Engine()
        engine.execute(sql("create_tables"))
        for table, content in data.items():
            engine.insert(f"JD_db.{table}", scaled(content, scale))
        start = time.perf_counter()
        answer = engine.query(sql("features"))
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        used = sum(stats.bytes for stats in engine.stats().values()) / 2**20
        print(
            f"offline query x{scale:<4d}   {seconds:8.2f} s        {answer.num_rows:,} requests, "
            f"{seconds / answer.num_rows * 1e6:.1f} us each; tables {used:.0f} MiB, peak of the process {peak:.0f} MiB"
        )


def main() -> None:
    """Runs everything on the sample folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "jd", help="folder in the tutorial's layout"
    )
    parser.add_argument("--scale", type=int, nargs="*", default=[1, 3, 10], help="sizes of the offline query")
    parser.add_argument("--cold", action="store_true", help="also compile all kernels anew")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        parser.error(f"{arguments.data} is not a folder: give one with --data")
    data = {table: pq.read_table(arguments.data / folder) for table, folder in FOLDERS.items()}
    print(f"start of a process     {start(cold=False):8.2f} s        kernels from the cache")
    if arguments.cold:
        print(f"start of a process     {start(cold=True):8.2f} s        kernels compiled")
    online(data)
    offline(data, arguments.scale)


if __name__ == "__main__":
    main()
