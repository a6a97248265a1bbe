"""Which inputs a model of the application has: by the types of the query's columns, and by what app.toml says instead.

| a column                    | its own field                                              | derived ones           |
|-----------------------------|------------------------------------------------------------|------------------------|
| string                      | `category`: an id per text that training saw often         |                        |
| list of `topn_frequency`    | `list_shape`: where the list is empty or padded            | `list_top`, its places |
| bool, whole numbers         | `integer`: bins, one per small number                      |                        |
| a key of windows and joins  | `category`, also of whole numbers                          |                        |
| float, double               | `real`: bins of as many values each                        |                        |
| timestamp, date             | `days_since`: days from it to the request                  | `hour`, `weekday`      |
| the time of the request     | `hour`                                                     | `weekday`              |
| a copy of the request's id  | none: it says nothing                                      |                        |

The kinds are those of `streaming.model.encoder`. Derived fields stand behind their column's own, under its name and
`_hour`, `_weekday`, `_top1` …; with `derive = false` there are none, and lists are texts like others. One of `fields`
of [encoder] with a `name` of its own is a field more, behind those of the columns; without, it says how the column's
own field is made. `leave_out` takes away a column with all of its fields, or a derived one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from streaming.app.features import FeatureQuery
from streaming.app.settings import EncoderField, FieldKind, Settings
from streaming.engine.types import Type

__all__ = ["KINDS", "encoder_fields", "ruled_fields"]

_NUMBERS = frozenset({Type.BOOL, Type.SMALLINT, Type.INT, Type.BIGINT})
_REALS = frozenset({Type.FLOAT, Type.DOUBLE})
_TIMES = frozenset({Type.TIMESTAMP, Type.DATE})

KINDS: Mapping[str, frozenset[Type]] = {
    "category": frozenset({Type.STRING, *_NUMBERS}),
    "list_top": frozenset({Type.STRING}),
    "list_shape": frozenset({Type.STRING}),
    "integer": _NUMBERS,
    "real": _NUMBERS | _REALS,
    "days_since": _TIMES,
    "hour": frozenset({Type.TIMESTAMP}),
    "weekday": _TIMES,
    "hashed": frozenset(Type),
}
"""The types of columns that each kind of field takes."""


def encoder_fields(settings: Settings, query: FeatureQuery, event_time: str | None) -> tuple[EncoderField, ...]:
    """The fields of the model's input, in order, each with its name and kind.

    Args:
        settings: of the application.
        query: its query.
        event_time: the column of the query that is the request's time; None: it answers none.
    """
    given = {field.column: field for field in settings.encoder.fields if field.name in ("", field.column)}
    out = {settings.label.column, *settings.encoder.leave_out}
    fields: list[EncoderField] = []
    for name, _ in query.columns:
        ruled = list(ruled_fields(settings, query, event_time, name)) if name not in out else []
        own = given.get(name)
        if own is not None and name not in out:
            kind = own.kind or (ruled[0].kind if ruled else _kind_of(dict(query.columns)[name]))
            ruled = [msgspec.structs.replace(own, name=name, kind=kind), *ruled[1:]]
        fields += [field for field in ruled if field.name not in out]
    for field in settings.encoder.fields:
        if field.name not in ("", field.column):
            kind = field.kind or _kind_of(dict(query.columns)[field.column])
            fields.append(msgspec.structs.replace(field, kind=kind))
    return tuple(fields)


def ruled_fields(settings: Settings, query: FeatureQuery, event_time: str | None, name: str) -> Iterator[EncoderField]:
    """The fields of a column by the rules alone: its own, then those derived of it."""
    kind = dict(query.columns)[name]
    echoed = dict(query.contract.echoes).get(name)
    if echoed == settings.request.id:
        return
    derive = settings.encoder.derive
    length = next(origin.list_length for origin in query.contract.origins if origin.name == name) if derive else 0
    is_event_time = event_time is not None and echoed == dict(query.contract.echoes)[event_time]
    keys = {column for read in query.contract.reads for column in read.request}
    if length:
        yield EncoderField(column=name, name=name, kind="list_shape")
        for place in range(1, length + 1):
            yield EncoderField(column=name, name=f"{name}_top{place}", kind="list_top", place=place)
    elif kind in _TIMES:
        if not is_event_time:
            yield EncoderField(column=name, name=name, kind="days_since")
        if kind == Type.TIMESTAMP and (derive or is_event_time):
            own = name if is_event_time else f"{name}_hour"
            yield EncoderField(column=name, name=own, kind="hour")
        if derive:
            yield EncoderField(column=name, name=f"{name}_weekday", kind="weekday")
    elif kind in _NUMBERS and echoed in keys:
        yield EncoderField(column=name, name=name, kind="category")
    else:
        yield EncoderField(column=name, name=name, kind=_kind_of(kind))


def _kind_of(kind: Type) -> FieldKind:
    if kind in _NUMBERS:
        return "integer"
    if kind in _REALS:
        return "real"
    if kind in _TIMES:
        return "days_since"
    return "category" if kind == Type.STRING else "hashed"
