"""By what a report slices validation and test: hour of the request, the categories as texts, keys that training knew.

The parts themselves hold ids, from which no value can be read. `slices.parquet` has a row for each row of `val` and
`test`, in their order: `part`, and a column of texts for each way to slice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.dataset.labelled import Labelled, request_columns
from batch.dataset.read import SLICES
from batch.features.data_layout import BadData
from streaming.app.folder import App

__all__ = ["write_slices"]

NULL = "(NULL)"
HOUR = "hour of the request"
KNOWN = "in training"


def write_slices(
    folder: Path, labelled: Labelled, rows: Mapping[str, npt.NDArray[np.int64]], data: Path, app: App
) -> None:
    """Writes `slices.parquet` of a dataset.

    Args:
        rows: of the requests, by part; where there is no `train`, nobody knows what training knew.
    """
    judged = {name: part for name, part in rows.items() if name != "train"}
    chosen = np.concatenate([*judged.values()])
    columns: dict[str, pa.Array] = {
        "part": pa.array(np.repeat([*judged], [len(part) for part in judged.values()])),
        HOUR: _hours(labelled.time_ms[chosen], app.settings.time_zone),
    }
    echoes = dict(app.query.contract.echoes)
    lists = {origin.name for origin in app.query.contract.origins if origin.list_length}
    categories = dict.fromkeys(field.column for field in app.encoder_fields if field.kind == "category")
    for column in [column for column in categories if column not in lists]:
        columns.setdefault(echoes.get(column, column), _texts(labelled.features[column]).take(pa.array(chosen)))
    if "train" in rows:
        for name, values in _keys(labelled, data, app).items():
            texts = _texts(values)
            known = pc.is_in(texts.take(pa.array(chosen)), texts.take(pa.array(rows["train"])).unique())
            columns.setdefault(f"{name} {KNOWN}", pc.if_else(known, "known", "new"))
    coded = {name: pc.dictionary_encode(values) for name, values in columns.items()}
    pq.write_table(pa.table(coded), folder / SLICES)


def _keys(labelled: Labelled, data: Path, app: App) -> dict[str, pa.ChunkedArray]:
    """The keys of the query's windows and joins, but for the request's own name; without those that cannot be had."""
    names = dict.fromkeys(column for read in app.query.contract.reads for column in read.request)
    found: dict[str, pa.ChunkedArray] = {}
    for name in names:
        if name != app.settings.request.id:
            with contextlib.suppress(BadData):  # the query does not answer it, and requests of one id cannot be told
                found |= request_columns(app, labelled.features, data, [name])
    return found


def _hours(time_ms: npt.NDArray[np.int64], zone: str) -> pa.Array:
    """Of epoch ms, two digits, in the application's zone."""
    hours = pc.hour(pa.array(time_ms, pa.timestamp("ms", zone)))
    return pc.utf8_lpad(hours.cast(pa.string()), 2, "0")


def _texts(column: pa.ChunkedArray) -> pa.Array:
    texts = column.cast(pa.string()).combine_chunks()
    if isinstance(texts, pa.ChunkedArray):
        texts = pa.concat_arrays(texts.chunks) if texts.num_chunks else pa.array([], pa.string())
    return pc.fill_null(texts, NULL)
