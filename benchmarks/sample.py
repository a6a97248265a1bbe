"""The tutorial's sample and scripts, which the benchmarks of the engines run on."""

from __future__ import annotations

import functools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from streaming.app.folder import App, load_app
from streaming.shipped_files import SQL_FOLDER

__all__ = ["FOLDER", "FOLDERS", "ROOT", "jd", "read_sample"]

ROOT = Path(__file__).parents[1]
FOLDER = ROOT.parent / "shared" / "jd"
"""Where the sample lies, if nobody says another folder in the tutorial's layout."""

FOLDERS = {
    "bo_product": "bo_product",
    "bo_user": "bo_user",
    "bo_action": "bo_action",
    "bo_comment": "bo_comment",
    "flattenRequest": "flattenRequest_clean",
}
"""The tables that have rows in the sample, and the folder of each."""


def read_sample(folder: Path) -> dict[str, pa.Table]:
    """The rows of each table of `FOLDERS`."""
    return {table: pq.read_table(folder / name) for table, name in FOLDERS.items()}


@functools.cache
def jd() -> App:
    """The tutorial's application."""
    return load_app(SQL_FOLDER / "jd")
