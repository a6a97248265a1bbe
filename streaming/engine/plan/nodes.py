"""Typed expressions, after names were resolved: what `program` turns into instructions.

Nodes compare by value, so that the same expression is computed once. Tables in a query (`QueryTable`) compare by
identity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Union

from streaming.engine.kernels.instructions import FrequencyKind, Op
from streaming.engine.storage.table import Table
from streaming.engine.types import Type

__all__ = [
    "Aggregate",
    "Apply",
    "ColumnNode",
    "Const",
    "Joined",
    "Missing",
    "Node",
    "OwnRowPlace",
    "PythonAggregate",
    "PythonCall",
    "QueryTable",
    "Source",
    "WindowColumn",
    "WindowGroup",
    "under",
]


@dataclass(eq=False)
class QueryTable:
    """One table in a query: the request's (`joined` is None and no group has it), a join's or a window's.

    Attributes:
        table: the table.
        joined: how the row of a joined table is found.
        to: the table to whose rows it is joined; None: to the request's.
        several: whether a LEFT JOIN finds it: several rows may match, of which the newest stands for all.
    """

    table: Table
    joined: Joined | None = None
    to: QueryTable | None = None
    several: bool = False


@dataclass(eq=False)
class Joined:
    """A LAST JOIN: the newest row of the key for which the condition, if there is one, is true.

    Attributes:
        base: the joined table.
        key: (column of the joined table, value it must equal), in order of the columns.
        ts: number of the column that orders the rows; -1: the last inserted is the newest.
        condition: over columns of both sides.
    """

    base: QueryTable
    key: tuple[tuple[int, Node], ...]
    ts: int
    condition: Node | None


@dataclass(frozen=True)
class Const:
    """A constant.

    Attributes:
        type: its type.
        word: the constant as a word; a string as its code.
        null: whether it is NULL; the word then means nothing.
    """

    type: Type
    word: int
    null: bool = False


@dataclass(frozen=True)
class ColumnNode:
    """A column of a table.

    Attributes:
        type: its type.
        base: the table, as the query has it.
        position: its number there.
    """

    type: Type
    base: QueryTable
    position: int


@dataclass(frozen=True)
class Missing:
    """Whether a join found no row.

    Attributes:
        type: bool.
        base: the joined table.
    """

    type: Type
    base: QueryTable


@dataclass(frozen=True)
class WindowColumn:
    """A column of a window's rows, the request's own among them.

    Attributes:
        type: its type.
        group: the windows.
        position: its number among their columns.
    """

    type: Type
    group: WindowGroup
    position: int


@dataclass(frozen=True)
class Apply:
    """A scalar instruction.

    Attributes:
        type: of its result.
        op: the instruction.
        arguments: its operands, three at most.
        bits: width of an integer result; `FLOAT32`: the result is one.
    """

    type: Type
    op: Op
    arguments: tuple[Node, ...]
    bits: int = 64


@dataclass(frozen=True)
class PythonCall:
    """A function in Python, of one value per argument; NULL in, NULL out.

    Attributes:
        type: of its result.
        function: see `library`.
        arguments: what it is called with.
    """

    type: Type
    function: Callable[..., Any]
    arguments: tuple[Node, ...]


@dataclass(frozen=True)
class Aggregate:
    """An aggregate by kernel.

    Attributes:
        type: of its result.
        kind: the instruction, or what is made of the counts of values.
        group: the windows.
        frame: the number of the frame among theirs.
        value: what is aggregated, of each row.
        condition: which rows count; None: all.
        number: of AT the place, of TOPN_FREQUENCY how many values it names.
        bits: as of `Apply`.
    """

    type: Type
    kind: Op | FrequencyKind
    group: WindowGroup
    frame: int
    value: Node
    condition: Node | None
    number: int = 0
    bits: int = 64


@dataclass(frozen=True)
class PythonAggregate:
    """An aggregate in Python.

    Attributes:
        type: of its result.
        function: of the window's rows, newest first, each a tuple of the arguments.
        group: the windows.
        frame: the number of the frame among theirs.
        arguments: what it is told of each row.
    """

    type: Type
    function: Callable[..., Any]
    group: WindowGroup
    frame: int
    arguments: tuple[Node, ...]


class OwnRowPlace(IntEnum):
    """Where the row that a window belongs to is among its rows."""

    OUT = 0  # not in it
    IN = 1  # first, beside the tables' rows
    STORED = 2  # one of the first table's rows, with others of its time that may stand before it
    STORED_OUT = 3  # the same, and the first of them is left out


@dataclass(frozen=True)
class Source:
    """A table whose rows are in a window.

    Attributes:
        base: the table.
        columns: what column j of the window is, of a row of this table.
        where: which of its rows are in; None: all.
    """

    base: QueryTable
    columns: tuple[Node, ...]
    where: Node | None = None


@dataclass(eq=False)
class WindowGroup:
    """The windows over the same rows: the same tables, key, time and exclusions; they differ in their frames.

    Attributes:
        sources: the tables whose rows are in them.
        own: what column j of the row is that the windows belong to: the request's, or one of `of`.
        key: partition columns, as values of that row and as columns of each source.
        time: that row's time; None: no ORDER BY.
        own_row: where it is among the rows.
        exclude_time: whether other rows of its time are out.
        orders: without ORDER BY, the columns that order each source's rows; -1: as they were inserted.
        of: the joined table to whose rows the windows belong; None: to the requests.
        at: where the first of its windows stands in the script.
        family: equal for windows by the same key and order over the same tables, whatever they exclude.
        frames: (rows, start or -1, end, maxsize).
    """

    own: tuple[Node, ...]
    sources: tuple[Source, ...]
    key: tuple[int, ...]
    time: int | None
    own_row: OwnRowPlace
    exclude_time: bool
    orders: tuple[int, ...] = ()
    of: QueryTable | None = None
    at: int = 0
    family: object = None
    frames: list[tuple[bool, int, int, int]] = field(default_factory=list)

    def frame(self, frame: tuple[bool, int, int, int]) -> int:
        """The number of a frame, which is added where it is new."""
        if frame not in self.frames:
            self.frames.append(frame)
        return self.frames.index(frame)


Node = Union[  # noqa: UP007 -- the operator does not take forward references
    Const, ColumnNode, Missing, WindowColumn, Apply, PythonCall, Aggregate, PythonAggregate
]


def under(base: QueryTable, root: QueryTable | None) -> bool:
    """Whether `base` is `root`, or is joined to its rows or to those of a table that is."""
    above: QueryTable | None = base
    while above is not None and above is not root:
        above = above.to
    return above is not None
