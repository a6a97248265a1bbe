"""Fits the encoder (`streaming.model.encoder`) on the training part: which values keep an id, where bins begin.

Which column becomes which field is said by the application (`streaming.app.encoder_fields`); what is fitted here of a
field can be said in its app.toml, too: `count_min`, `bins`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streaming.app.folder import App, load_app
from streaming.app.settings import EncoderField
from streaming.engine.types import Type
from streaming.errors import ArtifactMismatch, BadInput
from streaming.model.encoder import (
    DAY_MS,
    Binned,
    Category,
    Encoder,
    Field,
    Hashed,
    ListShape,
    ListTop,
    speller,
    value_id,
)
from streaming.shipped_files import app_folder

__all__ = ["Encoding", "FieldReport", "FittedEncoder", "fit", "fit_encoder", "seed_order"]

Encoding: TypeAlias = Literal["typed", "seed"]

# How often training must see a value for it to keep its id: often enough to hold some positives, at a few per cent.
# What is rarer shares the rare id, which cold values then find trained.
#
# What names users, products and pairs of them needs more. The requests of a pair share their label, so a model that can
# tell pairs apart learns the training labels by heart: on a generated world (258,000 training requests) the DeepFM's
# test AUC was 0.79 with a minimum of 5 for all, 0.83 with 150 for users and 50 for products, 0.85 with these. The same
# holds for fine bins of a user's or product's age: together they are a name.
SEEN_MIN = 50
SEEN_MIN_IDENTITY = 300
# A category names individuals where it has so many values, and the mean one is seen less often than SEEN_MIN. It names
# the requests themselves where most values are seen once: no value would ever come again.
IDENTITIES_MIN = 100
AGE_BINS = 8
REAL_BINS = 16
INTEGER_EXACT = 32  # integers below have a bin each, from there two bins per doubling
COUNTS_FROM_MAX = 1024  # whole numbers that all lie above, or of which one lies below -INTEGER_EXACT, are no counts
INTEGER_BOUND = float(1 << 62)


@dataclass(frozen=True)
class FieldReport:
    """What came of a field.

    Attributes:
        name, kind: the field's.
        distinct: values of its column in what it was fitted on.
        missing: rows where the column is NULL (or NaN).
        kept: values that have an id of their own, or bins; 0: the field was left out.
        note: how the cut was chosen, or why it was left out; '': as app.toml says, or by the rule for all.
    """

    name: str
    kind: str
    distinct: int
    missing: int
    kept: int
    note: str = ""


@dataclass(frozen=True)
class FittedEncoder:
    """An encoder, and what came of each field of the application, in order."""

    encoder: Encoder
    fields: tuple[FieldReport, ...]


def seed_order(app: App) -> list[str]:
    """The columns of the query but the label, as the seed system orders them: wide numbers first, then the others."""
    columns = [(name, kind) for name, kind in app.query.columns if name != app.settings.label.column]
    wide = (Type.BIGINT, Type.FLOAT, Type.DOUBLE)
    return [name for name, kind in columns if kind in wide] + [name for name, kind in columns if kind not in wide]


def fit(features: pa.Table, encoding: Encoding = "typed", app: App | None = None) -> Encoder:
    """See `fit_encoder`; app: None: the tutorial's shop."""
    return fit_encoder(features, app or load_app(app_folder()), encoding).encoder


def fit_encoder(features: pa.Table, app: App, encoding: Encoding = "typed") -> FittedEncoder:
    """Fits the encoder on the training part's features.

    `encoding="seed"` is the seed system's: all columns that are not the label, each value hashed as it comes; its table
    sizes are those of `features`, so give it all of them to reproduce the tutorial's table size array.

    Args:
        features: the columns of the application's query, any number of rows.
        app: says which fields there are.

    Raises:
        ArtifactMismatch: a column is missing or of another type.
        BadInput: no field is left.
    """
    fitting = _Fit(features, app)
    if encoding == "seed":
        for column in seed_order(app):
            fitting.add(Hashed(column, column))
    else:
        for field in app.encoder_fields:
            fitting.field(field)
    return fitting.fitted()


class _Fit:
    """One fit: fields are added in order, the ids they keep go to one vocabulary."""

    def __init__(self, features: pa.Table, app: App) -> None:
        self._features = features
        self._app = app
        self._fields: list[Field] = []
        self._vocabulary: list[NDArray[np.int64]] = []
        self._kept = 0
        self._left_out: dict[int, FieldReport] = {}  # by its place among the reports
        self._notes: dict[str, str] = {}
        self._distinct: dict[str, int] = {}

    def field(self, field: EncoderField) -> None:
        """Fits a field of the application."""
        name, column = field.name, field.column
        event_time = self._app.event_time or ""
        match field.kind:
            case "category":
                self._category(field)
            case "list_top":
                self._keep(ListTop(name, column, (0, 0), field.place or 1), self._cut(field) or SEEN_MIN)
            case "list_shape":
                lengths = {origin.name: origin.list_length for origin in self._app.query.contract.origins}
                self.add(ListShape(name, column, lengths[column] or 3))
            case "integer":
                self._integer(field)
            case "real":
                self.add(Binned(name, column, "real", field.bins or _real_starts(self._reals(column), REAL_BINS)))
            case "days_since":
                bins = field.bins or _real_starts(self._days(column, event_time), AGE_BINS)
                self.add(Binned(name, column, "days_since", bins, event_time))
            case "hour":
                self.add(Binned(name, column, "hour", field.bins or [float(hour) for hour in range(24)]))
            case "weekday":
                self.add(Binned(name, column, "weekday", field.bins or [float(day) for day in range(1, 8)]))
            case _:
                self.add(Hashed(name, column))

    def add(self, field: Field) -> None:
        """A field that is fitted."""
        self._fields.append(field)

    def fitted(self) -> FittedEncoder:
        """The encoder, knowing how many distinct ids each field has in the features."""
        if not self._fields:
            raise BadInput("no field of the model is left: every column of the query names the requests themselves")
        zone = self._app.settings.time_zone
        vocabulary = np.concatenate([np.empty(0, np.int64), *self._vocabulary])
        ids = Encoder(self._fields, vocabulary, [0] * len(self._fields), zone).encode(self._features)
        sizes = [len(np.unique(ids[:, at])) for at in range(ids.shape[1])]
        reports = [self._report(field, size) for field, size in zip(self._fields, sizes, strict=True)]
        for place, report in self._left_out.items():
            reports.insert(place, report)
        return FittedEncoder(Encoder(self._fields, vocabulary, sizes, zone), tuple(reports))

    def _report(self, field: Field, size: int) -> FieldReport:
        column = self._column(field.column)
        missing = column.null_count
        if pa.types.is_floating(column.type):
            missing += pc.sum(pc.is_nan(column)).as_py() or 0
        if field.column not in self._distinct:
            self._distinct[field.column] = pc.count_distinct(column).as_py()
        kept, kind = size, "hashed"
        match field:
            case Binned():
                kept, kind = len(field.starts), field.of
            case Category():
                kept, kind = field.known[1] - field.known[0], "category"
            case ListTop():
                kept, kind = field.known[1] - field.known[0], f"list_top {field.place}"
            case ListShape():
                kind = "list_shape"
        distinct = self._distinct[field.column]
        return FieldReport(field.name, kind, distinct, missing, kept, self._notes.get(field.name, ""))

    def _cut(self, field: EncoderField) -> int | None:
        return field.count_min or self._app.settings.encoder.count_min

    def _category(self, field: EncoderField) -> None:
        kind = dict(self._app.query.columns)[field.column]
        column = self._column(field.column)
        cut = self._cut(field)
        if cut is None:
            seen = len(column) - column.null_count
            distinct = pc.count_distinct(column, mode="only_valid").as_py()
            self._distinct[field.column] = distinct
            cut = SEEN_MIN
            if distinct >= IDENTITIES_MIN and 2 * distinct > seen:
                note = f"left out: {distinct:,} values in {seen:,} rows name the requests (a count_min keeps it)"
                report = FieldReport(field.name, "category", distinct, column.null_count, 0, note)
                self._left_out[len(self._fields) + len(self._left_out)] = report
                return
            if distinct >= IDENTITIES_MIN and SEEN_MIN * distinct > seen:
                cut = SEEN_MIN_IDENTITY
                self._notes[field.name] = f"names individuals: an id from {cut} rows on"
        of: Literal["text", "whole"] = "text" if kind == Type.STRING else "whole"
        self._keep(Category(field.name, field.column, (0, 0), of), cut)

    def _integer(self, field: EncoderField) -> None:
        """Bins; but numbers so long that a bin's bound cannot tell them apart are names, and each has an id."""
        values = self._whole(field.column)
        if field.bins is None and len(np.unique(values)) > len(np.unique(values.astype(np.float64))):
            self._category(field)
            told = self._notes.get(field.name)
            self._notes[field.name] = "; ".join(filter(None, ["too long for bins", told]))
        else:
            self.add(Binned(field.name, field.column, "integer", field.bins or _integer_starts(values)))

    def _keep(self, field: Category | ListTop, seen_min: int) -> None:
        spell = speller(field)
        texts, counts = pc.value_counts(pc.drop_null(self._column(field.column))).flatten()
        raw = np.array([value_id(spell(text)) for text in texts.to_pylist()], np.int64)
        ids, at = np.unique(raw, return_inverse=True)
        kept = ids[np.bincount(at, counts.to_numpy(), minlength=len(ids)) >= seen_min]
        known = (self._kept, self._kept + len(kept))
        if isinstance(field, Category):
            self.add(Category(field.name, field.column, known, field.of))
        else:
            self.add(ListTop(field.name, field.column, known, field.place))
        self._vocabulary.append(kept)
        self._kept += len(kept)

    def _column(self, name: str) -> pa.ChunkedArray:
        if name not in self._features.column_names:
            raise ArtifactMismatch(f"the encoder needs column {name}, the features do not have it")
        return self._features[name]

    def _whole(self, column: str) -> NDArray[np.int64]:
        values: NDArray[np.int64] = pc.cast(pc.drop_null(self._column(column)), pa.int64()).to_numpy()
        return values

    def _reals(self, column: str) -> NDArray[np.float32]:
        values = pc.drop_null(self._column(column))
        if not pa.types.is_floating(values.type):
            values = pc.cast(pc.cast(values, pa.int64()), pa.float64(), safe=False)
        with np.errstate(over="ignore"):  # beyond a float: infinite
            found: NDArray[np.float32] = values.to_numpy().astype(np.float32)
        finite: NDArray[np.float32] = found[np.isfinite(found)]
        return finite

    def _days(self, column: str, event_time: str) -> NDArray[np.float32]:
        event, time = (
            pc.cast(pc.cast(self._column(name), pa.timestamp("ms"), safe=False), pa.int64())
            for name in (event_time, column)
        )
        days: NDArray[np.float32] = (pc.drop_null(pc.subtract(event, time)).to_numpy() / DAY_MS).astype(np.float32)
        return days


def _integer_starts(values: NDArray[np.int64]) -> list[float]:
    """Bins of an integer, none above the greatest that training saw: a greater one falls into its bin.

    Counts get a bin per small number and two per doubling; other numbers (times, amounts, ids) quantile bins.
    """
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    if not -INTEGER_EXACT <= low <= COUNTS_FROM_MAX:
        distinct = np.unique(values).astype(np.float64)
        if len(distinct) > REAL_BINS:
            distinct = np.quantile(values, np.arange(REAL_BINS) / REAL_BINS, method="inverted_cdf").astype(np.float64)
        return [float(start) for start in np.unique(np.clip(distinct, -INTEGER_BOUND, INTEGER_BOUND))]
    exact = list(range(low, min(high, INTEGER_EXACT) + 1)) or [INTEGER_EXACT]
    doubling = [round(INTEGER_EXACT * 2 ** (half / 2)) for half in range(1, 63)]
    return [float(start) for start in exact + [start for start in doubling if max(low, exact[-1]) < start <= high]]


def _real_starts(values: NDArray[np.float32], bins: int) -> list[float]:
    """Quantile bins; where training saw fewer distinct values than `bins`, one bin each."""
    if not len(values):
        return [0.0]
    distinct = np.unique(values)
    if len(distinct) > bins:
        distinct = np.unique(np.quantile(values, np.arange(bins) / bins, method="inverted_cdf"))
    return [float(start) for start in distinct]
