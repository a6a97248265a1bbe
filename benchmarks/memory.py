"""Memory of the embedded engine under endless inserts: `python -m benchmarks.memory [--rows N]`, `make soak-engine`.

Rows of two tables with a time to live pass through one engine: `action`, whose rows live for a minute and always bring
keys and texts that were never seen before, and `visit`, of which the ten newest rows of 100,000 users live, each with a
text of its own. The engine's clock goes on by rows, not by seconds: a million rows of each table live at any moment,
however fast the machine is. Every batch asks for features, too, and goes back to a mark once in a while.

Prints the process's memory as it goes, and fails when the least or the most of the second half lies a tenth above
that of the first: what leaks is never given back.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streaming.engine import Engine
from streaming.engine.native.warm import warm_up

BATCH = 50_000  # rows, half of each table
LIVE = 1_000_000  # rows of `action`
TTL_MS = 60_000
STEP_MS = TTL_MS * (BATCH // 2) // LIVE
START_MS = 1_700_000_000_000
SCRIPT = """
create table action(pair_id string, ts timestamp, type string, sku_id string, index(key=pair_id, ts=ts, ttl=1m));
create table visit(user_id string, ts timestamp, page string, index(key=user_id, ts=ts, ttl=10, ttl_type=latest));
deploy pairs select pair_id, count(sku_id) over w as n, topn_frequency(type, 2) over w as types from action
    window w as (partition by pair_id order by ts rows_range between 1d preceding and current row);
deploy users select user_id, count(page) over w as n, distinct_count(page) over w as pages from visit
    window w as (partition by user_id order by ts rows between 10 preceding and current row);
"""


def numbered(prefix: str, numbers: npt.NDArray[np.int64]) -> pa.Array:
    """Texts: `prefix` and ten digits."""
    digits = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 10, "0")
    return pc.binary_join_element_wise(prefix, digits, "")


def resident_mib() -> float:
    """Memory of this process that is in use now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def clock_ms(first: int) -> int:
    """The engine's time when the row with the number `first` comes."""
    return START_MS + first // BATCH * STEP_MS


def batch(first: int) -> tuple[pa.Table, pa.Table]:
    """The rows with the numbers from `first` on: of `action` and of `visit`, half of a batch each."""
    numbers = np.arange(first // 2, (first + BATCH) // 2, dtype=np.int64)
    moment = np.full(len(numbers), clock_ms(first))
    kinds = pa.array(["view", "click", "cart", "order"]).take(pa.array(numbers % 4))
    actions = {
        "pair_id": numbered("pair", numbers // 2),
        "ts": moment,
        "type": kinds,
        "sku_id": numbered("sku", numbers),
    }
    visits = {"user_id": numbered("user", numbers % 100_000), "ts": moment, "page": numbered("page", numbers)}
    return pa.table(actions), pa.table(visits)


def main() -> int:
    """Runs the soak; the exit status says whether memory stayed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000, help="rows to insert")
    arguments = parser.parse_args()
    now = START_MS
    engine = Engine(clock=lambda: now)
    engine.execute(SCRIPT)
    warm_up()
    start, inserting, slowest = time.perf_counter(), 0.0, 0.0
    halves: tuple[list[float], list[float]] = ([], [])
    print(
        f"{'rows':>13} {'RSS MiB':>8} {'alive':>10} {'texts':>10} {'state MiB':>10} {'rows/s':>9} {'slowest, ms':>12}"
    )
    for first in range(0, arguments.rows, BATCH):
        now = clock_ms(first)
        actions, visits = batch(first)
        if first % (20 * BATCH) == 0:  # what an aborted transaction does
            mark = engine.mark()
            engine.insert("action", actions)
            engine.rollback(mark)
        begin = time.perf_counter()
        engine.insert("action", actions)
        between = time.perf_counter()
        engine.insert("visit", visits)
        end = time.perf_counter()
        inserting += end - begin
        slowest = max(slowest, between - begin, end - between)
        engine.request("pairs", actions.slice(0, 100))
        engine.request("users", visits.slice(0, 100))
        done = first + BATCH
        if done > arguments.rows // 10:  # what is always needed is there by now
            halves[done > arguments.rows // 2].append(resident_mib())
        if done % max(BATCH, arguments.rows // 20 // BATCH * BATCH) == 0:
            stats, texts = engine.stats().values(), engine.strings()
            size = (sum(table.bytes for table in stats) + texts.bytes) / 2**20
            print(
                f"{done:13,} {resident_mib():8.0f} {sum(table.rows for table in stats):10,} {texts.rows:10,} "
                f"{size:10.0f} {done / inserting:9,.0f} {1000 * slowest:12.0f}",
                flush=True,
            )
    most, least = [max(half, default=0.0) for half in halves], [min(half, default=0.0) for half in halves]
    print(
        f"{arguments.rows:,} rows in {time.perf_counter() - start:.0f} s; least and most memory in the first half "
        f"{least[0]:.0f} and {most[0]:.0f} MiB, in the second {least[1]:.0f} and {most[1]:.0f} MiB"
    )
    return int(least[1] > 1.1 * least[0] or most[1] > 1.1 * most[0])


if __name__ == "__main__":
    sys.exit(main())
