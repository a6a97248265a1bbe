"""The dataset folder, read: what `prepare` wrote and training, evaluation and export take.

train.parquet, val.parquet, test.parquet    request_id string, time timestamp[ms], label int8, ids int64[fields]
slices.parquet                              by what a report slices val and test (see `batch.dataset.slices`)
dataset.json                                counts, table size array, times of the split, hashes, defaults of training
encoder/                                    what made the ids (see `streaming.model.encoder`)
app/                                        the four files of the application
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streaming.errors import BadInput

__all__ = [
    "APP_FOLDER",
    "SLICES",
    "DatasetError",
    "DatasetInfo",
    "Part",
    "PartName",
    "SplitTimes",
    "Texts",
    "read_field_names",
    "read_info",
    "read_part",
    "read_slices",
]

APP_FOLDER = "app"
"""Where the application's files lie."""

SLICES = "slices.parquet"

PartName = Literal["train", "val", "test"]


class DatasetError(BadInput):
    """A file of the dataset is missing or wrong; the message names file and column."""


class SplitTimes(msgspec.Struct, frozen=True):
    """Where parts begin, epoch ms.

    Attributes:
        val_from: the first request of validation.
        test_from: the first request of the test part.
    """

    val_from: int
    test_from: int


class DatasetInfo(msgspec.Struct, frozen=True):
    """`dataset.json`.

    Attributes:
        counts: requests by part.
        positives: of them those with label 1, by part.
        table_size_array: of each field the number of its ids.
        split: where the parts begin.
        data_sha256: of the tables that it was made of.
        sql_sha256: of the feature query.
        encoder_sha256: of the encoder that made the ids.
        app: the application's name.
        app_sha256: its digest, `streaming.app.digest`.
        model: its defaults of training, by the names of `batch.train.options.TrainOptions`.
        meanings: by field, what it is and of which rows it is computed, for people; none of older releases.
    """

    counts: dict[str, int]
    positives: dict[str, int]
    table_size_array: list[int]
    split: SplitTimes
    data_sha256: str
    sql_sha256: str
    encoder_sha256: str
    app: str
    app_sha256: str
    model: dict[str, Any]
    meanings: dict[str, str] = {}

    @property
    def fields(self) -> int:
        """The model's width: ids of a request."""
        return len(self.table_size_array)


@dataclass(frozen=True)
class Part:
    """One part in memory: 8 bytes a field and sample, so ten million samples of 41 fields take 3.3 GB.

    Args:
        request_ids: [n].
        labels: float32 [n], 0 or 1.
        ids: int64 [n, fields].
    """

    request_ids: pa.ChunkedArray
    labels: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int64]

    @property
    def count(self) -> int:
        return len(self.labels)

    @property
    def positives(self) -> int:
        return int(self.labels.sum())


@dataclass(frozen=True)
class Texts:
    """A text for each of n rows, each text once: a text of 10 kB in every row is 10 kB, and n numbers.

    Attributes:
        values: the texts, each different.
        codes: which of them, int64 [n].
    """

    values: list[str]
    codes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, column: pa.Array | pa.ChunkedArray) -> Texts:
        """Of a column of texts without NULLs, coded as a dictionary or not."""
        coded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column.cast(pa.string()))
        whole = coded.unify_dictionaries().combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
        if isinstance(whole, pa.ChunkedArray):  # of no rows
            return cls([], np.empty(0, np.int64))
        # A dictionary may hold a text twice, and texts that no row has.
        values = whole.dictionary.cast(pa.string()).to_pylist()
        places = {value: place for place, value in enumerate(dict.fromkeys(values))}
        same = np.array([places[value] for value in values], np.int64)
        return cls([*places], same[whole.indices.to_numpy(zero_copy_only=False)])

    def tolist(self) -> list[str]:
        """The text of each row."""
        return [self.values[code] for code in self.codes]


def read_info(dataset: Path) -> DatasetInfo:
    """Reads `dataset.json`.

    Raises:
        DatasetError: it is missing, is not JSON, lacks a field, or its table size array is empty.
    """
    path = dataset / "dataset.json"
    try:
        info = msgspec.json.decode(path.read_bytes(), type=DatasetInfo)
    except FileNotFoundError:
        raise DatasetError(
            f"{path} does not exist: is {dataset} a folder that `jd-intent-batch prepare` wrote?"
        ) from None
    except msgspec.DecodeError as error:
        raise DatasetError(f"{path}: {error}") from error
    if not info.table_size_array:
        raise DatasetError(f"{path}: table_size_array has no entries")
    return info


def read_part(dataset: Path, name: PartName) -> Part:
    """Reads one part whole; `dataset.json` says how many ids a request has.

    Raises:
        DatasetError: the file is missing, is not parquet or has no rows; a column is missing, of another type, holds
            a null, or (label) anything but 0 and 1.
    """
    width = read_info(dataset).fields
    columns = {"request_id": pa.string(), "label": pa.int8(), "ids": pa.list_(pa.int64(), width)}
    path = dataset / f"{name}.parquet"
    if not path.exists():
        raise DatasetError(f"{path} does not exist")
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is not a parquet file: {error}") from error
    for column, expected in columns.items():
        if column not in schema.names:
            raise DatasetError(f"{path} has no column {column!r}; it has {', '.join(schema.names) or 'none'}")
        if schema.field(column).type != expected:
            raise DatasetError(f"{path}: column {column!r} is {schema.field(column).type}, not {expected}")
    try:
        table = pq.read_table(path, columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is damaged: {error}") from error
    if table.num_rows == 0:
        raise DatasetError(f"{path} has no rows")
    for column in columns:
        nulls = table[column].null_count
        if nulls:
            raise DatasetError(f"{path}: column {column!r} holds {nulls} nulls")
    ids = table["ids"].combine_chunks()
    flat = ids.flatten()
    if flat.null_count:
        raise DatasetError(f"{path}: column 'ids' holds {flat.null_count} nulls inside its lists")
    labels = table["label"].to_numpy()
    wrong = np.flatnonzero((labels != 0) & (labels != 1))
    if len(wrong):
        raise DatasetError(f"{path}: column 'label' holds {labels[wrong[0]]} in row {wrong[0]}, neither 0 nor 1")
    return Part(
        request_ids=table["request_id"],
        labels=labels.astype(np.float32),
        ids=np.ascontiguousarray(flat.to_numpy().reshape(-1, width)),
    )


def read_field_names(dataset: Path, fields: int) -> list[str]:
    """The names of the model's inputs, as the encoder has them; numbers from 1 where it names none.

    Raises:
        DatasetError: `encoder/encoder.json` is missing or no JSON.
    """
    path = dataset / "encoder" / "encoder.json"
    try:
        found = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: {error}") from error
    try:
        names = [str(field["name"]) for field in found["encoder"]["fields"]]
    except (KeyError, TypeError):
        names = []
    return names if len(names) == fields else [f"field {number}" for number in range(1, fields + 1)]


def read_slices(dataset: Path, name: PartName, count: int) -> dict[str, Texts]:
    """By what to slice a part: texts of its `count` rows by what they are; none where the dataset says nothing of it.

    Raises:
        DatasetError: the file is no parquet, or has other rows than the part.
    """
    path = dataset / SLICES
    if not path.exists():
        return {}
    try:
        table = pq.read_table(path)
        of_part = table.filter(pc.equal(table["part"].cast(pa.string()), name)).drop_columns(["part"])
        columns = {column: Texts.of(of_part[column]) for column in of_part.column_names}
    except (pa.ArrowException, OSError, KeyError, ValueError, IndexError) as error:
        raise DatasetError(f"{path} is damaged: {error}") from error
    if of_part.num_rows != count:
        raise DatasetError(f"{path} has {of_part.num_rows} rows of {name}, {name}.parquet has {count}")
    return columns
