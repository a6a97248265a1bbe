"""`jd-intent-batch extract` beside OpenMLDB's own batch engine on Apache Spark: whole commands, same data, same cores.

    python -m benchmarks.extract [--users N] [--rounds N] [--data DIR]

In turn, as a user runs them: start of the process, reading, computing, writing. Needs `make spark-environment`. Spark
has as many cores as the machine, and 8 GB.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.dataset as ds
from rich.console import Console
from rich.table import Table

from batch.world.generate import generate_world
from deploy.environments import REPOSITORY

__all__: list[str] = []

SPARK = ["--engine", "spark", "--master", f"local[{os.cpu_count()}]", "--spark-conf", "spark.driver.memory=8g"]

console = Console(highlight=False)


def seconds(data: Path, out: Path, more: list[str]) -> float:
    """Of one command."""
    argv = [sys.executable, "-m", "batch", "extract", "--data", str(data), "--out", str(out), *more]
    began = time.monotonic()
    subprocess.run(argv, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of the tutorial's tables; default: a generated world")
    parser.add_argument("--users", type=int, default=6_000, help="of the world; default: 6,000")
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    found: dict[str, list[float]] = {"ours": [], "Spark": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = words.data
        if data is None:
            data = folder / "data"
            generate_world(data, users=words.users, seed=1)
        for number in range(words.rounds):
            for engine, more in (("ours", []), ("Spark", SPARK)):
                out = folder / f"{engine}-{number}"
                found[engine].append(seconds(data, out, more))
                rows = ds.dataset(out, format="parquet", exclude_invalid_files=True).count_rows()
                console.print(f"round {number + 1}, {engine}: {found[engine][-1]:.1f} s, {rows:,} rows")
    table = Table(title=f"extract, {rows:,} requests, medians of {words.rounds} rounds")
    for column in ("", "seconds", "rounds", "requests/s"):
        table.add_column(column, justify="right" if column else "left")
    for engine, times in found.items():
        middle = statistics.median(times)
        table.add_row(engine, f"{middle:.1f}", f"{min(times):.1f} … {max(times):.1f}", f"{rows / middle:,.0f}")
    console.print(table)
    ratios = [spark / ours for ours, spark in zip(found["ours"], found["Spark"], strict=True)]
    console.print(f"ours / Spark: {statistics.median(ratios):.1f} times ({min(ratios):.1f} … {max(ratios):.1f})")


if __name__ == "__main__":
    main()
