"""Features to a dataset: label, split by time, fit the encoder on the training part, encode.

    jd-intent-batch prepare --features DIR --data DIR --out DATASET

writes the dataset folder that `batch.dataset.read` describes. `encode` does the last step only, with an encoder that
exists, for requests that came later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch.dataset.fit_encoder import EVENT_TIME, REQUEST_ID, Encoding, fit
from batch.dataset.folder_hash import digest
from batch.dataset.label import HORIZON_MS, LABEL_COLUMN, five_day_rule, recorded
from batch.dataset.split import by_time
from batch.features.data_layout import TABLES, BadData, parquet_files, table_rows
from streaming.files.output_folder import Say, replacing
from streaming.model.encoder import Encoder
from streaming.shipped_files import SQL_FOLDER
from streaming.store.sql_scripts import FEATURES, read_script

__all__ = [
    "DatasetOptions",
    "LabelRule",
    "WrittenDataset",
    "encode_later_requests",
    "label",
    "prepare_dataset",
    "read_features",
]

LabelRule: TypeAlias = Literal["auto", "action", "five-day"]
"""Where labels come from: the data's `action` table, the orders in bo_action, or (auto) `action` where there is one."""

PAIR = "flattenRequest_pair_id_original_24"
ENCODE_ROWS = 65_536  # rows encoded at once
SLACK_MS = 3_600_000  # what was recorded ends a little after the last action


class WrittenDataset(msgspec.Struct, frozen=True):
    """`dataset.json`, and what is said besides: requests without a label, and such whose label may miss orders."""

    counts: dict[str, int]
    positives: dict[str, int]
    table_size_array: list[int]
    split: dict[str, int]
    data_sha256: str
    sql_sha256: str
    encoder_sha256: str
    label_source: str
    unlabelled: int
    horizon_cut: int


@dataclass(frozen=True)
class DatasetOptions:
    """How to split and encode; see `batch.dataset.split.by_time` and `batch.dataset.fit_encoder.fit`.

    Attributes:
        val_fraction: share of the requests, by time, that validates.
        test_fraction: share of the requests, the newest, that tests.
        embargo_ms: requests closer than this to the next part are left out.
        complete_labels: leave out requests that look past the last action, whose later orders nobody recorded.
        encoding: how features become ids.
    """

    val_fraction: float = 0.1
    test_fraction: float = 0.1
    embargo_ms: int = 0
    complete_labels: bool = False
    encoding: Encoding = "typed"


@dataclass(frozen=True)
class Labelled:
    """Features with labels (int8 [n]) and times (epoch ms [n]); `cut`: which look past the last action (bool [n])."""

    features: pa.Table
    label: NDArray[np.int8]
    time_ms: NDArray[np.int64]
    source: str
    unlabelled: int
    cut: NDArray[np.bool_]

    def filter(self, kept: NDArray[np.bool_]) -> Labelled:
        features = self.features.filter(pa.array(kept))
        return Labelled(features, self.label[kept], self.time_ms[kept], self.source, self.unlabelled, self.cut[kept])


def read_features(folder: Path) -> pa.Table:
    """All feature rows of a folder that `extract` wrote.

    Raises:
        BadData: no parquet file, an unreadable one, or one without the columns that name a request, its time and pair.
    """
    tables = []
    for file in parquet_files(folder):
        try:
            table = pq.read_table(file)
        except (pa.ArrowException, OSError) as error:
            raise BadData(f"{file}: not a readable parquet file: {error}") from error
        for column in (REQUEST_ID, EVENT_TIME, PAIR, LABEL_COLUMN):
            if column not in table.column_names:
                raise BadData(f"{file}: no column {column}: these are not the features of `extract`")
        tables.append(table)
    try:
        features = pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise BadData(f"{folder}: its files differ: {error}") from error
    if not features.num_rows:
        raise BadData(f"{folder}: no features in it")
    return features


def label(features: pa.Table, data: Path, rule: LabelRule = "auto") -> Labelled:
    """Labels features as `rule` says. The `action` table drops the requests that have no row in it.

    Raises:
        BadData: the `action` table is asked for and is not there, or has a row for none of the requests.
    """
    there = (data / "action").exists()
    if rule == "action" and not there:
        raise BadData(f"{data / 'action'}: there is no such folder to take labels from")
    if rule != "five-day" and there:
        values, known = recorded(features)
        if not known.any():
            raise BadData(f"{data / 'action'}: none of the requests has a row in it, so none has a label")
        kept = features.filter(pa.array(known))
        return Labelled(
            kept,
            values[known],
            _epoch_ms(kept[EVENT_TIME]),
            "action",
            int((~known).sum()),
            np.zeros(kept.num_rows, bool),
        )
    actions = pa.concat_tables(table_rows(data, "bo_action", ("pair_id", "type", "ingestionTime")))
    requests = pa.table({"pair_id": features[PAIR], "eventTime": features[EVENT_TIME]})
    time_ms = _epoch_ms(features[EVENT_TIME])
    last_ms = _epoch_ms(actions["ingestionTime"]).max()
    cut = time_ms + HORIZON_MS > last_ms + SLACK_MS
    return Labelled(features, five_day_rule(requests, actions), time_ms, "bo_action", 0, cut)


def _check_query(sql: Path) -> None:
    """The dataset says by which query its features were made."""
    query = sql / FEATURES
    if not read_script(query).text.strip():
        raise BadData(f"{query}: there is no query in it")


def prepare_dataset(
    features: Path,
    data: Path,
    out: Path,
    options: DatasetOptions | None = None,
    sql: Path = SQL_FOLDER,
    *,
    force: Say | None = None,
) -> WrittenDataset:
    """Makes the dataset folder `out` and returns what it holds; `force`: see `streaming.files.output_folder.replacing`.

    The encoder sees nothing but the training part (with `encoding="seed"`, which learns no values, it counts over all
    requests, as the tutorial does).

    Raises:
        BadData: features or data cannot be used. ValueError: a part of the split is empty.
        ArtifactMismatch: the features are not those of the feature query.
        OutputRefused: `out` holds something else, or touches an input.
    """
    options = options or DatasetOptions()
    _check_query(sql)
    inputs = (features, data, sql / FEATURES)
    with replacing(out, "dataset", inputs=inputs, force=force) as folder:
        labelled = label(read_features(features), data)
        if options.complete_labels:
            labelled = labelled.filter(~labelled.cut)
        split = by_time(labelled.time_ms, options.val_fraction, options.test_fraction, options.embargo_ms)
        rows = {"train": split.train, "val": split.val, "test": split.test}
        seen = labelled.features if options.encoding == "seed" else labelled.features.take(pa.array(split.train))
        encoder = fit(seen, options.encoding)
        del seen
        times = {"val_from": split.val_from_ms, "test_from": split.test_from_ms}
        return _write(folder, encoder, labelled, rows=rows, times=times, sources=(data, sql))


def encode_later_requests(
    features: Path,
    data: Path,
    out: Path,
    encoder: Encoder | Path,
    *,
    since_ms: int,
    labels: LabelRule = "auto",
    sql: Path = SQL_FOLDER,
    force: Say | None = None,
) -> WrittenDataset:
    """A dataset of one part, `test`: the requests since `since_ms` (epoch ms), labelled, encoded by a given encoder.

    With `labels="five-day"` all of them are in it: requests that were streamed have no row in a recorded `action`.

    Args:
        encoder: itself, or the folder that it is in.

    Raises:
        BadData: as `prepare`, or no request is that late. ArtifactMismatch: features and encoder do not fit.
        OutputRefused: as `prepare`.
    """
    _check_query(sql)
    inputs = [features, data, sql / FEATURES]
    if isinstance(encoder, Path):
        inputs, encoder = [*inputs, encoder], Encoder.load(encoder)
    with replacing(out, "dataset", inputs=inputs, force=force) as folder:
        labelled = label(read_features(features), data, labels)
        late = np.flatnonzero(labelled.time_ms >= since_ms)
        if not len(late):
            last = labelled.time_ms.max()
            raise BadData(f"{features}: no request since {since_ms} (epoch ms); the last is at {last}")
        rows = {"test": late[np.argsort(labelled.time_ms[late], kind="stable")]}
        times = {"val_from": since_ms, "test_from": since_ms}
        return _write(folder, encoder, labelled, rows=rows, times=times, sources=(data, sql))


def _write(
    folder: Path,
    encoder: Encoder,
    labelled: Labelled,
    *,
    rows: Mapping[str, NDArray[np.int64]],
    times: dict[str, int],
    sources: tuple[Path, Path],
) -> WrittenDataset:
    data, sql = sources
    prepared = WrittenDataset(
        counts={name: len(part) for name, part in rows.items()},
        positives={name: int(labelled.label[part].sum()) for name, part in rows.items()},
        table_size_array=encoder.table_sizes,
        split=times,
        data_sha256=_data_digest(data),
        sql_sha256=digest(sql / FEATURES),
        encoder_sha256=encoder.digest,
        label_source=labelled.source,
        unlabelled=labelled.unlabelled,
        horizon_cut=int(labelled.cut.sum()),
    )
    for name, part in rows.items():
        _write_part(folder / f"{name}.parquet", encoder, labelled, part)
    encoder.save(folder / "encoder")
    (folder / "dataset.json").write_bytes(msgspec.json.format(msgspec.json.encode(prepared), indent=1) + b"\n")
    return prepared


def _data_digest(data: Path) -> str:
    """`sha256:…` of the data folder's tables, of nothing else that lies there."""
    tables = {table: digest(data / table) for table in TABLES if (data / table).is_dir()}
    return "sha256:" + hashlib.sha256(msgspec.json.encode(tables)).hexdigest()


def _write_part(path: Path, encoder: Encoder, labelled: Labelled, rows: NDArray[np.int64]) -> None:
    width = len(encoder.fields)
    schema = pa.schema(
        {"reqId": pa.string(), "eventTime": pa.timestamp("ms"), "label": pa.int8(), "ids": pa.list_(pa.int64(), width)}
    )
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(rows), ENCODE_ROWS):
            some = rows[start : start + ENCODE_ROWS]
            features = labelled.features.take(pa.array(some))
            ids = pa.array(encoder.encode(features).ravel())
            writer.write_table(
                pa.table(
                    [
                        features[REQUEST_ID],
                        pa.array(labelled.time_ms[some], pa.timestamp("ms")),
                        labelled.label[some],
                        pa.FixedSizeListArray.from_arrays(ids, width),
                    ],
                    schema=schema,
                )
            )


def _epoch_ms(times: pa.ChunkedArray) -> NDArray[np.int64]:
    ms: NDArray[np.int64] = pc.cast(pc.cast(times, pa.timestamp("ms"), safe=False), pa.int64()).to_numpy()
    return ms
