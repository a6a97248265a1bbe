"""What a deployment reads and what its answers must show: for stores that let a cluster compute them.

`Read`s say which rows an answer depends on, so that requests can be asked side by side where they do not touch each
other's rows (`streaming.store.micro_batches`). The other parts tell a whole answer from a broken one: columns that
repeat the request's own values, and columns that no request can make NULL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from streaming.engine.deployment.meanings import meaning_of
from streaming.engine.deployment.query_parts import joins_of, parts_of
from streaming.engine.kernels.instructions import FrequencyKind, Op
from streaming.engine.plan.nodes import (
    Aggregate,
    ColumnNode,
    Missing,
    Node,
    OwnRowPlace,
    PythonAggregate,
    QueryTable,
    WindowColumn,
    WindowGroup,
)
from streaming.engine.plan.select import Query
from streaming.engine.storage.table import Table

__all__ = ["Contract", "Origin", "Read", "contract_of"]


@dataclass(frozen=True, order=True)
class Read:
    """Rows of one table that a request reads: those whose `columns` equal what the request has in `request`.

    Attributes:
        request: columns of the request; empty: any row may be read, the key is not made of the request's columns alone.
    """

    table: str
    columns: tuple[str, ...]
    request: tuple[str, ...]


@dataclass(frozen=True)
class Origin:
    """What an output column is made of.

    Attributes:
        name: the column's.
        tables: whose rows it is made of, the request's table among them where it is.
        list_length: of `topn_frequency` how many values it names; 0: it is no such list.
        meaning: its expression and the rows that it is computed of, in a line for people.
    """

    name: str
    tables: tuple[str, ...]
    list_length: int
    meaning: str


@dataclass(frozen=True)
class Contract:
    """What is known of a deployment without running it; tables and columns by their names.

    Attributes:
        main: the request's table.
        reads: each once.
        times: of each table the columns that windows and joins are ordered by; rows without them are refused.
        never_null: output columns that are never NULL, whatever the request.
        echoes: output columns that repeat a column of the request: (output, request's).
        origins: of each output column, in order.
    """

    main: str
    reads: tuple[Read, ...]
    times: tuple[tuple[str, tuple[str, ...]], ...]
    never_null: tuple[str, ...]
    echoes: tuple[tuple[str, str], ...]
    origins: tuple[Origin, ...]


def contract_of(query: Query) -> Contract:
    """The contract of a planned query that has a main table.

    Raises:
        ValueError: it has no FROM.
    """
    if query.main is None:
        raise ValueError("a query without FROM has no requests")
    main = query.main
    nodes = [output.node for output in query.outputs] + ([] if query.where is None else [query.where])
    reads: set[Read] = set()
    times: dict[str, set[str]] = {}
    for group in {id(g): g for node in nodes for g in _groups(node)}.values():
        for source in group.sources:
            table, columns = source.base.table, source.columns
            keys = [(_position(columns[place]), group.own[place]) for place in group.key]
            reads.add(_read(table, main, keys))
            if group.time is not None:
                times.setdefault(table.name, set()).add(_name(table, _position(columns[group.time])))
                own = group.own[group.time]
                if isinstance(own, ColumnNode) and own.base is main:
                    times.setdefault(main.table.name, set()).add(_name(main.table, own.position))
    for node in nodes:
        for joined in joins_of(node):
            reads.add(_read(joined.base.table, main, list(joined.key)))
            if joined.ts >= 0:
                times.setdefault(joined.base.table.name, set()).add(_name(joined.base.table, joined.ts))
    return Contract(
        main.table.name,
        tuple(sorted(reads)),
        tuple(sorted((table, tuple(sorted(columns))) for table, columns in times.items())),
        tuple(o.name for o in query.outputs if _never_null(o.node)),
        tuple(
            (o.name, _name(main.table, o.node.position))
            for o in query.outputs
            if isinstance(o.node, ColumnNode) and o.node.base is main
        ),
        tuple(Origin(o.name, _tables(o.node), _list_length(o.node), meaning_of(o, query)) for o in query.outputs),
    )


def _tables(node: Node) -> tuple[str, ...]:
    found = {part.base.table.name for part in parts_of(node) if isinstance(part, (ColumnNode, Missing))}
    for group in _groups(node):
        found |= {source.base.table.name for source in group.sources}
    found |= {joined.base.table.name for joined in joins_of(node)}
    return tuple(sorted(found))


def _list_length(node: Node) -> int:
    is_list = isinstance(node, Aggregate) and node.kind == FrequencyKind.TOPN_FREQUENCY
    return node.number if isinstance(node, Aggregate) and is_list else 0


def _groups(node: Node) -> Iterator[WindowGroup]:
    for part in parts_of(node):
        if isinstance(part, (Aggregate, PythonAggregate, WindowColumn)):
            yield part.group


def _read(table: Table, main: QueryTable, key: list[tuple[int, Node]]) -> Read:
    columns = tuple(_name(table, position) for position, _ in key)
    values = [value for _, value in key]
    request = tuple(_name(main.table, v.position) for v in values if isinstance(v, ColumnNode) and v.base is main)
    return Read(table.name, columns, request if len(request) == len(values) else ())


def _position(node: Node) -> int:
    if not isinstance(node, ColumnNode):
        raise TypeError("a window's key and time are columns of its tables")  # so the planner has checked
    return node.position


def _name(table: Table, position: int) -> str:
    return table.columns[position].name


def _never_null(node: Node) -> bool:
    """Counts; and what is made of counts, where the request's own row is in the window."""
    if not isinstance(node, Aggregate):
        return False
    if node.kind in (Op.COUNT, FrequencyKind.DISTINCT_COUNT):
        return True
    _, _, end, _ = node.group.frames[node.frame]
    return (
        node.kind in (FrequencyKind.TOP1_RATIO, FrequencyKind.TOPN_FREQUENCY)
        and node.group.own_row == OwnRowPlace.IN
        and end == 0
    )
