"""Windows: which rows of which tables are in them, and which windows share them."""

from __future__ import annotations

from collections.abc import Callable

from streaming.engine import syntax as s
from streaming.engine.nodes import Aggregate, Base, Column, Group, HostAggregate, Node
from streaming.engine.scope import Frame, Output, Planning, Scope, identity, matches, walk
from streaming.engine.table import Table
from streaming.engine.types import Type

__all__ = ["WindowPlanner"]


# a source of rows, and what it is read as -> its table, its columns, and the condition on its rows
Scan = Callable[[s.Source, str], tuple[Base, list[Output], Node | None]]


class WindowPlanner:
    """Finds the windows of one query.

    Args:
        scan: what reads the tables of a UNION.
    """

    def __init__(self, planning: Planning, scan: Scan) -> None:
        self.planning = planning
        self.scan = scan

    def order_of_index(self, table: Table, key: set[int], at: int) -> int:
        """The time column that orders rows without ORDER BY: that of the index by which OpenMLDB finds the key.

        Other equalities than the index's are tested row by row, in the index's order. -1: the last inserted first.
        """
        exact = [ts for columns, ts in table.declared if set(columns) == key]
        if exact:
            return exact[0]
        part = {ts for columns, ts in table.declared if set(columns) < key}
        if len(part) > 1:
            what = "a join or window without ORDER BY where several indexes match a part of the key"
            raise self.planning.refuse(what, at)
        return part.pop() if part else -1

    def frame(self, reference: str | s.Window, scope: Scope, at: int) -> Frame:
        """The frame that OVER names."""
        if isinstance(reference, str):
            if reference not in scope.windows:
                raise self.planning.wrong(f"unknown window {reference}", at)
            window = scope.windows[reference]
        else:
            window = reference
        frame = window.frame
        if window.descending:
            raise self.planning.refuse("ORDER BY … DESC in a window", window.at)
        if frame.following:
            if frame.rows and window.exclude_current_row:  # OpenMLDB does not exclude it then
                raise self.planning.refuse("EXCLUDE CURRENT_ROW and ROWS … FOLLOWING", window.at)
            self.planning.online.append(("FOLLOWING", window.at))
        if window.order is None:
            if not frame.rows and (frame.start is not None or frame.end):
                raise self.planning.refuse("ROWS_RANGE with a bound, without ORDER BY", window.at)
            if window.exclude_current_time:
                raise self.planning.refuse("EXCLUDE CURRENT_TIME without ORDER BY", window.at)
        start, end = -1 if frame.start is None else frame.start, frame.end
        own_row = True
        if window.exclude_current_row:
            # the request's row still takes the first place of a ROWS frame, but none of a MAXSIZE
            if frame.rows:
                end = max(end, 1)
            else:
                own_row = False
        group = self.group(window, scope, own_row)
        number = group.frame((frame.rows, start, end, frame.maxsize))
        return Frame(group, number, window, scope)

    def group(self, window: s.Window, scope: Scope, own_row: bool) -> Group:
        """The windows over these rows; the same one for every window that differs in its frame only."""
        likeness = (
            tuple(identity(u) for u in window.unions),
            tuple(name.parts for name in window.partition),
            window.order.parts if window.order else None,
            window.instance_not_in_window,
            own_row,
            window.exclude_current_time,
        )
        found = scope.groups.get(likeness)
        if found is None:
            found = scope.groups[likeness] = self.rows_of(window, scope, own_row)
        return found

    def rows_of(self, window: s.Window, scope: Scope, own_row: bool) -> Group:
        if self.planning.main is None:
            raise self.planning.refuse("a window without a table", window.at)
        if scope.filtered:
            raise self.planning.refuse("a window over rows that a WHERE has filtered", window.at)
        if not window.partition:
            raise self.planning.refuse("a window without PARTITION BY", window.at)
        own = tuple(output.node for output in scope.columns)
        if any(isinstance(part, (Aggregate, HostAggregate)) for node in own for part in walk(node)):
            raise self.planning.refuse("a window over a sub-query with windows", window.at)
        joined = any(isinstance(node, Column) and node.base.joined is not None for node in own)
        if joined and window.unions:
            raise self.planning.refuse("a UNION with a window over joined rows", window.at)
        key = tuple(self.position(name, scope) for name in window.partition)
        time = None
        if window.order is not None:
            time = self.position(window.order, scope)
            if own[time].type not in (Type.TIMESTAMP, Type.BIGINT):
                raise self.planning.refuse(f"ORDER BY a {own[time].type} in a window", window.order.at)
        for place, name in zip(key, window.partition, strict=True):
            if own[place].type in (Type.FLOAT, Type.DOUBLE):
                raise self.planning.refuse(f"PARTITION BY a {own[place].type}", name.at)
        sources: list[tuple[Base, tuple[Node, ...]]] = []
        if not window.instance_not_in_window:
            sources.append((self.planning.main, own))
        for union in window.unions:
            if _multiplies(union):
                raise self.planning.refuse("DISTINCT or LEFT JOIN in a UNION of a window", union.at)
            base, columns, where = self.scan(union, "a UNION of a window")
            if base.table is self.planning.main.table:
                raise self.planning.refuse("UNION of the main table with itself", union.at)
            if where is not None:
                raise self.planning.refuse("WHERE in a UNION of a window", union.at)
            nodes = tuple(output.node for output in columns)
            alike = [(c.name, c.node.type) for c in columns] == [(c.name, c.node.type) for c in scope.columns]
            if not alike:
                raise self.planning.refuse("a UNION whose columns are not those of the main table", union.at)
            sources.append((base, nodes))
        orders: list[int] = []
        for base, nodes in sources:
            for place in key if time is None else (*key, time):
                node = nodes[place]
                if not isinstance(node, Column) or node.base is not base:
                    what = "PARTITION BY or ORDER BY something that is not a table's column"
                    raise self.planning.refuse(what, window.at)
            if time is None:
                columns_of_key = {node.position for node in map(nodes.__getitem__, key) if isinstance(node, Column)}
                orders.append(self.order_of_index(base.table, columns_of_key, window.at))
        return Group(own, tuple(sources), key, time, own_row, window.exclude_current_time, tuple(orders))

    def position(self, name: s.Name, scope: Scope) -> int:
        found = [i for i, output in enumerate(scope.columns) if matches(output, name)]
        if len({scope.columns[i].node for i in found}) != 1:
            raise self.planning.wrong(f"{'ambiguous' if found else 'unknown'} column {'.'.join(name.parts)}", name.at)
        return found[0]


def _multiplies(source: s.Source) -> bool:
    """Whether a sub-query has another number of rows than the table below it, WHERE apart."""
    if isinstance(source, s.TableRef):
        return False
    select = source.select
    here = select.distinct or any(join.kind == "left" for join in select.joins)
    return here or (select.source is not None and _multiplies(select.source))
