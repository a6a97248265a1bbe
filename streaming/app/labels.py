"""The label and the columns that app.toml names, held against tables and feature query."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from streaming.app.encoder_fields import KINDS, encoder_fields, ruled_fields
from streaming.app.features import FeatureQuery, Tables
from streaming.app.names import field_fault
from streaming.app.settings import MODEL_VERSION, PROBABILITY, EncoderField, Settings, key_place
from streaming.app.wrong import AppFile, WrongApp
from streaming.engine import UnsupportedSQL
from streaming.engine.projection import Projection
from streaming.engine.sql import syntax
from streaming.engine.sql.parse import parse_select
from streaming.engine.storage.table import Column
from streaming.engine.types import Type, is_number

__all__ = ["check_settings", "feature_columns"]

_CALLED_MAX = 40


def feature_columns(settings: Settings, query: FeatureQuery) -> tuple[str, ...]:
    """The columns of the query that can be inputs of the model: all but the label, and what the encoder leaves out."""
    out = {settings.label.column, *settings.encoder.leave_out}
    return tuple(name for name, _ in query.columns if name not in out)


def check_settings(
    file: AppFile, settings: Settings, tables: Tables, query: FeatureQuery, features: AppFile, event_time: str | None
) -> None:
    """Whether what app.toml names is there.

    Args:
        file: app.toml.
        features: features.sql.
        event_time: the column of the query that is the request's time; None: it answers none.

    Raises:
        WrongApp: names the place in app.toml.
    """
    checks = _Checks(file, settings, tables, query, event_time)
    checks.request()
    checks.label()
    checks.encoder()
    for table in settings.history.folders:
        if table not in tables.columns:
            raise checks.wrong(f"unknown table {table}", "history.folders", table)
    fields = encoder_fields(settings, query, event_time)
    if not fields:
        raise WrongApp(features.path, 0, 0, "no features: the query answers nothing but what is left out")
    for field in fields:
        if field.bins is not None:
            checks.bins(field, field.bins)
        if field.kind == "days_since" and event_time is None:
            what = (
                f"{field.column} is a time, and the days since it need the request's own time, which the query does "
                f"not answer: add that column of {query.contract.main} to it, or give the field another kind"
            )
            raise features.wrong(what, query.places.get(field.column, 0))
    checks.names(fields)


class _Checks:
    def __init__(
        self, file: AppFile, settings: Settings, tables: Tables, query: FeatureQuery, event_time: str | None
    ) -> None:
        self.file = file
        self.query = query
        self.event_time = event_time
        self.settings = settings
        self.tables = tables
        self.columns = dict(query.columns)
        self.main = query.contract.main

    def wrong(self, what: str, table: str, key: str = "") -> WrongApp:
        return self.file.wrong(what, key_place(self.file.text, table, key))

    def column(self, table: str, name: str, where: str, key: str) -> Column:
        """A column of a table that is there."""
        for column in self.tables.columns[table]:
            if column.name == name:
                return column
        raise self.wrong(f"unknown column {name} of table {table}", where, key)

    def request(self) -> None:
        column = self.column(self.main, self.settings.request.id, "request", "id")
        if column.type != Type.STRING and not is_number(column.type):
            raise self.wrong(f"{column.name} is a {column.type}: a request's id is a text or a number", "request", "id")
        for name in self.settings.request.example:
            self.column(self.main, name, "request.example", name)
        for field, source in self.settings.scores.fields.items():
            if why := field_fault(field):
                raise self.wrong(why, "scores.fields", field)
            if source.startswith("$"):
                if source not in (PROBABILITY, MODEL_VERSION):
                    what = f"{source} is neither {PROBABILITY} nor {MODEL_VERSION}"
                    raise self.wrong(what, "scores.fields", field)
            else:
                self.column(self.main, source, "scores.fields", field)
        if PROBABILITY not in self.settings.scores.fields.values():
            raise self.wrong(f"no field of a score is {PROBABILITY}", "scores.fields")

    def label(self) -> None:
        label = self.settings.label
        if label.column is None and label.joined is None and label.later_event is None:
            what = "no label: [label] names a column of the feature query, a [label.joined] or a [label.later_event]"
            raise self.wrong(what, "label")
        if label.column is not None:
            kind = self.columns.get(label.column)
            if kind is None:
                raise self.wrong(f"the label {label.column} is no column of the feature query", "label", "column")
            if not (kind == Type.BOOL or is_number(kind)):
                raise self.wrong(f"the label {label.column} is a {kind}, no number", "label", "column")
        if label.joined is not None:
            where = "label.joined"
            self.keys(where, label.joined.table, label.joined.key)
            kind = self.column(label.joined.table, label.joined.column, where, "column").type
            if not (kind == Type.BOOL or is_number(kind)):
                raise self.wrong(f"the label {label.joined.column} is a {kind}, no number", where, "column")
        if label.later_event is not None:
            where = "label.later_event"
            later = label.later_event
            self.keys(where, later.table, later.key)
            kind = self.column(later.table, later.time, where, "time").type
            if kind not in (Type.TIMESTAMP, Type.BIGINT):
                raise self.wrong(f"time {later.time} is a {kind}, no timestamp", where, "time")
            self.condition(later.condition, self.tables.columns[later.table], later.table)

    def keys(self, where: str, table: str, key: Mapping[str, str]) -> None:
        """Columns of a table that must equal columns of the main one."""
        if table not in self.tables.columns:
            raise self.wrong(f"unknown table {table}", where, "table")
        for name, of_request in key.items():
            left = self.column(table, name, where, "key")
            right = self.column(self.main, of_request, where, "key")
            if left.type != right.type:
                what = f"{table}.{name} is a {left.type}, {self.main}.{of_request} a {right.type}: they never match"
                raise self.wrong(what, where, "key")

    def condition(self, text: str, columns: Sequence[Column], table: str) -> None:
        script = f"SELECT {text} FROM {table}"
        try:
            select = parse_select(script)
            if len(select.items) != 1 or isinstance(select.items[0].expr, syntax.Star) or select.where is not None:
                raise self.wrong(f"the condition {text!r} is not one expression", "label.later_event", "condition")
            known = Projection(table, columns, [select.items[0].expr], script).expressions[0]
        except UnsupportedSQL as error:
            what = str(error).partition(" at ")[0]
            raise self.wrong(f"condition: {what}", "label.later_event", "condition") from None
        if known.type != Type.BOOL:
            raise self.wrong(f"the condition {text!r} is a {known.type}", "label.later_event", "condition")

    def bins(self, field: EncoderField, bins: Sequence[float]) -> None:
        """Whether the bins of a field can be."""
        if field.kind not in ("integer", "real", "days_since", "hour", "weekday"):
            raise self.wrong(f"{field.name}: a {field.kind} has no bins", "encoder.fields", "bins")
        if any(not a < b for a, b in itertools.pairwise(bins)) or not all(map(math.isfinite, bins)):
            raise self.wrong(f"{field.name}: its bins do not rise", "encoder.fields", "bins")
        if field.kind not in ("real", "days_since") and any(bound != int(bound) for bound in bins):
            raise self.wrong(
                f"{field.name}: the bins of a {field.kind} begin at whole numbers", "encoder.fields", "bins"
            )

    def encoder(self) -> None:
        encoder = self.settings.encoder
        derived = {
            field.name
            for name in self.columns
            for field in ruled_fields(self.settings, self.query, self.event_time, name)
        }
        for name in encoder.leave_out:
            if name not in self.columns and name not in derived:
                what = f"unknown column {name} of the feature query, and no field of that name"
                raise self.wrong(what, "encoder", "leave_out")
        lists = {origin.name: origin.list_length for origin in self.query.contract.origins}
        seen: set[str] = set()
        for field in encoder.fields:
            if field.column not in self.columns:
                raise self.wrong(f"unknown column {field.column} of the feature query", "encoder.fields", "column")
            kind = self.columns[field.column]
            if field.kind is not None and kind not in KINDS[field.kind]:
                what = f"{field.column} is a {kind}: no {field.kind} is made of it"
                raise self.wrong(what, "encoder.fields", "kind")
            if (field.kind == "list_top") != (field.place is not None):
                raise self.wrong(
                    f"{field.column}: a list_top, and nothing else, has a place", "encoder.fields", "place"
                )
            if field.place is not None and lists[field.column] and field.place > lists[field.column]:
                what = f"{field.column} names {lists[field.column]} values: there is no place {field.place}"
                raise self.wrong(what, "encoder.fields", "place")
            name = field.name or field.column
            if name in derived and name != field.column:
                what = f"two fields of the name {name}: the rules derive one, which leave_out can take away"
                if name not in encoder.leave_out:
                    raise self.wrong(what, "encoder.fields")
            if name in seen or (name != field.column and name in self.columns):
                raise self.wrong(f"two fields of the name {name}", "encoder.fields")
            seen.add(name)

    def names(self, fields: Sequence[EncoderField]) -> None:
        """Whether all that [names] calls otherwise is there."""
        known = {*self.settings.scores.fields, *self.columns, *(field.name for field in fields)}
        known |= {column.name for columns in self.tables.columns.values() for column in columns}
        for name, called in self.settings.names.items():
            if name not in known:
                raise self.wrong(f"no column or field is called {name}", "names", name)
            if not 0 < len(called.strip()) == len(called) <= _CALLED_MAX or not called.isprintable():
                what = (
                    f"{name} is called {called!r}: 1 to {_CALLED_MAX} characters, without line breaks or outer blanks"
                )
                raise self.wrong(what, "names", name)
