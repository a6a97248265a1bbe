"""Which inputs a model of the application has: by the types of the query's columns, and by what app.toml says instead.

| type of a column     | field                                               |
|----------------------|-----------------------------------------------------|
| string               | `category`: an id per text that training saw often  |
| bool, whole numbers  | `integer`: bins, one per small number               |
| float, double        | `real`: bins of as many values each                 |
| timestamp            | `days_since`: days from it to the event             |
| date                 | `hashed`: an id per value                           |

The kinds are those of `streaming.model.encoder`. One of `fields` of [encoder] with a `name` of its own is a field
more, behind those of the columns; without, it says how the column's own field is made. `leave_out` takes a column's own
field away.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from streaming.app.features import FeatureQuery
from streaming.app.settings import EncoderField, Settings
from streaming.engine.types import Type

__all__ = ["KINDS", "encoder_fields"]

_NUMBERS = frozenset({Type.BOOL, Type.SMALLINT, Type.INT, Type.BIGINT})
_REALS = frozenset({Type.FLOAT, Type.DOUBLE})

KINDS: Mapping[str, frozenset[Type]] = {
    "category": frozenset({Type.STRING, *_NUMBERS}),
    "list_top": frozenset({Type.STRING}),
    "list_shape": frozenset({Type.STRING}),
    "integer": _NUMBERS,
    "real": _NUMBERS | _REALS,
    "days_since": frozenset({Type.TIMESTAMP}),
    "hour": frozenset({Type.TIMESTAMP}),
    "hashed": frozenset(Type),
}
"""The types of columns that each kind of field takes."""


def encoder_fields(settings: Settings, query: FeatureQuery) -> tuple[EncoderField, ...]:
    """The fields of the model's input, in order, each with its name and kind.

    Args:
        settings: of the application.
        query: its query.
    """
    kinds = dict(query.columns)
    given = {field.column: field for field in settings.encoder.fields if field.name in ("", field.column)}
    out = {settings.label.column, *settings.encoder.leave_out}
    fields = [given.get(name, EncoderField(column=name)) for name in kinds if name not in out]
    fields += [field for field in settings.encoder.fields if field.name not in ("", field.column)]
    return tuple(
        msgspec.structs.replace(
            field, name=field.name or field.column, kind=field.kind or _kind_of(kinds[field.column])
        )
        for field in fields
    )


def _kind_of(kind: Type) -> str:
    if kind in _NUMBERS:
        return "integer"
    if kind in _REALS:
        return "real"
    return {Type.STRING: "category", Type.TIMESTAMP: "days_since"}.get(kind, "hashed")
