"""Holds what was served against what is computed offline for the same requests, and reports any difference.

    jd-intent-batch parity --served FILE --offline FILE [--encoder DIR] [--app FOLDER] [--plot FILE.svg]

Both tables have a request id and features by name and, where they have it, a probability, under any of the names that
the application, its scores and `evaluate` have for them. Requests are joined by id. With an encoder the ids that the
model saw are compared too, by field.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch.plots.parity import write_parity
from streaming.app.folder import App
from streaming.app.settings import PROBABILITY
from streaming.errors import BadInput
from streaming.model.encoder import Encoder

__all__ = ["Difference", "Names", "Report", "compare", "draw", "names_of", "read_rows"]

PROBABILITY_TOLERANCE = 1e-6  # batches of another size add floats in another order
EXAMPLES = 5


class Names(msgspec.Struct, frozen=True):
    """What the columns are called that are not compared as features; the first of each that a table has counts.

    Attributes:
        ids: of the request.
        probabilities: of its score.
    """

    ids: tuple[str, ...]
    probabilities: tuple[str, ...]


class Difference(msgspec.Struct, frozen=True):
    """One request whose column differs.

    Attributes:
        request_id: which.
        served, offline: both values, as text.
    """

    request_id: str
    served: str
    offline: str


class ColumnReport(msgspec.Struct, frozen=True):
    """One column's differences.

    Attributes:
        column: its name.
        count: how many.
        first: the first of them.
    """

    column: str
    count: int
    first: list[Difference]


class Report(msgspec.Struct, frozen=True):
    """What was compared and what differs.

    Attributes:
        requests: that are on both sides.
        only_served, only_offline: requests that one side lacks.
        repeated_served, repeated_offline: rows whose request came before on their side.
        compared: names of the columns.
        columns: those with a difference only.
    """

    requests: int
    only_served: int
    only_offline: int
    repeated_served: int
    repeated_offline: int
    compared: list[str]
    columns: list[ColumnReport]

    @property
    def equal(self) -> bool:
        """Whether each request was on both sides, once, with the same values, and something was compared."""
        lost = self.only_served + self.only_offline + self.repeated_served + self.repeated_offline
        return not lost and not self.columns and self.requests > 0 and bool(self.compared)

    def text(self) -> str:
        """The report for a reader."""
        lines = [f"{self.requests:,} requests on both sides, {len(self.compared)} columns compared"]
        for count, what in (
            (self.only_served, "requests were served only"),
            (self.only_offline, "requests are offline only"),
            (self.repeated_served, "served rows repeat a request id"),
            (self.repeated_offline, "offline rows repeat a request id"),
        ):
            if count:
                lines.append(f"{count:,} {what}")
        for column in self.columns:
            lines.append(f"{column.column}: {column.count:,} differ")
            lines += [f"  {one.request_id}: served {one.served}, offline {one.offline}" for one in column.first]
        if self.equal:
            lines.append("no difference")
        return "\n".join(lines)


def names_of(app: App) -> Names:
    """The names of an application: of its query, of its main table, of its scores, and of `evaluate`."""
    key, fields = app.settings.request.id, app.settings.scores.fields
    ids = [app.echo(key) or key, key, *(name for name, source in fields.items() if source == key), "request_id"]
    probabilities = [*(name for name, source in fields.items() if source == PROBABILITY), "probability"]
    return Names(tuple(dict.fromkeys(ids)), tuple(dict.fromkeys(probabilities)))


def read_rows(path: Path, names: Names) -> pa.Table:
    """A parquet file, or all of a folder.

    Raises:
        BadInput: not readable, or without a request id.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: not readable as parquet: {error}") from error
    if not any(name in table.column_names for name in names.ids):
        raise BadInput(f"{path}: no request id; one of the columns {', '.join(names.ids)} must be there")
    return table


def compare(served: pa.Table, offline: pa.Table, names: Names, encoder: Encoder | None = None) -> Report:
    """Compares two tables of the same requests.

    Every column that both have is compared (NULL equals NULL, NaN equals NaN, else exactly; probabilities within
    `PROBABILITY_TOLERANCE`); with an encoder the ids of every field too. Of a repeated request id the first row counts.

    Raises:
        ArtifactMismatch: the encoder does not fit a table.
    """
    pairs = _pairs(served, offline, names)
    left, right, requests = pairs.served, pairs.offline, pairs.requests
    compared: list[str] = []
    reports: list[ColumnReport] = []

    def look(column: str, a: pa.Array, b: pa.Array, differs: NDArray[np.bool_]) -> None:
        compared.append(column)
        rows = np.flatnonzero(differs)
        if len(rows):
            first = [
                Difference(str(requests[r].as_py()), repr(a[r].as_py()), repr(b[r].as_py())) for r in rows[:EXAMPLES]
            ]
            reports.append(ColumnReport(column, len(rows), first))

    for column in served.column_names:
        if column in offline.column_names and column not in (*names.ids, *names.probabilities):
            a, b = _comparable(left[column]), _comparable(right[column])
            look(column, a, b, _differs(a, b))
    if (scores := _probabilities(pairs, names)) is not None:
        a, b = scores
        x, y = _floats(a), _floats(b)
        look(names.probabilities[0], a, b, ~np.isclose(x, y, rtol=0, atol=PROBABILITY_TOLERANCE, equal_nan=True))
    if encoder is not None:
        x_ids, y_ids = encoder.encode(left), encoder.encode(right)
        for number, field in enumerate(encoder.fields):
            m, n = x_ids[:, number], y_ids[:, number]
            look(f"id of {field.name}", pa.array(m), pa.array(n), m != n)
    return Report(
        requests=len(requests),
        only_served=pairs.distinct_served - len(requests),
        only_offline=pairs.distinct_offline - len(requests),
        repeated_served=served.num_rows - pairs.distinct_served,
        repeated_offline=offline.num_rows - pairs.distinct_offline,
        compared=compared,
        columns=reports,
    )


def draw(file: Path, served: pa.Table, offline: pa.Table, names: Names, report: Report) -> None:
    """Writes plots of what `compare` was given as one SVG file: probabilities side by side, columns that differ."""
    found = _probabilities(_pairs(served, offline, names), names)
    probabilities = None if found is None else (_floats(found[0]), _floats(found[1]), PROBABILITY_TOLERANCE)
    differing = [(column.column, column.count) for column in report.columns]
    note = "no difference" if report.equal else f"{len(differing)} columns differ"
    title = f"{report.requests:,} requests, served beside offline"
    write_parity(file, title, f"{len(report.compared)} columns compared: {note}", probabilities, differing)


@dataclass(frozen=True)
class _Pairs:
    """Requests that are on both sides, row by row; and how many distinct ones each side has."""

    served: pa.Table
    offline: pa.Table
    requests: pa.Array
    distinct_served: int
    distinct_offline: int


def _pairs(served: pa.Table, offline: pa.Table, names: Names) -> _Pairs:
    served_ids, offline_ids = _request_ids(served, names), _request_ids(offline, names)
    served_first, offline_first = _firsts(served_ids), _firsts(offline_ids)
    at = pc.index_in(served_ids.take(served_first), offline_ids.take(offline_first))
    both = pc.is_valid(at)
    return _Pairs(
        served.take(served_first.filter(both)),
        offline.take(offline_first.take(at.filter(both))),
        served_ids.take(served_first).filter(both),
        len(served_first),
        len(offline_first),
    )


def _probabilities(pairs: _Pairs, names: Names) -> tuple[pa.Array, pa.Array] | None:
    """Of both sides; None: one has none."""
    tables = pairs.served, pairs.offline
    columns = [next((name for name in names.probabilities if name in t.column_names), None) for t in tables]
    if columns[0] is None or columns[1] is None:
        return None
    return _comparable(pairs.served[columns[0]]), _comparable(pairs.offline[columns[1]])


def _floats(column: pa.Array) -> NDArray[np.float64]:
    """NULL as NaN."""
    found: NDArray[np.float64] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return found


def _request_ids(table: pa.Table, names: Names) -> pa.Array:
    name = next(name for name in names.ids if name in table.column_names)
    return _comparable(table[name])


def _firsts(ids: pa.Array) -> pa.Array:
    """The first row of each distinct id, in order."""
    codes = ids.dictionary_encode(null_encoding="encode").indices.to_numpy(zero_copy_only=False)
    return pa.array(np.sort(np.unique(codes, return_index=True)[1]))


def _comparable(column: pa.ChunkedArray) -> pa.Array:
    """One array; timestamps as epoch ms whatever their unit, strings and numbers as they are."""
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if pa.types.is_timestamp(array.type):
        return array.cast(pa.timestamp("ms"), safe=False)
    return array.cast(pa.string()) if pa.types.is_large_string(array.type) else array


def _differs(a: pa.Array, b: pa.Array) -> NDArray[np.bool_]:
    if a.type != b.type:
        return np.ones(len(a), bool)  # another type is another feature, whatever the values
    nulls: NDArray[np.bool_] = pc.xor(pc.is_null(a), pc.is_null(b)).to_numpy(zero_copy_only=False)
    unequal = pc.fill_null(pc.not_equal(a, b), False).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(a.type):
        both_nan = pc.fill_null(pc.and_(pc.is_nan(a), pc.is_nan(b)), False).to_numpy(zero_copy_only=False)
        unequal = unequal & ~both_nan
    differs: NDArray[np.bool_] = nulls | unequal
    return differs
