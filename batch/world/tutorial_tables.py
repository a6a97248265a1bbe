"""The tutorial's layout: which tables a data folder has, with which columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from batch.features.data_layout import BadData
from streaming.files.tables import BadFile, read
from streaming.store.openmldb.columns import schema_of

__all__ = ["TABLES", "table_rows"]

# Folder → column → SQL's type, as in sql/jd/tables.sql.
TABLES: dict[str, dict[str, str]] = {
    "action": {"reqId": "string", "eventTime": "timestamp", "ingestionTime": "timestamp", "actionValue": "int"},
    "flattenRequest_clean": {
        "reqId": "string",
        "eventTime": "timestamp",
        "main_id": "string",
        "pair_id": "string",
        "user_id": "string",
        "sku_id": "string",
        "time": "bigint",
        "split_id": "int",
        "time1": "string",
    },
    "bo_user": {
        "ingestionTime": "timestamp",
        "user_id": "string",
        "age": "string",
        "sex": "string",
        "user_lv_cd": "string",
        "user_reg_tm": "bigint",
    },
    "bo_action": {
        "ingestionTime": "timestamp",
        "pair_id": "string",
        "time": "bigint",
        "model_id": "string",
        "type": "string",
        "cate": "string",
        "br": "string",
    },
    "bo_product": {
        "ingestionTime": "timestamp",
        "sku_id": "string",
        "a1": "string",
        "a2": "string",
        "a3": "string",
        "cate": "string",
        "br": "string",
    },
    "bo_comment": {
        "ingestionTime": "timestamp",
        "dt": "bigint",
        "sku_id": "string",
        "comment_num": "int",
        "has_bad_comment": "string",
        "bad_comment_rate": "float",
    },
}


def table_rows(data: Path, folder: str, columns: Sequence[str] = ()) -> Iterator[pa.Table]:
    """The rows of a table of the tutorial's layout, from its parquet files, in order; all columns, or those named.

    Raises:
        BadData: see `check`.
    """
    kinds = TABLES[folder]
    schema = schema_of([(name, kinds[name]) for name in columns or kinds])
    try:
        for piece in read(data / folder, schema):
            yield piece.rows
    except BadFile as error:
        raise BadData(str(error)) from None
