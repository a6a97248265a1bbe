"""The tree of an application's `events.sql`: streams, and what becomes of their records. Engines refuse it.

`at` is always the node's offset in the script.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from streaming.engine.sql.syntax import Expr, Literal, Select
from streaming.engine.types import Type

__all__ = ["Check", "CreateStream", "EventStatement", "InsertSelect", "StreamColumn", "StreamOption"]


@dataclass(frozen=True)
class Check:
    """`[constraint name] check (condition)`.

    Attributes:
        name: of the constraint; None: it has none.
        condition: a row for which it is false is refused.
        text: the condition as it was written.
    """

    name: str | None
    condition: Expr
    text: str
    at: int


@dataclass(frozen=True)
class StreamColumn:
    """A field of a stream's records: `name type [not null] [default value]`.

    Attributes:
        name: of the field.
        type: its type.
        length_max: the n of a VARCHAR(n); None: it says none.
        nullable: whether it may be NULL, or missing.
        default: what it is where it is missing; None: NULL.
    """

    name: str
    type: Type
    length_max: int | None
    nullable: bool
    default: Literal | None
    at: int


@dataclass(frozen=True)
class StreamOption:
    """One `name = value` of WITH: the name in lower case, the value a text, a whole number or a bool."""

    name: str
    value: str | int | bool
    at: int


@dataclass(frozen=True)
class CreateStream:
    """`create table name (columns, checks) with (options)`."""

    name: str
    columns: tuple[StreamColumn, ...]
    checks: tuple[Check, ...]
    options: tuple[StreamOption, ...]
    at: int


@dataclass(frozen=True)
class InsertSelect:
    """`insert into [db.]table [(column …)] select …`.

    Attributes:
        table: where the rows go.
        columns: those that the items of the SELECT are, in order; empty: the items' names say it.
        select: what the rows are.
    """

    table: tuple[str, ...]
    columns: tuple[str, ...]
    select: Select
    at: int


EventStatement = Union[  # noqa: UP007 -- as in `syntax`
    CreateStream, InsertSelect
]
