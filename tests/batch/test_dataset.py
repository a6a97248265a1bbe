"""A dataset folder that cannot be used is refused with file and column."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.model import FIELDS, TABLE_SIZES

from batch.dataset.read import DatasetError, read_info, read_part

Change = Callable[[pa.Table], pa.Table]


@pytest.fixture
def dataset(tiny_dataset: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(tiny_dataset, tmp_path / "dataset")


def test_a_part_is_read_whole(tiny_dataset: Path) -> None:
    part = read_part(tiny_dataset, "train")
    assert part.ids.shape == (6000, FIELDS)
    assert part.ids.flags.c_contiguous
    assert part.ids.dtype == np.int64
    info = read_info(tiny_dataset)
    assert (part.count, part.positives) == (info.counts["train"], info.positives["train"])
    assert info.table_size_array == TABLE_SIZES


def replaced(column: str, values: pa.Array) -> Change:
    return lambda table: table.set_column(table.schema.get_field_index(column), column, values)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda table: table.drop_columns(["label"]), "has no column 'label'; it has request_id, time, ids"),
        (lambda table: table.drop_columns(["ids"]), "has no column 'ids'"),
        (lambda table: table.slice(0, 0), "has no rows"),
        (replaced("label", pa.array([0.5] * 1500)), "column 'label' is double, not int8"),
        (replaced("label", pa.array([None] + [1] * 1499, pa.int8())), "column 'label' holds 1 nulls"),
        (replaced("label", pa.array([0] * 7 + [2] * 1493, pa.int8())), "column 'label' holds 2 in row 7"),
        (
            replaced("ids", pa.array([[1] * 40] * 1500, pa.list_(pa.int64(), 40))),
            "column 'ids' is fixed_size_list<element: int64>[40], not fixed_size_list<item: int64>[41]",
        ),
        (
            replaced("ids", pa.array([[None] * FIELDS] + [[1] * FIELDS] * 1499, pa.list_(pa.int64(), FIELDS))),
            "column 'ids' holds 41 nulls inside its lists",
        ),
    ],
    ids=["no label", "no ids", "empty", "float label", "null label", "label 2", "40 ids", "null id"],
)
def test_a_wrong_table_is_refused(dataset: Path, change: Change, complaint: str) -> None:
    path = dataset / "val.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(DatasetError, match=re.escape(complaint)) as raised:
        read_part(dataset, "val")
    assert str(path) in str(raised.value)


def test_a_missing_and_a_broken_file_are_refused(dataset: Path) -> None:
    (dataset / "val.parquet").unlink()
    (dataset / "test.parquet").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"val\.parquet does not exist"):
        read_part(dataset, "val")
    with pytest.raises(DatasetError, match=r"test\.parquet is not a parquet file"):
        read_part(dataset, "test")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"table_size_array": []}, "table_size_array has no entries"),
        ({"counts": 3}, r"Expected `object`, got `int` - at `\$\.counts`"),
        ({"split": {}}, r"missing required field `val_from` - at `\$\.split`"),
    ],
)
def test_a_wrong_description_is_refused(dataset: Path, change: dict[str, object], complaint: str) -> None:
    path = dataset / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DatasetError, match=complaint):
        read_info(dataset)
    path.write_text("{")
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        read_info(dataset)
    path.unlink()
    with pytest.raises(DatasetError, match=r"dataset\.json does not exist"):
        read_info(dataset)
