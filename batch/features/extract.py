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

from batch.features.data_layout import DATA_PREFIX, OUT_PREFIX, SCRIPTS, BadData, parquet_files
from batch.features.inputs import check_data, loaded_tables, script_files, write_no_rows
from streaming.engine import Engine
from streaming.files.output_folder import Say, replacing
from streaming.shipped_files import SQL_FOLDER
from streaming.store.sql_scripts import read_script, within

__all__ = ["Extracted", "counted", "extract_features"]


class Extracted(msgspec.Struct, frozen=True):
    """What an extraction did.

    Attributes:
        rows: read, by folder of a table.
        features, columns: rows and columns that were written.
        check_s: seconds that looking at the files took.
        run_s: seconds that the query took.
    """

    rows: dict[str, int]
    features: int
    columns: int
    check_s: float
    run_s: float


def extract_features(data: Path, out: Path, sql: Path = SQL_FOLDER, *, force: Say | None = None) -> Extracted:
    """Writes the features of every request of `data` to `out` (parquet, the query's 42 columns).

    Args:
        data: the tutorial's layout; `action/` may be absent. out: a folder; older features are replaced as a whole.
        sql: the folder of the three scripts. force: see `streaming.files.output_folder.replacing`.

    Raises:
        BadData: see `check`. ConfigError: a script is missing. UnsupportedSQL: the engine cannot run a script.
        OutputRefused: `out` holds something else, or touches an input.
    """
    started = time.monotonic()
    scripts = [read_script(sql / name) for name in SCRIPTS]
    rows = check_data(data, sql)
    checked = time.monotonic()
    inputs = [data, *script_files(scripts)]
    with replacing(out, "features", inputs=inputs, force=force) as fresh, tempfile.TemporaryDirectory() as staging:
        paths = {DATA_PREFIX: str(data.resolve()), OUT_PREFIX: str(fresh)}
        for source in loaded_tables(sql, data):
            if source.folder not in rows:  # an optional table: the scripts run unchanged where a dataset has none
                write_no_rows(source, Path(staging) / source.folder)
                paths[f"{DATA_PREFIX}/{source.folder}"] = f"{staging}/{source.folder}"
        engine = Engine(paths=paths)
        for script in scripts:
            with within(script):
                engine.execute(script.text)
        if not any(fresh.glob("*.parquet")):
            raise BadData(f"{sql / SCRIPTS[-1]}: it wrote no features to {out}")
        features, columns = counted(fresh)
    return Extracted(
        rows=rows, features=features, columns=columns, check_s=checked - started, run_s=time.monotonic() - checked
    )


def counted(folder: Path) -> tuple[int, int]:
    """Rows and columns of the features in a folder."""
    files = [pq.read_metadata(file) for file in parquet_files(folder)]
    return sum(file.num_rows for file in files), files[0].num_columns
