"""The tree that `parse` makes of a script. `at` is always the node's offset in the script."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Union

from streaming.engine.types import Type

__all__ = [
    "Between",
    "Binary",
    "Call",
    "Case",
    "Cast",
    "ColumnDef",
    "CreateDatabase",
    "CreateIndex",
    "CreateTable",
    "Deploy",
    "Drop",
    "Expr",
    "Frame",
    "In",
    "IndexDef",
    "Insert",
    "IsNull",
    "Item",
    "Join",
    "Like",
    "Literal",
    "LoadData",
    "Name",
    "Outfile",
    "Over",
    "Select",
    "Set",
    "Source",
    "Star",
    "Statement",
    "SubSelect",
    "TableRef",
    "Unary",
    "Use",
    "Window",
]


@dataclass(frozen=True)
class Literal:
    """A constant: None, bool, int, float or str. `type` is what OpenMLDB takes it for."""

    value: object
    type: Type
    at: int


@dataclass(frozen=True)
class Name:
    """A column: `column`, `table.column` or `db.table.column`."""

    parts: tuple[str, ...]
    at: int


@dataclass(frozen=True)
class Star:
    """`*` or `table.*`."""

    table: str | None
    at: int


@dataclass(frozen=True)
class Unary:
    """`-x`, `!x` / `not x`, `~x`: operator `-`, `not` or `~`."""

    operator: str
    operand: Expr
    at: int


@dataclass(frozen=True)
class Binary:
    """An infix operator, in lower case, `=` never spelled `==`."""

    operator: str
    left: Expr
    right: Expr
    at: int


@dataclass(frozen=True)
class Call:
    """A function call, its name in lower case."""

    function: str
    arguments: tuple[Expr, ...]
    at: int


@dataclass(frozen=True)
class Cast:
    """`cast(x as t)`, `t(x)` for a type name t."""

    operand: Expr
    type: Type
    at: int


@dataclass(frozen=True)
class Case:
    """`case [operand] when … then … else … end`."""

    operand: Expr | None
    whens: tuple[tuple[Expr, Expr], ...]
    otherwise: Expr | None
    at: int


@dataclass(frozen=True)
class IsNull:
    """`x is [not] null`."""

    operand: Expr
    negated: bool
    at: int


@dataclass(frozen=True)
class In:
    """`x [not] in (…)`."""

    operand: Expr
    choices: tuple[Expr, ...]
    negated: bool
    at: int


@dataclass(frozen=True)
class Between:
    """`x [not] between low and high`."""

    operand: Expr
    low: Expr
    high: Expr
    negated: bool
    at: int


@dataclass(frozen=True)
class Like:
    """`x [not] like|ilike|rlike pattern [escape e]`."""

    kind: str
    operand: Expr
    pattern: Expr
    escape: Expr | None
    negated: bool
    at: int


@dataclass(frozen=True)
class Over:
    """`expression over window`: every aggregate inside the expression is over that window."""

    operand: Expr
    window: str | Window
    at: int


Expr = Union[  # noqa: UP007 -- the operator does not take forward references
    Literal, Name, Star, Unary, Binary, Call, Cast, Case, IsNull, In, Between, Like, Over
]


@dataclass(frozen=True)
class Frame:
    """A window frame, both bounds as distances back from the request row.

    Attributes:
        rows: ROWS (bounds are rows) or ROWS_RANGE (bounds are milliseconds, inclusive after open bounds were moved).
        start: the far bound; None is UNBOUNDED.
        end: the near bound; 0 is CURRENT ROW.
        maxsize: at most so many rows, the newest; 0 is no limit.
        following: whether the frame was to go on behind the request, where there are no rows yet.
    """

    rows: bool
    start: int | None
    end: int
    maxsize: int
    following: bool = False


@dataclass(frozen=True)
class Window:
    """A window specification.

    Attributes:
        unions: the tables of its UNION.
        partition: the columns of PARTITION BY.
        order, descending: the column of ORDER BY, and whether DESC is behind it; None: there is none.
        frame: which of the rows; without one all of them.
        instance_not_in_window: whether the rows of the main table are out, but for the request's.
        exclude_current_row, exclude_current_time: whether the request's row, or other rows of its time, are out.
    """

    unions: tuple[Source, ...]
    partition: tuple[Name, ...]
    order: Name | None
    descending: bool
    frame: Frame
    instance_not_in_window: bool
    exclude_current_row: bool
    exclude_current_time: bool
    at: int


@dataclass(frozen=True)
class TableRef:
    """`[db.]table [as alias]`."""

    name: tuple[str, ...]
    alias: str | None
    at: int


@dataclass(frozen=True)
class SubSelect:
    """`(select … [union all select …]) [as alias]`; `more`: the selects after the first."""

    select: Select
    alias: str | None
    at: int
    more: tuple[Select, ...] = ()


Source = Union[  # noqa: UP007 -- the operator does not take forward references
    TableRef, SubSelect
]


@dataclass(frozen=True)
class Join:
    """`last|left join source [order by column [asc|desc]] on condition`."""

    kind: str
    source: Source
    order: Name | None
    descending: bool
    condition: Expr
    at: int


@dataclass(frozen=True)
class Item:
    """One select item: `expr [as alias]`; `text` is its name where it has no alias."""

    expr: Expr
    alias: str | None
    text: str
    at: int


@dataclass(frozen=True)
class Select:
    """A SELECT.

    Attributes:
        items: what it selects.
        source: what it reads FROM; None: nothing.
        joins: in order.
        where: the condition; None: there is none.
        windows: those of its WINDOW clause, and their names.
        limit: the most rows; None: all.
        distinct: whether it is SELECT DISTINCT.
        keywords: bare names, in it and in what is in it, that OpenMLDB reads as none, as `index` and `é`: offset and
            word.
    """

    items: tuple[Item, ...]
    source: Source | None
    joins: tuple[Join, ...]
    where: Expr | None
    windows: tuple[tuple[str, Window], ...]
    limit: int | None
    at: int
    distinct: bool = False
    keywords: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class ColumnDef:
    """A column of CREATE TABLE: `name type [not null] [default value]`."""

    name: str
    type: Type
    nullable: bool
    default: Literal | None
    at: int


@dataclass(frozen=True)
class IndexDef:
    """`index(key=…, ts=…, ttl=…, ttl_type=…)`: `ttl` is (milliseconds, rows), 0: no limit."""

    key: tuple[str, ...]
    ts: str | None
    ttl: tuple[int, int]
    ttl_type: str
    at: int


@dataclass(frozen=True)
class CreateDatabase:
    """`create database [if not exists] name`."""

    name: str
    if_not_exists: bool
    at: int


@dataclass(frozen=True)
class Use:
    """`use name`: the database in which a table's name alone is looked up."""

    name: str
    at: int


@dataclass(frozen=True)
class CreateTable:
    """`create table [if not exists] [db.]table (column …, index (…) …)`; `keywords` as of `Select`."""

    name: tuple[str, ...]
    columns: tuple[ColumnDef, ...]
    indexes: tuple[IndexDef, ...]
    if_not_exists: bool
    at: int
    keywords: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class CreateIndex:
    """`create index name on [db.]table (…) [options (…)]`."""

    name: str
    table: tuple[str, ...]
    index: IndexDef
    at: int


@dataclass(frozen=True)
class Insert:
    """`insert [or ignore] into [db.]table [(column …)] values (…) …`; no columns: all of the table's."""

    table: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[Expr, ...], ...]
    ignore: bool
    at: int


@dataclass(frozen=True)
class Set:
    """`set [global | session] name = value`."""

    name: str
    value: object
    at: int


@dataclass(frozen=True)
class Deploy:
    """`deploy [if not exists] name [options (…)] select …`."""

    name: str
    select: Select
    if_not_exists: bool
    at: int
    options: dict[str, object] = field(default_factory=dict, hash=False, compare=False)


@dataclass(frozen=True)
class Drop:
    """`drop kind [if exists] name`: kind is table, database, deployment or index."""

    kind: str
    name: tuple[str, ...]
    if_exists: bool
    at: int


@dataclass(frozen=True)
class LoadData:
    """`load data infile 'path' into table [db.]table [options (…)]`."""

    path: str
    table: tuple[str, ...]
    options: dict[str, object]
    at: int


@dataclass(frozen=True)
class Outfile:
    """`select … into outfile 'path' [options (…)]`."""

    select: Select
    path: str
    options: dict[str, object]
    at: int


Statement = Union[  # noqa: UP007 -- the operator does not take forward references
    CreateDatabase, Use, CreateTable, CreateIndex, Insert, Set, Deploy, Drop, LoadData, Outfile, Select
]
