"""A data folder whose files are laid out in every way that is taken; and one column of it at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def set_column(data: Path, folder: str, name: str, change: Callable[[pa.ChunkedArray], Any], **how: Any) -> Path:
    file = next((data / folder).glob("*.parquet"))
    table = pq.read_table(file)
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, change(table[name])), file, **how)
    return file


def odd_but_good(data: Path) -> None:
    """Other types that hold the same values, and files that are none."""
    set_column(data, "bo_user", "ingestionTime", lambda c: c, use_deprecated_int96_timestamps=True)
    set_column(data, "bo_product", "ingestionTime", lambda c: c.cast(pa.timestamp("ms")).cast(pa.int64()))
    set_column(data, "bo_comment", "comment_num", lambda c: c.cast(pa.float64()))
    set_column(data, "bo_comment", "bad_comment_rate", lambda c: c.cast(pa.float64()))
    set_column(data, "bo_action", "type", lambda c: c.cast(pa.large_binary()))
    set_column(data, "flattenRequest_clean", "user_id", lambda c: c.dictionary_encode())
    set_column(data, "flattenRequest_clean", "eventTime", lambda c: c.cast(pa.timestamp("us", "Asia/Shanghai")))
    file = next((data / "bo_action").glob("*.parquet"))
    table = pq.read_table(file)
    some = table.num_rows // 2
    (data / "bo_action" / "part-00001.parquet").mkdir()
    pq.write_table(table.slice(0, some).select(table.column_names[::-1]), file)
    pq.write_table(table.slice(some), data / "bo_action" / "part-00001.parquet" / "part-0.parquet")
    for name in ("_SUCCESS", ".part-00000.parquet.crc", "part-00001.parquet/_SUCCESS"):
        (data / "bo_action" / name).write_bytes(b"no parquet")
