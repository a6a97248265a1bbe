"""LAST JOIN: by which key, in which order and on which conditions its row is found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import reduce

from streaming.engine.kernels.instructions import Op
from streaming.engine.plan.casts import bits, cast, null
from streaming.engine.plan.expressions import Binder
from streaming.engine.plan.functions import choose, compare, conjunction, invert, is_null, logic
from streaming.engine.plan.nodes import Apply, ColumnNode, Joined, Missing, Node, PythonCall, QueryTable, under
from streaming.engine.plan.scope import Output, Scope, aggregates, children, columns_of, conjuncts, walk
from streaming.engine.plan.windows import Scan
from streaming.engine.sql import syntax
from streaming.engine.storage.table import Table
from streaming.engine.types import Type, is_integer

__all__ = ["JoinPlanner"]


# a sub-query over the request's table -> its columns, and the condition on the request
Nested = Callable[[syntax.SubSelect], tuple[list[Output], Node | None]]


class JoinPlanner:
    """Finds the rows of the joins of one query.

    Args:
        binder: what binds their conditions.
        scan: what reads the joined tables.
        nested: what reads a sub-query over the request's own table.
    """

    def __init__(self, binder: Binder, scan: Scan, nested: Nested) -> None:
        self.planning = binder.planning
        self.binder = binder
        self.scan = scan
        self.nested = nested

    def leftmost(self, source: syntax.Source | None) -> Table | None:
        """The table that a source begins with."""
        while isinstance(source, syntax.SubSelect):
            source = source.select.source
        return None if source is None else self.planning.table(source.name, source.at)

    def join(self, join: syntax.Join, scope: Scope, left: QueryTable | None = None) -> list[Output]:
        """The columns of a joined table; `left`: the table of the sub-query that the join is in.

        There a LEFT JOIN may make several rows of one: the first of them is what a LAST JOIN of the sub-query finds,
        as long as no condition chooses among them.
        """
        if join.kind == "left" and (left is None or join.order is not None):
            raise self.planning.refuse("LEFT JOIN, which may make several rows of a request", join.at)
        union = _union_of(join.source)
        if union is not None:
            return self.join_union(join, union, scope, left)
        if self.planning.main is not None and self.leftmost(join.source) is self.planning.main.table:
            if left is not None:
                raise self.planning.refuse("a join of the main table in a joined sub-query", join.source.at)
            return self.join_itself(join, scope)
        return self.join_table(join, scope, left)[1]

    def join_union(
        self, join: syntax.Join, source: syntax.SubSelect, scope: Scope, left: QueryTable | None
    ) -> list[Output]:
        """LAST JOIN of several sub-queries' rows: the latest row of all, of equal times the last sub-query's."""
        if left is not None:
            raise self.planning.refuse("a join of a UNION ALL in a joined sub-query", source.at)
        parts: list[tuple[QueryTable, list[Output]]] = []
        for select in (source.select, *source.more):
            part = syntax.SubSelect(select, source.alias, source.at)
            if self.planning.main is not None and self.leftmost(part) is self.planning.main.table:
                raise self.planning.refuse("UNION ALL of the main table", select.at)
            base, columns = self.join_table(dataclasses.replace(join, source=part), scope, None)
            if any(aggregates(column.node) for column in columns):
                raise self.planning.refuse("windows in a UNION ALL", select.at)
            if base.joined is None or base.joined.ts < 0:
                raise self.planning.refuse("LAST JOIN of a UNION ALL that no time orders", select.at)
            parts.append((base, columns))
        first, found = parts[0]
        missing: Node = Missing(Type.BOOL, first)
        time = _time(first)
        for base, columns in parts[1:]:
            if [(c.name, c.node.type) for c in columns] != [(c.name, c.node.type) for c in found]:
                raise self.planning.refuse("UNION ALL of different columns", source.at)
            there, later = invert(Missing(Type.BOOL, base)), compare(">=", _time(base), time)
            taken = logic("and", there, logic("or", missing, later))
            found = [
                Output(mine.name, choose(taken, mine.node, other.node), mine.paths & other.paths, mine.made_by)
                for mine, other in zip(columns, found, strict=True)
            ]
            missing = logic("and", missing, Missing(Type.BOOL, base))
            time = choose(taken, _time(base), time)
        return found

    def join_table(self, join: syntax.Join, scope: Scope, left: QueryTable | None) -> tuple[QueryTable, list[Output]]:
        """The join of stored rows: their table, and the columns of what is found."""
        base, columns, where = self.scan(join.source, "the right side of a LAST JOIN")
        base.to, base.several = left, join.kind == "left"
        both = Scope(scope.columns + columns)
        key: dict[int, Node] = {}
        rest: list[Node] = [] if where is None else [where]
        for part in conjuncts(join.condition):
            pair = self.equality(part, scope, columns, base)
            self.check_once(pair, key, base, part.at)
            if pair is not None:
                key[pair[0]] = pair[1]
                if left is not None and aggregates(pair[1]):
                    raise self.planning.refuse("a join by a window of a joined sub-query", part.at)
            else:
                keyed = self.equality_of_sides(part, scope, columns)
                rest.append(self.binder.condition(part, both) if keyed is None else keyed)
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
            own = isinstance(order, ColumnNode) and order.base is base
            if not isinstance(order, ColumnNode) or not own or order.type not in (Type.TIMESTAMP, Type.BIGINT):
                what = "ORDER BY something else than a timestamp or bigint column of the joined table"
                raise self.planning.refuse(what, join.order.at)
            ts = order.position
        else:
            ts = self.binder.windows.order_of_index(base.table, set(key), join.at)
        for test in rest:
            if any(
                aggregate.group.of is not None and under(aggregate.group.of, base) for aggregate in aggregates(test)
            ):
                raise self.planning.refuse("a condition on a window of a joined sub-query", join.condition.at)
        if left is None:
            columns, rest = self.choose_left_joined(columns, rest, base, join.condition.at)
        condition = reduce(conjunction, rest) if rest else None
        base.joined = Joined(base, tuple(sorted(key.items())), ts, condition)
        return base, [dataclasses.replace(column, node=self.or_null(column.node, base)) for column in columns]

    def check_once(self, pair: tuple[int, Node] | None, key: dict[int, Node], base: QueryTable, at: int) -> None:
        """Refuses a second equality of an indexed column: OpenMLDB looks into its index for the last one only."""
        if pair is not None and key.get(pair[0], pair[1]) != pair[1]:
            name = base.table.columns[pair[0]].name
            what = f"two equalities of column {name} in a join, of which OpenMLDB tests only the last one"
            raise self.planning.refuse(what, at)

    def choose_left_joined(
        self, columns: list[Output], tests: list[Node], base: QueryTable, at: int
    ) -> tuple[list[Output], list[Node]]:
        """Columns and conditions where the conditions choose among the rows that a LEFT JOIN in `base`'s query makes.

        The LEFT JOIN then finds the newest row for which they hold, too; the row of `base` is in with that, or where
        there is no row at all and they hold of NULLs.
        """
        mine = [test for test in tests if left_joined_in(test, base)]
        if not mine:
            return columns, tests
        found = {left for test in mine for left in left_joined_in(test, base)}
        left = found.pop()
        beside = {other for node in (*(column.node for column in columns), *tests) for other in tables_of(node)}
        if (
            found
            or left.joined is None
            or left.to is not base
            or any(left in tables_read_by(x) for x in beside - {left})
        ):
            raise self.planning.refuse("a condition on what several LEFT JOINs have found", at)
        first = QueryTable(left.table, None, base, several=True)
        held = reduce(conjunction, mine)
        conditions = [*([] if left.joined.condition is None else [left.joined.condition]), held]
        first.joined = Joined(
            first, left.joined.key, left.joined.ts, with_table_replaced(reduce(conjunction, conditions), left, first)
        )
        empty = logic("and", Missing(Type.BOOL, left), held)
        exists = logic("or", invert(Missing(Type.BOOL, first)), empty)
        rest = [test for test in tests if test not in mine]
        return [dataclasses.replace(c, node=with_table_replaced(c.node, left, first)) for c in columns], [*rest, exists]

    def or_null(self, node: Node, base: QueryTable) -> Node:
        """A column of the right side, which is NULL where there is no row: also if it is computed or a constant."""
        if isinstance(node, ColumnNode) and node.base is base:
            return node
        return Apply(node.type, Op.SELECT, (Missing(Type.BOOL, base), null(node.type), node), bits(node.type))

    def equality(
        self, part: syntax.Expr, scope: Scope, columns: list[Output], base: QueryTable
    ) -> tuple[int, Node] | None:
        """(column of the joined table, value) of a condition `column = value`; None for any other condition."""
        if not isinstance(part, syntax.Binary) or part.operator != "=":
            return None
        right = Scope(columns)
        for mine, other in ((part.left, part.right), (part.right, part.left)):
            if not isinstance(mine, syntax.Name):
                continue
            here = self.planning.lookup(mine, right)
            if here is None or (len(mine.parts) == 1 and self.planning.lookup(mine, scope) is not None):
                continue
            if not isinstance(here, ColumnNode) or here.base is not base or not self.has_all_names(other, scope):
                continue
            value = self.binder.bind(other, scope)
            if here.type in (Type.FLOAT, Type.DOUBLE):
                continue
            if here.type == Type.STRING and is_integer(value.type):  # an index has texts for keys
                return here.position, cast(value, Type.STRING)
            if value.type == here.type or (
                Type.STRING not in (value.type, here.type) and _as_keys(value.type, here.type)
            ):
                return here.position, value
        return None

    def equality_of_sides(self, part: syntax.Expr, scope: Scope, columns: list[Output]) -> Node | None:
        """A condition `left = right`, each made of one side's columns; None for any other condition.

        To OpenMLDB both are parts of a key, that is texts, and NULL is equal to NULL.
        """
        if not isinstance(part, syntax.Binary) or part.operator != "=":
            return None
        for mine, other in ((part.left, part.right), (part.right, part.left)):
            if not self.right_only(mine, scope, columns) or not self.has_all_names(other, scope):
                continue
            right, left = self.binder.bind(mine, Scope(columns)), self.binder.bind(other, scope)
            kinds = {left.type, right.type}
            alike = len(kinds) == 1 or _as_keys(left.type, right.type)
            if not alike or kinds & {Type.FLOAT, Type.DOUBLE, Type.NULL}:
                what = f"ON an equality of a {left.type} and a {right.type}"
                raise self.planning.refuse(what, part.at)
            equal = Apply(Type.BOOL, Op.EQ, (left, right)) if Type.STRING not in kinds else compare("=", left, right)
            return logic("or", equal, logic("and", is_null(left), is_null(right)))
        return None

    def right_only(self, expr: syntax.Expr, scope: Scope, columns: list[Output]) -> bool:
        """Whether an expression has columns, and all of them are the joined table's."""
        if isinstance(expr, syntax.Name):
            here = self.planning.lookup(expr, Scope(columns))
            return here is not None and (len(expr.parts) > 1 or self.planning.lookup(expr, scope) is None)
        parts = [self.right_only(child, scope, columns) for child in children(expr) if not constant(child)]
        return bool(parts) and all(parts)

    def has_all_names(self, expr: syntax.Expr, scope: Scope) -> bool:
        """Whether every name in `expr` is one of the scope's."""
        if isinstance(expr, syntax.Name):
            return self.planning.lookup(expr, scope) is not None
        return all(self.has_all_names(child, scope) for child in children(expr))

    def join_itself(self, join: syntax.Join, scope: Scope) -> list[Output]:
        """A join of the request's table with itself: OpenMLDB pairs the request with itself, whatever the condition."""
        if join.order is not None:
            raise self.planning.refuse("ORDER BY in a join of the main table with itself", join.order.at)
        if isinstance(join.source, syntax.SubSelect):
            columns, where = self.nested(join.source)
            if where is not None:
                raise self.planning.refuse("WHERE in a join of the main table with itself", join.source.at)
        elif self.planning.main is not None:
            columns = columns_of(self.planning.main, join.source, self.planning.database)
        self.binder.condition(join.condition, Scope(scope.columns + columns))
        return columns


def constant(expr: syntax.Expr) -> bool:
    """Whether an expression has no columns."""
    return not isinstance(expr, syntax.Name) and all(constant(child) for child in children(expr))


def _union_of(source: syntax.Source) -> syntax.SubSelect | None:
    """The UNION ALL that a source is, `SELECT *` of one included."""
    alias, at = source.alias, source.at
    while isinstance(source, syntax.SubSelect) and not source.more:
        select = source.select
        if [type(item.expr) for item in select.items] != [syntax.Star] or select.source is None:
            return None
        if select.joins or select.where is not None or select.windows or select.distinct or select.limit is not None:
            return None
        source = select.source
    return syntax.SubSelect(source.select, alias, at, source.more) if isinstance(source, syntax.SubSelect) else None


def _as_keys(a: Type, b: Type) -> bool:
    """Whether values of two types are equal where their texts in a key are."""
    if Type.STRING in (a, b):
        other = a if b == Type.STRING else b
        return is_integer(other) or other == Type.BOOL
    return all(is_integer(kind) or kind == Type.TIMESTAMP for kind in (a, b))


def tables_of(node: Node) -> set[QueryTable]:
    """The tables of an expression's columns."""
    return {part.base for part in walk(node) if isinstance(part, (ColumnNode, Missing))}


def left_joined_in(node: Node, base: QueryTable) -> set[QueryTable]:
    """The tables that LEFT JOINs have joined to `base`'s rows, of those in an expression."""
    return {left for left in tables_of(node) if left.several and left is not base}


def tables_read_by(base: QueryTable) -> set[QueryTable]:
    """The tables that the join of a table looks at, to find its row."""
    if base.joined is None:
        return set()
    nodes = [value for _, value in base.joined.key]
    nodes += [] if base.joined.condition is None else [base.joined.condition]
    found = {other for node in nodes for other in tables_of(node)} - {base}
    return found | {further for other in found for further in tables_read_by(other)}


def with_table_replaced(node: Node, old: QueryTable, new: QueryTable) -> Node:
    """An expression with one table's columns taken from another one."""
    if isinstance(node, (ColumnNode, Missing)):
        return dataclasses.replace(node, base=new) if node.base is old else node
    if isinstance(node, (Apply, PythonCall)):
        return dataclasses.replace(node, arguments=tuple(with_table_replaced(a, old, new) for a in node.arguments))
    return node


def _time(base: QueryTable) -> Node:
    """The column that orders the rows of a join."""
    if base.joined is None:
        raise TypeError("a table that is not joined")
    return ColumnNode(base.table.columns[base.joined.ts].type, base, base.joined.ts)
