"""Features to a dataset: label, split by time, fit the encoder on the training part, encode.

    jd-intent-batch prepare --features DIR --data DIR --out DATASET [--app FOLDER]

writes the dataset folder that `batch.dataset.read` describes. `encode` does the last step only, with an encoder that
exists, for requests that came later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch.dataset.fit_encoder import Encoding, FieldReport, fit_encoder
from batch.dataset.folder_hash import digest
from batch.dataset.labelled import Labelled, LabelRule, label, read_features
from batch.dataset.read import APP_FOLDER
from batch.dataset.slices import write_slices
from batch.dataset.split import by_time
from batch.features.data_layout import BadData
from batch.features.extract import app_files
from streaming.app.folder import App, load_app
from streaming.app.history import history_folder
from streaming.files.output_folder import Say, replacing
from streaming.model.encoder import Encoder
from streaming.shipped_files import app_folder

__all__ = ["DatasetOptions", "WrittenDataset", "encode_later_requests", "prepare_dataset"]

ENCODE_ROWS = 65_536  # rows encoded at once


class WrittenDataset(msgspec.Struct, frozen=True):
    """`dataset.json` (see `batch.dataset.read.DatasetInfo`), and what is said besides.

    Attributes:
        label_source: the tables, or the column, that labels are from.
        unlabelled: requests without a label, which were left out.
        horizon_cut: requests whose label may miss events that nobody has recorded yet.
        above_one: labels that are whole numbers above 1; they count as 1.
        repeated: requests whose id an earlier one has.
        fields: what came of each field of the encoder; none: it was not fitted here.
    """

    counts: dict[str, int]
    positives: dict[str, int]
    table_size_array: list[int]
    split: dict[str, int]
    data_sha256: str
    sql_sha256: str
    encoder_sha256: str
    app: str
    app_sha256: str
    model: dict[str, Any]
    meanings: dict[str, str]
    label_source: str
    unlabelled: int
    horizon_cut: int
    above_one: int
    repeated: int
    fields: list[FieldReport]


@dataclass(frozen=True)
class DatasetOptions:
    """How to split and encode; see `batch.dataset.split.by_time` and `batch.dataset.fit_encoder.fit`.

    Attributes:
        val_fraction: share of the requests, by time, that validates.
        test_fraction: share of the requests, the newest, that tests.
        embargo_ms: requests closer than this to the next part are left out.
        complete_labels: leave out requests that look past the last row of the label's table: what follows is unknown.
        encoding: how features become ids.
    """

    val_fraction: float = 0.1
    test_fraction: float = 0.1
    embargo_ms: int = 0
    complete_labels: bool = False
    encoding: Encoding = "typed"


def prepare_dataset(
    features: Path,
    data: Path,
    out: Path,
    options: DatasetOptions | None = None,
    app: App | None = None,
    *,
    force: Say | None = None,
) -> WrittenDataset:
    """Makes the dataset folder `out` and returns what it holds; `force`: see `streaming.files.output_folder.replacing`.

    The encoder sees nothing but the training part (with `encoding="seed"`, which learns no values, it counts over all
    requests, as the tutorial does).

    Args:
        app: None: the tutorial's shop.

    Raises:
        BadData: features or data cannot be used. ValueError: a part of the split is empty.
        ArtifactMismatch: the features are not those of the feature query.
        OutputRefused: `out` holds something else, or touches an input.
    """
    options = options or DatasetOptions()
    app = app or load_app(app_folder())
    with replacing(out, "dataset", inputs=[features, data, *app_files(app)], force=force) as folder:
        labelled = label(read_features(features, app), data, app)
        if options.complete_labels:
            count = len(labelled.cut)
            labelled = labelled.filter(~labelled.cut)
            if not len(labelled.cut) and count:
                what = f"--complete-labels leaves none of {count:,} requests: all are less than the label's horizon"
                raise BadData(f"{features}: {what} before the last row of {labelled.source}")
        split = by_time(labelled.time_ms, options.val_fraction, options.test_fraction, options.embargo_ms)
        rows = {"train": split.train, "val": split.val, "test": split.test}
        seen = labelled.features if options.encoding == "seed" else labelled.features.take(pa.array(split.train))
        fitted = fit_encoder(seen, app, options.encoding)
        del seen
        times = {"val_from": split.val_from_ms, "test_from": split.test_from_ms}
        return _write(
            folder, fitted.encoder, labelled, rows=rows, times=times, data=data, app=app, fields=fitted.fields
        )


def encode_later_requests(
    features: Path,
    data: Path,
    out: Path,
    encoder: Encoder | Path,
    *,
    since_ms: int,
    labels: LabelRule = "auto",
    app: App | None = None,
    force: Say | None = None,
) -> WrittenDataset:
    """A dataset of one part, `test`: the requests since `since_ms` (epoch ms), labelled, encoded by a given encoder.

    With `labels="later-event"` all of them are in it: requests that were streamed have no recorded label.

    Args:
        encoder: itself, or the folder that it is in.
        app: None: the tutorial's shop.

    Raises:
        BadData: as `prepare`, or no request is that late. ArtifactMismatch: features and encoder do not fit.
        OutputRefused: as `prepare`.
    """
    app = app or load_app(app_folder())
    inputs = [features, data, *app_files(app)]
    if isinstance(encoder, Path):
        inputs, encoder = [*inputs, encoder], Encoder.load(encoder)
    with replacing(out, "dataset", inputs=inputs, force=force) as folder:
        labelled = label(read_features(features, app), data, app, labels)
        late = np.flatnonzero(labelled.time_ms >= since_ms)
        if not len(late):
            last = labelled.time_ms.max()
            raise BadData(f"{features}: no request since {since_ms} (epoch ms); the last is at {last}")
        rows = {"test": late[np.argsort(labelled.time_ms[late], kind="stable")]}
        times = {"val_from": since_ms, "test_from": since_ms}
        return _write(folder, encoder, labelled, rows=rows, times=times, data=data, app=app, fields=())


def _write(
    folder: Path,
    encoder: Encoder,
    labelled: Labelled,
    *,
    rows: Mapping[str, NDArray[np.int64]],
    times: dict[str, int],
    data: Path,
    app: App,
    fields: tuple[FieldReport, ...],
) -> WrittenDataset:
    defaults = msgspec.structs.asdict(app.settings.model)
    prepared = WrittenDataset(
        counts={name: len(part) for name, part in rows.items()},
        positives={name: int(labelled.label[part].sum()) for name, part in rows.items()},
        table_size_array=encoder.table_sizes,
        split=times,
        data_sha256=_data_digest(data, app),
        sql_sha256=f"sha256:{hashlib.sha256(app.sources['features.sql'].encode()).hexdigest()}",
        encoder_sha256=encoder.digest,
        app=app.settings.name,
        app_sha256=app.digest,
        model={name: value for name, value in defaults.items() if value is not None},
        meanings=_meanings(encoder, app),
        label_source=labelled.source,
        unlabelled=labelled.unlabelled,
        horizon_cut=int(labelled.cut.sum()),
        above_one=labelled.above_one,
        repeated=labelled.features.num_rows - pc.count_distinct(labelled.features[labelled.request_id]).as_py(),
        fields=list(fields),
    )
    for name, part in rows.items():
        _write_part(folder / f"{name}.parquet", encoder, labelled, part)
    write_slices(folder, labelled, rows, data, app)
    encoder.save(folder / "encoder")
    (folder / APP_FOLDER).mkdir()
    for name, text in app.sources.items():
        (folder / APP_FOLDER / name).write_text(text, encoding="utf-8")
    (folder / "dataset.json").write_bytes(msgspec.json.format(msgspec.json.encode(prepared), indent=1) + b"\n")
    return prepared


def _meanings(encoder: Encoder, app: App) -> dict[str, str]:
    """By field: what its column is computed of, and in front what app.toml calls one of both."""
    of_columns = {origin.name: origin.meaning for origin in app.query.contract.origins}
    names = app.settings.names
    found = {}
    for field in encoder.fields:
        called, meaning = names.get(field.name, names.get(field.column)), of_columns.get(field.column, "")
        found[field.name] = meaning if called is None else f"{called}: {meaning}"
    return found


def _data_digest(data: Path, app: App) -> str:
    """`sha256:…` of the data folder's tables, of nothing else that lies there."""
    folders = [history_folder(app, table) for table in app.tables.columns]
    tables = {folder: digest(data / folder) for folder in folders if (data / folder).is_dir()}
    return "sha256:" + hashlib.sha256(msgspec.json.encode(tables)).hexdigest()


def _write_part(path: Path, encoder: Encoder, labelled: Labelled, rows: NDArray[np.int64]) -> None:
    width = len(encoder.fields)
    schema = pa.schema(
        {"request_id": pa.string(), "time": pa.timestamp("ms"), "label": pa.int8(), "ids": pa.list_(pa.int64(), width)}
    )
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(rows), ENCODE_ROWS):
            some = rows[start : start + ENCODE_ROWS]
            features = labelled.features.take(pa.array(some))
            ids = pa.array(encoder.encode(features).ravel())
            writer.write_table(
                pa.table(
                    [
                        features[labelled.request_id].cast(pa.string()),
                        pa.array(labelled.time_ms[some], pa.timestamp("ms")),
                        labelled.label[some],
                        pa.FixedSizeListArray.from_arrays(ids, width),
                    ],
                    schema=schema,
                )
            )
