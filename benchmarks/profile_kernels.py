"""Where the embedded engine's compiled code spends its time, function by function, under Linux's `perf`.

    perf record -o build/perf.data .envs/scorer/bin/python -m benchmarks.profile_kernels [--users N] [--rounds N]
    perf report -i build/perf.data --sort symbol

A generated world, and the offline query over it, again and again. Kernels are object code in memory, in no library: a
file /tmp/perf-PID.map, which perf looks for, says which function lies where. It needs `nm`, of binutils.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from batch.world.generate import generate_world
from batch.world.tutorial_tables import TABLES, table_rows
from streaming.engine import Engine
from streaming.engine.native import kernel
from streaming.shipped_files import SQL_FOLDER


def functions(file: Path) -> Iterator[tuple[int, int, str]]:
    """Offset, size and symbol of each function of an object file."""
    told = subprocess.run(["nm", "-S", "--defined-only", str(file)], check=True, capture_output=True, text=True).stdout
    for offset, size, symbol in re.findall(r"^([0-9a-f]+) ([0-9a-f]+) [tT] (\S+)$", told, re.MULTILINE):
        yield int(offset, 16), int(size, 16), symbol


def readable(symbol: str) -> str:
    """`streaming.engine.kernels.aggregates.fold` of numba's mangled name; any other symbol as it is."""
    names, rest = [], symbol.removeprefix("_ZN")
    while (length := re.match(r"\d+", rest)) and rest != symbol:
        end = length.end() + int(length[0])
        names.append(rest[length.end() : end])
        rest = rest[end:]
    return ".".join(names) or symbol


def write_map() -> Path:
    """Tells perf the places of this process's kernels."""
    loaded = kernel.load()
    lines = []
    for file in kernel._objects():
        found = list(functions(file))
        start = next(address - offset for offset, _, name in found if (address := loaded.get_function_address(name)))
        lines += [f"{start + offset:x} {size:x} {readable(symbol)}\n" for offset, size, symbol in found]
    path = Path(f"/tmp/perf-{os.getpid()}.map")
    path.write_text("".join(lines))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_kernels")
    parser.add_argument("--users", type=int, default=3000, help="size of the world")
    parser.add_argument("--rounds", type=int, default=10, help="queries over it")
    options = parser.parse_args()
    engine = Engine()
    engine.execute((SQL_FOLDER / "jd" / "tables.sql").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as work:
        world = Path(work) / "world"
        generate_world(world, options.users, 1)
        for folder in TABLES.keys() - {"action"}:
            for rows in table_rows(world, folder):
                engine.insert(f"JD_db.{folder.removesuffix('_clean')}", rows)
    print(write_map())
    query = (SQL_FOLDER / "jd" / "features.sql").read_text(encoding="utf-8")
    for _ in range(options.rounds):
        engine.query(query)


if __name__ == "__main__":
    main()
