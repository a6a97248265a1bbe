"""Offline features: the feature query over every request as of its own time, run by the embedded engine.

    jd-intent-batch extract --data DIR --out DIR

runs `sql/create_tables.sql`, `sql/load_offline.sql` and `sql/select_into_outfile.sql`, the tutorial's scripts, their
paths mapped to `--data` and `--out`. The files are looked at first (`check`), so that a wrong one is named, with its
column and row, before anything is computed.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import msgspec
import pyarrow.parquet as pq

from batch.inputs import DATA_PREFIX, SQL_FOLDER, BadData, check, parquet_files, script_text, sources, write_no_rows

__all__ = ["OUT_PREFIX", "SCRIPTS", "SQL_FOLDER", "BadData", "Extracted", "check", "extract"]

OUT_PREFIX = "/root/project/out/1"
SCRIPTS = ("create_tables.sql", "load_offline.sql", "select_into_outfile.sql")


class Extracted(msgspec.Struct, frozen=True):
    """What `extract` did: rows read per table, feature rows and columns written, and the time it took."""

    rows: dict[str, int]
    features: int
    columns: int
    check_s: float
    run_s: float


def extract(data: Path, out: Path, sql: Path = SQL_FOLDER) -> Extracted:
    """Writes the features of every request of `data` to `out` (parquet, the query's 42 columns).

    Args:
        data: the tutorial's layout; `action/` may be absent. out: a folder; older feature files in it are replaced.
        sql: the folder of the three scripts.

    Raises:
        BadData: see `check`; also when a script is missing. UnsupportedSQL: the engine cannot run a script.
    """
    from streaming.engine import Engine  # noqa: PLC0415 - compiles; only this command needs it

    started = time.monotonic()
    scripts = [script_text(sql / name) for name in SCRIPTS]
    rows = check(data, sql)
    checked = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as staging:
        paths = {DATA_PREFIX: str(data.resolve()), OUT_PREFIX: str(out.resolve())}
        for source in sources(data, sql):
            if source.folder not in rows:  # an optional table: the scripts run unchanged where a dataset has none
                write_no_rows(source, Path(staging) / source.folder)
                paths[f"{DATA_PREFIX}/{source.folder}"] = f"{staging}/{source.folder}"
        engine = Engine(paths=paths)
        for script in scripts:
            engine.execute(script)
    written = [pq.ParquetFile(file) for file in parquet_files(out)]
    return Extracted(
        rows=rows,
        features=sum(file.metadata.num_rows for file in written),
        columns=written[0].metadata.num_columns,
        check_s=checked - started,
        run_s=time.monotonic() - checked,
    )
