"""The offline step: an application's feature query over every request of a data folder, as of the request's own time.

    jd-intent-batch extract --data DIR --out DIR [--app FOLDER]

runs by the embedded engine what OpenMLDB's command line runs (`streaming.app.scripts`): tables.sql, LOAD DATA of what
the folder has, and the query INTO OUTFILE.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import msgspec
import pyarrow.parquet as pq

from batch.features.data_layout import BadData, parquet_files
from batch.features.history import check_data, tables_of
from streaming.app.folder import App, load_app
from streaming.app.scripts import OUT, extract_script, load_script, query_text, tables_script
from streaming.app.wrong import AppFile
from streaming.engine import Engine, UnsupportedSQL
from streaming.files.output_folder import Say, replacing
from streaming.shipped_files import app_folder

__all__ = ["Extracted", "app_files", "counted", "extract_features"]

Progress: TypeAlias = Callable[[int, int], None]


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


def app_files(app: App) -> list[Path]:
    """The files of an application: none of them may be written over."""
    return [app.folder / name for name in app.sources]


def extract_features(
    data: Path, out: Path, app: App | None = None, *, force: Say | None = None, progress: Progress | None = None
) -> Extracted:
    """Writes the features of every request of `data` to `out`: parquet, the columns of the application's query.

    Args:
        data: a folder per table; see `streaming.app.history`.
        out: a folder; older features are replaced as a whole.
        app: None: the tutorial's shop.
        force: see `streaming.files.output_folder.replacing`.
        progress: told, as the features are written, how many requests are done, and how many there are.

    Raises:
        BadData: see `batch.features.history.check_data`. WrongApp: the engine cannot run the query offline.
        OutputRefused: `out` holds something else, or touches an input.
    """
    started = time.monotonic()
    app = app or load_app(app_folder())
    rows = check_data(data, app)
    checked = time.monotonic()
    with replacing(out, "features", inputs=[data, *app_files(app)], force=force) as fresh:
        sources = tables_of(app, data)
        there = {source.table: source.options.format for source in sources}
        engine = Engine(paths={app.settings.history.path: str(data.resolve()), OUT: str(fresh)}, progress=progress)
        engine.execute(tables_script(app))
        engine.execute(load_script(app, "offline", formats=there, without=app.tables.columns.keys() - there.keys()))
        _run_query(engine, app)
        if not any(fresh.glob("*.parquet")):
            raise BadData(f"{app.folder}: its query wrote no features to {out}")
        features, columns = counted(fresh)
    return Extracted(
        rows=rows, features=features, columns=columns, check_s=checked - started, run_s=time.monotonic() - checked
    )


def _run_query(engine: Engine, app: App) -> None:
    script = extract_script(app)
    file = AppFile(app.folder / "features.sql", app.sources["features.sql"])
    query = query_text(app)
    before = script[: script.index(query)].count("\n") - file.text[: file.text.index(query)].count("\n")
    try:
        engine.execute(script)
    except UnsupportedSQL as error:
        raise file.sql_error(error, lines_before=before) from None


def counted(folder: Path) -> tuple[int, int]:
    """Rows and columns of the features in a folder."""
    files = [pq.read_metadata(file) for file in parquet_files(folder)]
    return sum(file.num_rows for file in files), files[0].num_columns
