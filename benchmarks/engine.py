"""The embedded engine on the tutorial's query: `python -m benchmarks.engine [--data DIR] [--scale N …] [--quick]`.

Prints one table: requests at several batch sizes, what the scorer's `answer` costs per micro-batch, inserts, the start
of a process with and without compiled kernels, the offline query at growing sizes, and the memory of ten million rows;
each beside our goal and OpenMLDB's own engine. After `make spark-environment` that one runs in the same run
(`benchmarks.openmldb`); else its time per request is quoted, as its other figures are: measured elsewhere, in process,
one thread, two cores, the real sample. Ours has one thread, too. Beside the wall clock stands the processor time of the
same calls: on a machine that others use, too, it is the one to compare.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from benchmarks.memory import numbered
from benchmarks.openmldb import measure
from benchmarks.records import Written
from benchmarks.sample import FOLDER, ROOT, jd, read_sample
from deploy.environments import Missing
from streaming.app.decoding import StreamDecoder
from streaming.app.scripts import deploy_script, query_text, tables_script
from streaming.engine import Engine
from streaming.engine.native.warm import warm_up
from streaming.events.batch import EventBatch
from streaming.store.embedded import EmbeddedStore

OPENMLDB_US = 28.5  # microseconds per request, p50: measured 27 to 30
OPENMLDB_FULL_US = 114.0  # with every window full


@dataclass
class Report:
    """The table, row by row; each is also printed at once.

    Args:
        quiet: whether no row is added or printed.
        grid: the table.
    """

    quiet: bool = False
    grid: Table = field(default_factory=lambda: Table("figure", "wall", "processor", "goal", "OpenMLDB"))

    def add(self, figure: str, wall: str, cpu: str = "", goal: str = "", peer: str = "") -> None:
        """Adds a row."""
        if self.quiet:
            return
        self.grid.add_row(figure, wall, cpu, goal, peer)
        print(f"{figure}: {wall} {cpu}", file=sys.stderr, flush=True)


def timed(function: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds of a call: by the wall clock, and of the processor."""
    walls, cpus = [], []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.thread_time()
        function()
        cpus.append(time.thread_time() - cpu)
        walls.append(time.perf_counter() - wall)
    return statistics.median(walls), statistics.median(cpus)


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


def start(cold: bool) -> tuple[float, float]:
    """Seconds of a new process from import to the answer of its first request; `cold`: with no kernel compiled."""
    script = (
        "from streaming.engine import Engine; import pathlib, sys; engine = Engine();"
        "engine.execute(pathlib.Path(sys.argv[1]).read_text());"
        "engine.request('demo', [{'eventTime': 1}])"
    )
    with tempfile.TemporaryDirectory() as cache, tempfile.NamedTemporaryFile("w", suffix=".sql") as scripts:
        scripts.write(tables_script(jd()) + deploy_script(jd()))
        scripts.flush()
        env = {**os.environ, **({"XDG_CACHE_HOME": cache} if cold else {})}
        begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", script, scripts.name], check=True, cwd=ROOT, env=env)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return time.perf_counter() - begin, cpu


def filled(data: dict[str, pa.Table], report: Report | None) -> Engine:
    """The tutorial's tables, deployed and filled."""
    report = report or Report(quiet=True)
    engine = Engine()
    engine.execute(tables_script(jd()))
    wall, cpu = timed(lambda: engine.execute(deploy_script(jd())), 1)
    report.add("compile the query", f"{wall * 1000:.0f} ms", f"{cpu * 1000:.0f} ms", "", "64 to 95 ms")
    rows, start, used = 0, time.perf_counter(), time.thread_time()
    for table, content in data.items():
        engine.insert(f"JD_db.{table}", content)
        rows += content.num_rows
    wall, cpu = time.perf_counter() - start, time.thread_time() - used
    report.add(
        "insert the sample, M rows/s", f"{rows / wall / 1e6:.2f}", f"{rows / cpu / 1e6:.2f}", ">= 1", "0.53 to 0.62"
    )
    return engine


def full(data: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Tables in which every window of the newest requests is full, with the sample's values.

    Ten users, each with 200 requests of the last nine days for a product of their own, which has 150 actions of the
    last ten hours and 120 comments of the last two months.
    """
    keys, newest = 10, pc.max(data["flattenRequest"]["eventTime"])

    def made(table: str, each: int, step_s: int, time_column: str, **names: str) -> pa.Table:
        numbers = np.arange(keys * each)
        rows = data[table].take(pa.array(numbers % data[table].num_rows))
        values = {name: numbered(text, numbers if name == "reqId" else numbers % keys) for name, text in names.items()}
        ages = pa.array(-(numbers // keys) * step_s, pa.int64()).cast(pa.duration("s"))
        values[time_column] = pc.add(newest, ages).cast(rows[time_column].type)
        for name, column in values.items():
            rows = rows.set_column(rows.column_names.index(name), name, column)
        return rows

    hours = 3_600
    return {
        "bo_product": made("bo_product", 1, 0, "ingestionTime", sku_id="sku"),
        "bo_user": made("bo_user", 1, 0, "ingestionTime", user_id="user"),
        "bo_action": made("bo_action", 150, 4 * 60, "ingestionTime", pair_id="pair"),
        "bo_comment": made("bo_comment", 120, 12 * hours, "ingestionTime", sku_id="sku"),
        "flattenRequest": made(
            "flattenRequest", 200, hours, "eventTime", reqId="request", user_id="user", sku_id="sku", pair_id="pair"
        ),
    }


def openmldb_us(data: dict[str, pa.Table], report: Report, what: str, quoted: float, requests: int) -> float:
    """Microseconds per request of OpenMLDB's engine, p50 over the newest `requests`: of this run if it is here."""
    try:
        micros = (measure(data, requests).request_p50_s or 0.0) * 1e6
    except Missing as missing:
        report.add(f"OpenMLDB's own engine, {what}", f"not run: {missing}", "", "", f"{quoted} us")
        return quoted
    report.add(f"OpenMLDB's own engine, {what}, p50", f"{micros:.1f} us", "", "", f"{quoted} us")
    return micros


def online(engine: Engine, newest: pa.Table, report: Report, openmldb: float, what: str = "") -> None:
    """A thousand requests, one by one and in batches.

    Args:
        openmldb: microseconds of a request of OpenMLDB's engine.
    """
    for name, asked, least in (
        ("one request, a dict", newest.slice(newest.num_rows - 1).to_pylist(), 0.5),
        ("100 requests, Arrow", newest.slice(newest.num_rows - 100), None),
        ("1,000 requests, Arrow", newest, 5.0),
    ):
        size = len(asked)
        wall, cpu = timed(lambda asked=asked: engine.request("demo", asked), max(30, 1_000 // size))  # type: ignore[misc]
        each, of_cpu = (f"{seconds / size * 1e6:.1f} us each" for seconds in (wall, cpu))
        ratio = f"{openmldb / (cpu / size * 1e6):.2f} times its requests/s"
        report.add(name + what, each, of_cpu, "" if least is None else f">= {least} times", ratio)


def replayed(data: dict[str, pa.Table], report: Report) -> None:
    """What the scorer does per micro-batch: insert the events, answer each as of its moment. Undone after each call."""
    store = EmbeddedStore(jd())
    store.load()
    for table, content in data.items():
        store.engine.insert(f"JD_db.{table}", content)
    rows = data["bo_action"].slice(60_000, 1_000).to_pylist()
    actions = []
    for row in rows:
        user, sku = row["pair_id"].split("_", 1)
        event = {"user_id": user, "sku_id": sku, "time": row["time"], "type": row["type"]}
        event |= {name: row[name] or "" for name in ("model_id", "cate", "br")}
        actions.append(Written(user.encode(), json.dumps(event).encode()))
    decoder = StreamDecoder(jd(), jd().scored[0], 65_536, 300)
    for size in (1, 10, 100, 1_000):
        events, _ = decoder.decode(actions[:size])

        def answer(events: EventBatch = events) -> None:
            mark = store.mark()
            store.answer(events)
            store.rollback(mark)

        answer()
        wall, cpu = timed(answer, max(20, 1_000 // size))
        report.add(f"micro-batch of {size:,}", f"{wall * 1e3:.2f} ms", f"{cpu * 1e3:.2f} ms")


def offline(data: dict[str, pa.Table], scales: list[int], report: Report) -> None:
    """The offline query at growing sizes."""
    for scale in scales:
        engine = Engine()
        engine.execute(tables_script(jd()))
        for table, content in data.items():
            engine.insert(f"JD_db.{table}", scaled(content, scale))
        wall, cpu = timed(lambda engine=engine: engine.query(query_text(jd())), 1)  # type: ignore[misc]
        requests = engine.stats()["JD_db.flattenRequest"].rows
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        report.add(
            f"offline query x{scale}: {requests:,} requests",
            f"{wall:.2f} s, {wall / requests * 1e6:.1f} us each",
            f"{cpu:.2f} s, {cpu / requests * 1e6:.1f} us each",
            f"linear; peak of the process {peak:,.0f} MiB",
        )


def million(report: Report) -> None:
    """Bytes of bo_action with ten million rows of a million pairs, its index and texts."""
    engine = Engine()
    engine.execute(tables_script(jd()))
    engine.execute(deploy_script(jd()))
    step, used, start = 1_000_000, 0.0, time.perf_counter()
    for first in range(0, 10_000_000, step):
        numbers = np.arange(first, first + step)
        kinds = pa.array([str(n) for n in range(1, 7)]).take(pa.array(numbers % 6))
        rows = pa.table(
            {
                "ingestionTime": numbers + 1_454_000_000_000,
                "pair_id": numbered("pair", numbers % 1_000_000),
                "time": numbers,
                "model_id": kinds,
                "type": kinds,
                "cate": kinds,
                "br": kinds,
            }
        )
        begin = time.thread_time()
        engine.insert("JD_db.bo_action", rows)
        used += time.thread_time() - begin
    wall = time.perf_counter() - start
    size = engine.stats()["JD_db.bo_action"].bytes + engine.strings().bytes
    report.add(
        "10 M rows of 1 M keys", f"{size / 2**30:.2f} GiB in {wall:.0f} s", f"{10 / used:.2f} M rows/s", "<= 1.5 GB"
    )


def main() -> None:
    """Runs everything on the sample folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder in the tutorial's layout")
    parser.add_argument("--scale", type=int, nargs="*", default=[1, 3, 10], help="sizes of the offline query")
    parser.add_argument("--quick", action="store_true", help="neither compile all kernels anew nor insert 10 M rows")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        parser.error(f"{arguments.data} is not a folder: give one with --data")
    data = read_sample(arguments.data)
    report = Report()
    warm_up()
    for cold in (False,) if arguments.quick else (False, True):
        wall, cpu = start(cold)
        goal = "< 10 s" if cold else "< 1 s"
        what = "compiling all kernels" if cold else "kernels compiled before"
        report.add(f"start of a process, {what}", f"{wall:.1f} s", f"{cpu:.1f} s", goal)
    engine = filled(data, report)
    newest = data["flattenRequest"].take(pc.sort_indices(data["flattenRequest"]["eventTime"]))
    openmldb = openmldb_us(data, report, "one request", OPENMLDB_US, 1_000)
    online(engine, newest.slice(newest.num_rows - 1_000), report, openmldb)
    hot = full(data)
    openmldb = openmldb_us(hot, report, "full windows", OPENMLDB_FULL_US, 10)
    tables = filled(hot, None)
    online(tables, pa.concat_tables([hot["flattenRequest"].slice(0, 10)] * 100), report, openmldb, ", full windows")
    replayed(data, report)
    offline(data, arguments.scale, report)
    if not arguments.quick:
        million(report)
    Console().print(report.grid)


if __name__ == "__main__":
    main()
