"""LAST JOIN: by which key, in which order and on which conditions its row is found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from streaming.engine import functions as f
from streaming.engine import syntax as s
from streaming.engine.bind import Binder
from streaming.engine.machine import Op
from streaming.engine.nodes import Apply, Base, Column, Joined, Missing, Node, under
from streaming.engine.plan_windows import Scan
from streaming.engine.scope import Output, Scope, aggregates, children, columns_of, conjuncts, walk
from streaming.engine.table import Table
from streaming.engine.types import Type, is_integer

__all__ = ["JoinPlanner"]


# a sub-query over the request's table -> its columns, and the condition on the request
Nested = Callable[[s.SubSelect], tuple[list[Output], Node | None]]


class JoinPlanner:
    """Finds the rows of the joins of one query.

    Args:
        scan: what reads the joined tables. nested: what reads a sub-query over the request's own table.
    """

    def __init__(self, binder: Binder, scan: Scan, nested: Nested) -> None:
        self.planning = binder.planning
        self.binder = binder
        self.scan = scan
        self.nested = nested

    def leftmost(self, source: s.Source | None) -> Table | None:
        """The table that a source begins with."""
        while isinstance(source, s.SubSelect):
            source = source.select.source
        return None if source is None else self.planning.table(source.name, source.at)

    def join(self, join: s.Join, scope: Scope, left: Base | None = None) -> list[Output]:
        """The columns of a joined table; `left`: the table of the sub-query that the join is in.

        There a LEFT JOIN may make several rows of one: the first of them is what a LAST JOIN of the sub-query finds,
        as long as no condition chooses among them.
        """
        if join.kind == "left" and (left is None or join.order is not None):
            raise self.planning.refuse("LEFT JOIN, which may make several rows of a request", join.at)
        if self.planning.main is not None and self.leftmost(join.source) is self.planning.main.table:
            if left is not None:
                raise self.planning.refuse("a join of the main table in a joined sub-query", join.source.at)
            return self.pair(join, scope)
        base, columns, where = self.scan(join.source, "the right side of a LAST JOIN")
        base.to, base.several = left, join.kind == "left"
        both = Scope(scope.columns + columns)
        key: dict[int, Node] = {}
        rest: list[Node] = [] if where is None else [where]
        for part in conjuncts(join.condition):
            pair = self.equality(part, scope, columns, base)
            if pair is not None and pair[0] not in key:
                key[pair[0]] = pair[1]
                if left is not None and aggregates(pair[1]):
                    raise self.planning.refuse("a join by a window of a joined sub-query", part.at)
            else:
                rest.append(self.binder.condition(part, both))
        if not key:
            what = "LAST JOIN without an equality of a column, which no index answers"
            raise self.planning.refuse(what, join.condition.at)
        ts = -1
        if join.order is not None:
            if join.descending:
                raise self.planning.refuse("LAST JOIN … ORDER BY … DESC", join.order.at)
            order = self.planning.name(join.order, Scope(columns))
            if len(join.order.parts) == 1 and self.planning.lookup(join.order, scope) is not None:
                raise self.planning.wrong(f"ambiguous column {join.order.parts[0]}", join.order.at)
            own = isinstance(order, Column) and order.base is base
            if not isinstance(order, Column) or not own or order.type not in (Type.TIMESTAMP, Type.BIGINT):
                what = "ORDER BY something else than a timestamp or bigint column of the joined table"
                raise self.planning.refuse(what, join.order.at)
            ts = order.position
        else:
            ts = self.binder.windows.order_of_index(base.table, set(key), join.at)
        condition: Node | None = None
        for test in rest:
            if any(aggregate.group.of is not None and under(aggregate.group.of, base)
                   for aggregate in aggregates(test)):  # fmt: skip
                raise self.planning.refuse("a condition on a window of a joined sub-query", join.condition.at)
            if any(isinstance(part, (Column, Missing)) and part.base.several and part.base is not base
                   for part in walk(test)):  # fmt: skip
                raise self.planning.refuse("a condition on what a LEFT JOIN has found", join.condition.at)
            condition = f.both(condition, test)
        base.joined = Joined(base, tuple(sorted(key.items())), ts, condition)
        return [dataclasses.replace(column, node=self.or_null(column.node, base)) for column in columns]

    def or_null(self, node: Node, base: Base) -> Node:
        """A column of the right side, which is NULL where there is no row: also if it is computed or a constant."""
        if isinstance(node, Column) and node.base is base:
            return node
        return Apply(node.type, Op.SELECT, (Missing(Type.BOOL, base), f.null(node.type), node), f.bits(node.type))

    def equality(
        self, part: s.Expr, scope: Scope, columns: list[Output], base: Base
    ) -> tuple[int, Node] | None:  # fmt: skip
        """(column of the joined table, value) of a condition `column = value`; None for any other condition."""
        if not isinstance(part, s.Binary) or part.operator != "=":
            return None
        right = Scope(columns)
        for mine, other in ((part.left, part.right), (part.right, part.left)):
            if not isinstance(mine, s.Name):
                continue
            here = self.planning.lookup(mine, right)
            if here is None or (len(mine.parts) == 1 and self.planning.lookup(mine, scope) is not None):
                continue
            if not isinstance(here, Column) or here.base is not base or not self.known(other, scope):
                continue
            value = self.binder.bind(other, scope)
            if here.type in (Type.FLOAT, Type.DOUBLE):
                continue
            if value.type == here.type or (is_integer(value.type) and is_integer(here.type)):
                return here.position, value
            if here.type == Type.STRING and is_integer(value.type):  # an index has texts for keys
                return here.position, f.cast(value, Type.STRING)
        return None

    def known(self, expr: s.Expr, scope: Scope) -> bool:
        """Whether every name in `expr` is one of the scope's."""
        if isinstance(expr, s.Name):
            return self.planning.lookup(expr, scope) is not None
        return all(self.known(child, scope) for child in children(expr))

    def pair(self, join: s.Join, scope: Scope) -> list[Output]:
        """A join of the request's table with itself: OpenMLDB pairs the request with itself, whatever the condition."""
        if join.order is not None:
            raise self.planning.refuse("ORDER BY in a join of the main table with itself", join.order.at)
        if isinstance(join.source, s.SubSelect):
            columns, where = self.nested(join.source)
            if where is not None:
                raise self.planning.refuse("WHERE in a join of the main table with itself", join.source.at)
        elif self.planning.main is not None:
            columns = columns_of(self.planning.main, join.source)
        self.binder.condition(join.condition, Scope(scope.columns + columns))
        return columns
