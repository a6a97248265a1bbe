"""The pydantic model of one request row, derived from the deployment's request schema; nothing is coerced.

Every column must be there. `null` is OpenMLDB's NULL, a key and a value like another; only a timestamp may not be null
or negative: it orders windows, and a request without it would be answered by accident. A column that the table does not
have is refused: it is a misspelt name more often than an idle one.

| OpenMLDB            | JSON                                    |
|---------------------|-----------------------------------------|
| string              | string                                  |
| smallint int bigint | integer in the type's range             |
| float double        | number in the type's range              |
| bool                | true, false                             |
| timestamp           | integer: milliseconds since 1970, UTC   |
| date                | string "YYYY-MM-DD"                     |
"""

from __future__ import annotations

import datetime
from typing import Annotated, Any

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from streaming.engine.types import ARROW, NAMES, Type
from streaming.events.record import TIME_MS_MAX

__all__ = ["request_model", "type_name"]

FLOAT_MAX = 3.4028234663852886e38

_NAMES = {arrow: NAMES[kind] for kind, arrow in ARROW.items() if kind is not Type.NULL}


def type_name(arrow: pa.DataType) -> str:
    """OpenMLDB's name of a column's type; timestamps of any unit are `timestamp`."""
    return "timestamp" if pa.types.is_timestamp(arrow) else _NAMES[arrow]


def _utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair
        raise ValueError(f"not valid Unicode: {error.reason} at character {error.start}") from None
    return text


def _iso_date(text: str) -> str:
    datetime.date.fromisoformat(text)
    return text


def _integer(bits: int) -> Any:
    return Annotated[int, Field(strict=True, ge=-(2 ** (bits - 1)), le=2 ** (bits - 1) - 1)]


_JSON: dict[str, Any] = {
    "string": Annotated[str, Field(strict=True), AfterValidator(_utf8)],
    "smallint": _integer(16),
    "int": _integer(32),
    "bigint": _integer(64),
    "float": Annotated[float, Field(strict=True, ge=-FLOAT_MAX, le=FLOAT_MAX, allow_inf_nan=False)],
    "double": Annotated[float, Field(strict=True, allow_inf_nan=False)],
    "bool": Annotated[bool, Field(strict=True)],
    "date": Annotated[str, Field(strict=True, pattern=r"^\d{4}-\d{2}-\d{2}$"), AfterValidator(_iso_date)],
    "timestamp": Annotated[int, Field(strict=True, ge=0, le=TIME_MS_MAX)],
}


def request_model(name: str, schema: pa.Schema, example: dict[str, Any] | None = None) -> type[BaseModel]:
    """A model whose fields are the columns of `schema`, all required, with their OpenMLDB types as descriptions.

    Args:
        name: the model's name in the OpenAPI page.
        example: a row to show there.
    """
    columns: dict[str, Any] = {}
    for number, column in enumerate(schema):
        kind = type_name(column.type)
        type_ = _JSON[kind] if kind == "timestamp" else _JSON[kind] | None
        # The attribute's name is ours: a column may be called `schema` or `_x`, which pydantic reserves.
        columns[f"column_{number}"] = (type_, Field(alias=column.name, description=f"OpenMLDB {kind}"))
    config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [example]} if example else None)
    return create_model(name, __config__=config, **columns)
