"""Windows: which rows of which tables are in them, and which windows share them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from streaming.engine.kernels.instructions import Op
from streaming.engine.plan.nodes import (
    Aggregate,
    Apply,
    ColumnNode,
    Missing,
    Node,
    OwnRowPlace,
    PythonAggregate,
    QueryTable,
    Source,
    WindowGroup,
)
from streaming.engine.plan.scope import (
    Output,
    Planning,
    Scope,
    WindowFrame,
    aggregates,
    conditions,
    walk,
    without_places,
)
from streaming.engine.sql import syntax
from streaming.engine.storage.table import Table
from streaming.engine.types import Type

__all__ = ["WindowPlanner", "check_lists", "merge_conflict"]


# a source of rows, and what it is read as -> its table, its columns, and the condition on its rows
Scan = Callable[[syntax.Source, str], tuple[QueryTable, list[Output], Node | None]]


class WindowPlanner:
    """Finds the windows of one query.

    Args:
        planning: what the planning of the query shares.
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

    def frame(self, reference: str | syntax.Window, scope: Scope, at: int) -> WindowFrame:
        """The frame that OVER names."""
        if isinstance(reference, str):
            if reference not in scope.windows:
                raise self.planning.wrong(f"unknown window {reference}", at)
            window = scope.windows[reference]
        else:
            window = reference
        self.check(window)
        if scope.base is not None:
            self.check_joined(window)
        frame = window.frame
        start, end = -1 if frame.start is None else frame.start, frame.end
        own, exclude_time = OwnRowPlace.IN, window.exclude_current_time
        if not frame.rows and end > 0:
            exclude_time = False  # it says nothing of a frame that ends before the request, not even at 1970
        elif window.exclude_current_row:
            # the request's row still takes the first place of a ROWS frame, but none of a MAXSIZE
            if frame.rows:
                end = max(end, 1)
            else:
                own = OwnRowPlace.OUT
        group = self.group(window, scope, own, exclude_time)
        return WindowFrame(group, group.frame((frame.rows, start, end, frame.maxsize)), window, scope)

    def check(self, window: syntax.Window) -> None:
        """Refuses what no window may be."""
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

    def check_joined(self, window: syntax.Window) -> None:
        """Refuses what a window may not be over the rows of a joined sub-query.

        OpenMLDB takes the first row that is in such a window for the one that it belongs to, which is right only where
        the window begins with rows of its time.
        """
        self.planning.online.append(("a window in a joined sub-query", window.at))
        frame = window.frame
        if window.order is None:
            raise self.planning.refuse("a window without ORDER BY in a joined sub-query", window.at)
        if frame.following:
            raise self.planning.refuse("FOLLOWING in a joined sub-query", window.at)
        if window.instance_not_in_window:
            return  # the row is in by itself then, first of all
        if window.exclude_current_time:
            raise self.planning.refuse("EXCLUDE CURRENT_TIME in a joined sub-query", window.at)
        if frame.end and not frame.rows:
            raise self.planning.refuse("a ROWS_RANGE frame that ends before its row in a joined sub-query", window.at)

    def group(self, window: syntax.Window, scope: Scope, own: OwnRowPlace, exclude_time: bool) -> WindowGroup:
        """The windows over these rows; the same one for every window that differs in its frame only."""
        family = (
            tuple(without_places(u) for u in window.unions),
            tuple(name.parts for name in window.partition),
            window.order.parts if window.order else None,
            window.instance_not_in_window,
        )
        likeness = (family, own, exclude_time)
        found = scope.groups.get(likeness)
        if found is None:
            found = scope.groups[likeness] = self.rows_of(window, scope, own, exclude_time)
            found.family = (id(scope), family)
        return found

    def rows_of(self, window: syntax.Window, scope: Scope, own: OwnRowPlace, exclude_time: bool) -> WindowGroup:
        """The group of a window: from which tables, by which key and in which order its rows come."""
        base = self.planning.main if scope.base is None else scope.base
        if base is None:
            raise self.planning.refuse("a window without a table", window.at)
        if scope.filtered:
            raise self.planning.refuse("a window over rows that a WHERE has filtered", window.at)
        if not window.partition:
            raise self.planning.refuse("a window without PARTITION BY", window.at)
        nodes = tuple(output.node for output in scope.columns)
        if any(aggregate.group.of is scope.base for node in nodes for aggregate in aggregates(node)):
            raise self.planning.refuse("a window over a sub-query with windows", window.at)
        joined = any(
            part.base is not base for node in nodes for part in walk(node) if isinstance(part, (ColumnNode, Missing))
        )
        if joined and scope.base is not None:
            raise self.planning.refuse("a window over joined rows in a joined sub-query", window.at)
        if joined and window.unions:
            raise self.planning.refuse("a UNION with a window over joined rows", window.at)
        key, time = self.key(window, scope)
        places = key if time is None else (*key, time)
        if any(aggregates(nodes[place]) for place in places):
            raise self.planning.refuse("a window by a window of a joined sub-query", window.at)
        if scope.base is not None and not all(isinstance(nodes[place], ColumnNode) for place in places):
            raise self.planning.refuse("a window by something computed in a joined sub-query", window.at)
        sources: list[Source] = []
        if not window.instance_not_in_window:
            sources.append(Source(base, nodes))
        sources += [self.union(union, scope, base, ordered=time is not None) for union in window.unions]
        orders: list[int] = []
        for source in sources:
            for place in places:
                node = source.columns[place]
                if not isinstance(node, ColumnNode) or node.base is not source.base:
                    what = "PARTITION BY or ORDER BY something that is not a table's column"
                    raise self.planning.refuse(what, window.at)
            if time is None:
                columns = {
                    node.position for node in map(source.columns.__getitem__, key) if isinstance(node, ColumnNode)
                }
                orders.append(self.order_of_index(source.base.table, columns, window.at))
        if scope.base is not None and not window.instance_not_in_window:
            own = OwnRowPlace.STORED if own == OwnRowPlace.IN else OwnRowPlace.STORED_OUT
        return WindowGroup(nodes, tuple(sources), key, time, own, exclude_time, tuple(orders), scope.base, window.at)

    def key(self, window: syntax.Window, scope: Scope) -> tuple[tuple[int, ...], int | None]:
        """The columns of PARTITION BY and ORDER BY."""
        key = tuple(self.position(name, scope) for name in window.partition)
        for place, name in zip(key, window.partition, strict=True):
            kind = scope.columns[place].node.type
            if kind in (Type.FLOAT, Type.DOUBLE):
                raise self.planning.refuse(f"PARTITION BY a {kind}", name.at)
        if window.order is None:
            return key, None
        time = self.position(window.order, scope)
        kind = scope.columns[time].node.type
        if kind not in (Type.TIMESTAMP, Type.BIGINT):
            raise self.planning.refuse(f"ORDER BY a {kind} in a window", window.order.at)
        return key, time

    def union(self, union: syntax.Source, scope: Scope, main: QueryTable, ordered: bool) -> Source:
        """A table of a UNION."""
        if _multiplies(union):
            raise self.planning.refuse("DISTINCT or LEFT JOIN in a UNION of a window", union.at)
        base, columns, where = self.scan(union, "a UNION of a window")
        if base.table is main.table:
            raise self.planning.refuse("UNION of the main table with itself", union.at)
        if [(c.name, c.node.type) for c in columns] != [(c.name, c.node.type) for c in scope.columns]:
            raise self.planning.refuse("a UNION whose columns are not those of the main table", union.at)
        if any(aggregates(column.node) for column in columns):
            raise self.planning.refuse("windows in a UNION of a window", union.at)
        if where is not None:
            self.check_filter(where, base, ordered, union.at)
        return Source(base, tuple(output.node for output in columns), where)

    def check_filter(self, where: Node, base: QueryTable, ordered: bool, at: int) -> None:
        """Refuses a WHERE of a UNION that OpenMLDB answers with an index of its own, which then finds no rows."""
        if not ordered:
            raise self.planning.refuse("WHERE in a UNION of a window without ORDER BY", at)
        indexed = {column for key, _ in base.table.declared for column in key}
        for part in conditions(where):
            for node in walk(part):
                if isinstance(node, (ColumnNode, Missing)) and node.base is not base:
                    raise self.planning.refuse("WHERE over joined rows in a UNION of a window", at)
            equal = part.arguments if isinstance(part, Apply) and part.op in (Op.EQ, Op.FEQ) else ()
            if any(isinstance(node, ColumnNode) and node.position in indexed for node in equal):
                raise self.planning.refuse("WHERE in a UNION of a window by an equality of an indexed column", at)

    def position(self, name: syntax.Name, scope: Scope) -> int:
        found = [i for i, output in enumerate(scope.columns) if self.planning.matches(output, name)]
        if len({scope.columns[i].node for i in found}) != 1:
            raise self.planning.wrong(f"{'ambiguous' if found else 'unknown'} column {'.'.join(name.parts)}", name.at)
        return found[0]


def _multiplies(source: syntax.Source) -> bool:
    """Whether a sub-query has another number of rows than the table below it, WHERE apart."""
    if isinstance(source, syntax.TableRef):
        return False
    select = source.select
    here = select.distinct or any(join.kind == "left" for join in select.joins)
    return here or (select.source is not None and _multiplies(select.source))


def every_aggregate(nodes: Sequence[Node]) -> Iterator[Aggregate | PythonAggregate]:
    """The aggregates in some expressions, and those in their arguments."""
    waiting = [aggregate for node in nodes for aggregate in aggregates(node)]
    while waiting:
        one = waiting.pop()
        yield one
        inner = one.arguments if isinstance(one, PythonAggregate) else (one.value, one.condition or one.value)
        waiting += [aggregate for node in inner for aggregate in aggregates(node) if aggregate is not one]


def check_lists(planning: Planning, nodes: Sequence[Node]) -> None:
    """Refuses aggregates of lists, over a frame without the request, beside which no other aggregate has the frame.

    OpenMLDB then gives them the rows from the request on.
    """
    used = list(every_aggregate(nodes))
    framed = {(one.group, one.frame) for one in used if one not in planning.counted_lists}
    for one in used:
        if one in planning.counted_lists and (one.group, one.frame) not in framed:
            what = "an aggregate of a list alone over a frame without the request: select another one beside it"
            raise planning.refuse(what, planning.counted_lists[one])


_Frame = tuple[bool, int, int, int]  # as of `WindowGroup.frames`


def merge_conflict(nodes: Sequence[Node]) -> tuple[WindowGroup, str] | None:
    """Windows that OpenMLDB merges so that some are answered wrong: one of them, and what stands beside what.

    It merges windows of a family: a MAXSIZE of n with ROWS that reach back n rows, or without bound (of fewer rows
    nothing is cut, with more they are not merged), and frames of the same MAXSIZE, which differ only if they end at
    different times. What they exclude is not looked at here: some that OpenMLDB would not merge are among them.
    """
    families: dict[object, list[tuple[WindowGroup, _Frame]]] = {}
    for one in every_aggregate(nodes):
        families.setdefault(one.group.family, []).append((one.group, one.group.frames[one.frame]))
    for used in families.values():
        frames = {frame for _, frame in used}
        for _, _, end, maxsize in frames:
            for rows, start, other_end, other in frames:
                cut = rows and end == 0 and start in (maxsize, -1)
                if maxsize and (cut or (other == maxsize and other_end != end)):
                    return used[0][0], "MAXSIZE beside another window of the same rows, which it would cut"
        for excludes in (False, True):
            alike = [(group, frame) for group, frame in used if group.exclude_time == excludes]
            if (found := _misplaced(alike)) is not None:
                return found, (
                    "ROWS, or lag(), beside ROWS_RANGE windows of the same rows with which OpenMLDB may or may not "
                    "merge it: give these the same MAXSIZE, or none, or select it in a sub-query of its own"
                )
    return None


def _misplaced(used: Sequence[tuple[WindowGroup, _Frame]]) -> WindowGroup | None:
    """A ROWS window that OpenMLDB may compute in a ROWS_RANGE window that lacks its rows, as the two were not merged.

    All ROWS windows are merged to one, this one with the first ROWS_RANGE window whose MAXSIZE is not smaller; but then
    each is computed in any one that it could be merged with by itself, by chance.
    """
    rows = [(group, frame[1]) for group, frame in used if frame[0]]
    if not rows:
        return None
    sizes = {
        frame[3]
        for group, frame in used
        if not frame[0] and frame[2] == 0 and group.own_row not in (OwnRowPlace.OUT, OwnRowPlace.STORED_OUT)
    }
    deepest = _reach([start for _, start in rows])
    for group, start in rows:
        able = {size for size in sizes if _takes(size, start)}
        if len(able) > 1 or any(not _takes(size, deepest) for size in able):
            return group
    return None


def _reach(starts: Sequence[int]) -> int:
    """How far the ROWS frame reaches back that is made of several; -1: without bound."""
    return -1 if -1 in starts else max(starts)


def _takes(maxsize: int, start: int) -> bool:
    """Whether OpenMLDB merges ROWS that reach back so far with a ROWS_RANGE window of this MAXSIZE."""
    return maxsize == 0 or start <= maxsize  # without bound, too
