"""Compiles the kernels into their cache: `python -m streaming.engine.warm`, once after an installation.

Every kernel is compiled once per version of its sources, whatever the queries; without this the first request does it.
"""

from __future__ import annotations

import time

import pyarrow as pa

from streaming.engine import Engine

__all__ = ["warm_up"]


def warm_up() -> float:
    """Runs a small query through every entry point of the kernels; returns the seconds it took."""
    start = time.perf_counter()
    engine = Engine()
    engine.execute(
        "create table t(k string, ts timestamp, s string, i int, index(key=k, ts=ts, ttl=9, ttl_type=latest));"
        "deploy d select topn_frequency(s, 1) over w as a, sum(i) over w as b, i + 1 as c from t "
        "window w as (partition by k order by ts rows between 1 preceding and current row);"
    )
    rows = [{"k": "a", "ts": 1000 - n, "s": str(n), "i": n} for n in range(300)]
    engine.insert("t", rows)
    engine.insert("t", pa.Table.from_pylist(rows))
    mark = engine.mark()
    engine.insert("t", rows[:1])
    engine.request("d", rows[:2])
    engine.rollback(mark)
    engine.free()
    engine = Engine()
    engine.execute("create table t(k string, ts timestamp, i int);")
    engine.insert("t", [{"k": "a", "ts": n, "i": n} for n in range(2)])
    engine.query(
        "select count(i) over w as a from t "
        "window w as (partition by k order by ts rows between 1 preceding and current row)"
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    print(f"kernels ready after {warm_up():.1f} s")
