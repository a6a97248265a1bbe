"""The tutorial's sample and scripts, which the benchmarks of the engines run on."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from streaming.store.sql_scripts import read_script

__all__ = ["FOLDER", "FOLDERS", "ROOT", "read_sample", "sql"]

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


def sql(name: str) -> str:
    """A script of sql/."""
    return read_script(ROOT / "sql" / f"{name}.sql").text
