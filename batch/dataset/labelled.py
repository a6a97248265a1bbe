"""The features of a folder, with the label and the time of each request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch.dataset.label import binary, epoch_ms, events_of, joined, later_event
from batch.features.data_layout import BadData, parquet_files
from batch.features.history import table_rows
from streaming.app.folder import App
from streaming.app.history import history_folder, may_be_absent
from streaming.app.later_event import horizon_of

__all__ = ["LabelRule", "Labelled", "label", "read_features", "request_columns", "request_id_column"]

LabelRule: TypeAlias = Literal["auto", "column", "joined", "later-event"]
"""Which of the ways of [label] makes the labels; auto: `column`, where it is not NULL throughout, else the other."""

SLACK_MS = 3_600_000  # what was recorded ends a little after the last row


@dataclass(frozen=True)
class Labelled:
    """Features with labels.

    Attributes:
        features: n rows.
        label: int8 [n], 0 or 1.
        time_ms: of the requests, epoch ms, [n].
        request_id: the column of the features with the requests' names.
        source: what labels are from.
        unlabelled: requests without a label, which were left out.
        above_one: labels that were whole numbers above 1.
        cut: which look past the last row of the label's table, bool [n].
    """

    features: pa.Table
    label: NDArray[np.int8]
    time_ms: NDArray[np.int64]
    request_id: str
    source: str
    unlabelled: int
    above_one: int
    cut: NDArray[np.bool_]

    def filter(self, kept: NDArray[np.bool_]) -> Labelled:
        """The requests that are kept, bool [n]."""
        features = self.features.filter(pa.array(kept))
        label, times, cut = self.label[kept], self.time_ms[kept], self.cut[kept]
        return Labelled(features, label, times, self.request_id, self.source, self.unlabelled, self.above_one, cut)


def read_features(folder: Path, app: App) -> pa.Table:
    """All feature rows of a folder that `extract` wrote.

    Raises:
        BadData: no parquet file, an unreadable one, or one without the columns of the application's query.
    """
    tables = []
    for file in parquet_files(folder):
        try:
            table = pq.read_table(file)
        except (pa.ArrowException, OSError) as error:
            raise BadData(f"{file}: not a readable parquet file: {error}") from error
        for column, _ in app.query.columns:
            if column not in table.column_names:
                raise BadData(f"{file}: no column {column}: these are not the features of {app.folder}/features.sql")
        tables.append(table)
    try:
        features = pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise BadData(f"{folder}: its files differ: {error}") from error
    if not features.num_rows:
        raise BadData(f"{folder}: no features in it")
    return features


def request_id_column(app: App) -> str:
    """The column of the features that names the request.

    Raises:
        BadData: the query answers none.
    """
    column = app.echo(app.settings.request.id)
    if column is None:
        what = f"its query does not answer {app.main}.{app.settings.request.id}, which names a request"
        raise BadData(f"{app.folder / 'features.sql'}: {what}: add that column")
    return column


def request_columns(app: App, features: pa.Table, data: Path, names: Sequence[str]) -> dict[str, pa.ChunkedArray]:
    """Columns of the main table for each row of the features: as the query answers them, else looked up in the data.

    Raises:
        BadData: a request is not in the data, or is there more than once.
    """
    echoes = {name: app.echo(name) for name in names}
    found = {name: features[echo] for name, echo in echoes.items() if echo is not None}
    missing = [name for name in names if name not in found]
    if not missing:
        return found
    key = app.settings.request.id
    rows = pa.concat_tables(table_rows(app, data, app.main, [*dict.fromkeys([key, *missing])]))
    ids = features[request_id_column(app)]
    folder = data / history_folder(app, app.main)
    if pc.count_distinct(rows[key]).as_py() != rows.num_rows:
        counted = pc.value_counts(rows[key])
        twice = counted.filter(pc.greater(counted.field("counts"), 1))[0]["values"].as_py()
        what = f"{key} {twice!r} is there more than once, and the query does not answer {', '.join(missing)}"
        raise BadData(f"{folder}: {what}, which the labels or the split need: add it to the query")
    at = pc.index_in(ids, value_set=rows[key].combine_chunks())
    if at.null_count:
        row = pc.index(pc.is_null(at), True).as_py()
        raise BadData(f"{folder}: no row with {key} {ids[row].as_py()!r}, which is in the features")
    return found | {name: rows[name].take(at) for name in missing}


def label(features: pa.Table, data: Path, app: App, rule: LabelRule = "auto") -> Labelled:
    """Labels features as `rule` says; a column or a joined row leaves out the requests for which it is NULL.

    Raises:
        BadData: the label that is asked for is not the application's, or the data has none for any of the requests.
    """
    request_id = request_id_column(app)
    if app.request_time is None:
        what = f"no timestamp of {app.main} is the time of a request: order a window by it"
        raise BadData(f"{app.folder / 'features.sql'}: {what}")
    columns = request_columns(app, features, data, [app.request_time])
    time_ms = epoch_ms(columns[app.request_time])
    settings = app.settings.label
    chosen = _chosen(features, data, app) if rule == "auto" else rule
    nothing_cut = np.zeros(features.num_rows, bool)
    if chosen == "later-event" and settings.later_event is not None:
        later = settings.later_event
        keys = request_columns(app, features, data, [*later.key.values()])
        rows, true = events_of(app, later, data)
        events = rows.filter(pa.array(true))
        labels = later_event(
            [keys[name] for name in later.key.values()],
            time_ms,
            [events[name] for name in later.key],
            epoch_ms(events[later.time]),
            horizon_of(app),
        )
        last_ms = epoch_ms(rows[later.time]).max(initial=0)
        cut = time_ms + horizon_of(app) > last_ms + SLACK_MS
        return Labelled(features, labels, time_ms, request_id, later.table, 0, 0, cut)
    if chosen == "joined" and settings.joined is not None:
        keys = request_columns(app, features, data, [*settings.joined.key.values()])
        values = joined(app, settings.joined, [keys[name] for name in settings.joined.key.values()], data)
        source, what = settings.joined.table, f"{settings.joined.table}.{settings.joined.column}"
    elif chosen == "column" and settings.column is not None:
        for table in _label_tables(app) & may_be_absent(app):
            if not (data / history_folder(app, table)).exists():
                raise BadData(f"{data / history_folder(app, table)}: there is no such folder to take labels from")
        values = features[settings.column]
        source, what = ", ".join(sorted(_label_tables(app))) or settings.column, settings.column
    else:
        raise BadData(f"{app.folder / 'app.toml'}: its [label] has no {chosen.replace('-', '_')}")
    labels, known, above_one = binary(values, what)
    if not known.any():
        raise BadData(f"{what}: none of the requests has a row in {source}, so none has a label")
    every = Labelled(features, labels, time_ms, request_id, source, int((~known).sum()), above_one, nothing_cut)
    return every if known.all() else every.filter(known)


def _label_tables(app: App) -> set[str]:
    """The tables but the main one that the label's column is made of."""
    origins = {origin.name: set(origin.tables) for origin in app.query.contract.origins}
    return origins.get(app.settings.label.column or "", set()) - {app.main}


def _chosen(features: pa.Table, data: Path, app: App) -> LabelRule:
    """The column where it is not NULL throughout; else what stands in for it, unless the column's table is there."""
    settings = app.settings.label
    other: LabelRule = "later-event" if settings.later_event is not None else "joined"
    if settings.column is None:
        return other
    if features[settings.column].null_count < features.num_rows:
        return "column"
    there = any((data / history_folder(app, table)).exists() for table in _label_tables(app) & may_be_absent(app))
    alone = settings.later_event is None and settings.joined is None
    return "column" if there or alone else other
