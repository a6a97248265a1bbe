"""A SELECT -> typed expressions over tables, joins and windows: names resolved, types checked, all else refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streaming.engine import functions as f
from streaming.engine import syntax as s
from streaming.engine.errors import UnsupportedSQL, point
from streaming.engine.machine import Op
from streaming.engine.nodes import Aggregate, Apply, Base, Column, Const, Element, Group, Host, Joined, Node
from streaming.engine.strings import Pool
from streaming.engine.table import Table
from streaming.engine.types import Type, is_integer, to_word
from streaming.engine.windowed import AGGREGATES, canonical

__all__ = ["Output", "Query", "constant", "plan"]


@dataclass(frozen=True)
class Output:
    """A named column of a (sub-)query. `table`: the name by which `table.column` finds it."""

    name: str
    table: str | None
    node: Node


@dataclass(frozen=True)
class Query:
    """What a SELECT computes, per row of `main` (None: it has no FROM)."""

    main: Base | None
    outputs: tuple[Output, ...]
    where: Node | None
    limit: int | None


@dataclass
class _Scope:
    """Where names are looked up."""

    columns: list[Output]
    windows: dict[str, s.Window]
    groups: dict[object, Group]


@dataclass(frozen=True)
class _Frame:
    group: Group
    number: int
    window: s.Window
    scope: _Scope


def plan(select: s.Select, script: str, find: Callable[[tuple[str, ...]], Table | None], pool: Pool) -> Query:
    """Resolves `select`, whose text is in `script`.

    Args:
        find: a table by its name or (database, name).
        pool: where the constants' texts are interned, for good.

    Raises:
        UnsupportedSQL: an unknown name, a type that does not fit, or a construct that the engine does not run.
    """
    return _Planner(script, find, pool).query(select)


def constant(expr: s.Expr, script: str, pool: Pool) -> Const:
    """The value of a constant expression of literals, as INSERT has them."""
    if isinstance(expr, s.Literal):
        return _literal(expr, pool)
    raise point(script, expr.at, "unsupported: a value that is not a constant")


def _literal(literal: s.Literal, pool: Pool) -> Const:
    if literal.value is None:
        return Const(Type.NULL, 0, True)
    if isinstance(literal.value, str):
        return Const(Type.STRING, pool.code(literal.value))
    return Const(literal.type, to_word(literal.type, literal.value))


class _Planner:
    def __init__(self, script: str, find: Callable[[tuple[str, ...]], Table | None], pool: Pool) -> None:
        self.script = script
        self.find = find
        self.pool = pool
        self.main: Base | None = None

    def refuse(self, what: str, at: int) -> UnsupportedSQL:
        """The error for a construct that is known and not supported."""
        return point(self.script, at, f"unsupported: {what}")

    def table(self, name: tuple[str, ...], at: int) -> Table:
        found = self.find(name)
        if found is None:
            raise point(self.script, at, f"unknown table {'.'.join(name)}")
        return found

    # -- relations -------------------------------------------------------------------------------------------------

    def query(self, select: s.Select) -> Query:
        outputs, where = self.select(select)
        return Query(self.main, tuple(outputs), where, select.limit)

    def select(self, select: s.Select) -> tuple[list[Output], Node | None]:
        """The outputs of a SELECT whose leftmost table is the request's."""
        if select.source is None:
            columns: list[Output] = []
        else:
            columns = self.main_source(select.source)
        scope = _Scope(columns, dict(select.windows), {})
        for join in select.joins:
            scope.columns = scope.columns + self.join(join, scope)
        where = None
        if select.where is not None:
            if select.windows:
                raise self.refuse("WHERE beside windows", select.where.at)
            where = self.condition(select.where, scope)
        outputs: list[Output] = []
        for item in select.items:
            outputs += self.item(item, scope)
        return outputs, where

    def main_source(self, source: s.Source) -> list[Output]:
        if isinstance(source, s.TableRef):
            table = self.table(source.name, source.at)
            if self.main is None:
                self.main = Base(table)
            elif self.main.table is not table:
                raise self.refuse("a sub-query over another table than the main one", source.at)
            return _columns(self.main, source.alias or source.name[-1])
        return self.nested(source)

    def nested(self, source: s.SubSelect) -> list[Output]:
        outputs, where = self.select(source.select)
        if where is not None:
            raise self.refuse("WHERE in the main sub-query", source.at)
        if source.select.limit is not None:
            raise self.refuse("LIMIT in a sub-query", source.at)
        return [dataclasses.replace(output, table=source.alias) for output in outputs]

    def leftmost(self, source: s.Source | None) -> Table | None:
        while isinstance(source, s.SubSelect):
            source = source.select.source
        return None if source is None else self.table(source.name, source.at)

    def scan(self, source: s.Source, what: str) -> tuple[Base, list[Output], Node | None]:
        """A stored table, or a sub-query that projects and filters one."""
        if isinstance(source, s.TableRef):
            base = Base(self.table(source.name, source.at))
            return base, _columns(base, source.alias or source.name[-1]), None
        select = source.select
        if select.joins or select.windows or select.limit is not None or select.source is None:
            raise self.refuse(f"a sub-query with joins, windows or LIMIT as {what}", source.at)
        base, columns, inner = self.scan(select.source, what)
        scope = _Scope(columns, {}, {})
        where = inner
        if select.where is not None:
            own = self.condition(select.where, scope)
            where = own if inner is None else f.logic("and", inner, own)
        outputs: list[Output] = []
        for item in select.items:
            outputs += self.item(item, scope)
        return base, [dataclasses.replace(output, table=source.alias) for output in outputs], where

    def item(self, item: s.Item, scope: _Scope) -> list[Output]:
        if isinstance(item.expr, s.Star):
            table = item.expr.table
            found = [c for c in scope.columns if table is None or c.table == table]
            if not found:
                raise point(self.script, item.at, f"unknown table {table}" if table else "nothing to select")
            return [dataclasses.replace(column, table=None) for column in found]
        node = self.bind(item.expr, scope)
        name = item.alias
        if name is None:
            name = item.expr.parts[-1] if isinstance(item.expr, s.Name) else item.text
        return [Output(name, None, node)]

    # -- joins -----------------------------------------------------------------------------------------------------

    def join(self, join: s.Join, scope: _Scope) -> list[Output]:
        if join.kind != "last":
            raise self.refuse(f"{join.kind.upper()} JOIN", join.at)
        if (
            isinstance(join.source, s.SubSelect)
            and self.main is not None
            and self.leftmost(join.source) is self.main.table
        ):
            return self.pair(join, join.source, scope)
        if isinstance(join.source, s.TableRef) and self.main and self.find(join.source.name) is self.main.table:
            raise self.refuse("LAST JOIN of the main table with itself", join.source.at)
        base, columns, where = self.scan(join.source, "the right side of a LAST JOIN")
        both = _Scope(scope.columns + columns, {}, {})
        key: dict[int, Node] = {}
        rest: list[Node] = [] if where is None else [where]
        for part in _conjuncts(join.condition):
            pair = self.equality(part, scope, columns, base)
            if pair is not None and pair[0] not in key:
                key[pair[0]] = pair[1]
            else:
                rest.append(self.condition(part, both))
        if not key:
            raise self.refuse("LAST JOIN without an equality of a column", join.condition.at)
        ts = -1
        if join.order is not None:
            if join.descending:
                raise self.refuse("LAST JOIN … ORDER BY … DESC", join.order.at)
            order = self.name(join.order, _Scope(columns, {}, {}))
            if not isinstance(order, Column) or order.type not in (Type.TIMESTAMP, Type.BIGINT):
                raise self.refuse("ORDER BY something else than a timestamp or bigint column", join.order.at)
            ts = order.position
        else:
            ts = self.order_of_index(base.table, set(key), join.at)
        condition: Node | None = None
        for part_node in rest:
            condition = part_node if condition is None else f.logic("and", condition, part_node)
        base.joined = Joined(base, tuple(sorted(key.items())), ts, condition)
        return columns

    def order_of_index(self, table: Table, key: set[int], at: int) -> int:
        """The time column that orders a LAST JOIN without ORDER BY: that of the index by which OpenMLDB finds the key.

        Other equalities than the index's are tested row by row, in the index's order. -1: the last inserted first.
        """
        exact = [ts for columns, ts in table.declared if set(columns) == key]
        if exact:
            return exact[0]
        part = {ts for columns, ts in table.declared if set(columns) < key}
        if len(part) > 1:
            raise self.refuse("LAST JOIN without ORDER BY where several indexes match a part of the key", at)
        return part.pop() if part else -1

    def equality(
        self, part: s.Expr, scope: _Scope, columns: list[Output], base: Base
    ) -> tuple[int, Node] | None:  # fmt: skip
        """(column of the joined table, value) of a condition `column = value`; None for any other condition."""
        if not isinstance(part, s.Binary) or part.operator != "=":
            return None
        right = _Scope(columns, {}, {})
        for mine, other in ((part.left, part.right), (part.right, part.left)):
            if not isinstance(mine, s.Name):
                continue
            here = self.lookup(mine, right)
            if here is None or (len(mine.parts) == 1 and self.lookup(mine, scope) is not None):
                continue
            if not isinstance(here, Column) or here.base is not base or not self.known(other, scope):
                continue
            value = self.bind(other, scope)
            if here.type in (Type.FLOAT, Type.DOUBLE):
                continue
            if value.type == here.type or (is_integer(value.type) and is_integer(here.type)):
                return here.position, value
        return None

    def known(self, expr: s.Expr, scope: _Scope) -> bool:
        """Whether every name in `expr` is one of the scope's."""
        if isinstance(expr, s.Name):
            return self.lookup(expr, scope) is not None
        return all(self.known(child, scope) for child in _children(expr))

    def pair(self, join: s.Join, source: s.SubSelect, scope: _Scope) -> list[Output]:
        """A join of the request with a sub-query over the request: both are the same row, and the same request."""
        columns = self.nested(source)
        right = _Scope(columns, {}, {})
        for part in _conjuncts(join.condition):
            same = False
            if isinstance(part, s.Binary) and part.operator == "=":
                sides = [(part.left, part.right), (part.right, part.left)]
                for mine, other in sides:
                    if isinstance(mine, s.Name) and isinstance(other, s.Name):
                        here, there = self.lookup(mine, right), self.lookup(other, scope)
                        same = same or (here is not None and here == there and isinstance(here, Column))
            if not same:
                raise self.refuse("a join of the main table with itself by more than a column = itself", part.at)
        if join.order is not None:
            raise self.refuse("ORDER BY in a join of the main table with itself", join.order.at)
        return columns

    # -- windows ---------------------------------------------------------------------------------------------------

    def window(self, reference: str | s.Window, scope: _Scope, at: int) -> _Frame:
        if isinstance(reference, str):
            if reference not in scope.windows:
                raise point(self.script, at, f"unknown window {reference}")
            window = scope.windows[reference]
        else:
            window = reference
        frame = window.frame
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
        return _Frame(group, number, window, scope)

    def group(self, window: s.Window, scope: _Scope, own_row: bool) -> Group:
        """The windows over these rows; the same one for every window that differs in its frame only."""
        identity = (
            tuple(_identity(u) for u in window.unions),
            tuple(name.parts for name in window.partition),
            window.order.parts if window.order else None,
            window.instance_not_in_window,
            own_row,
            window.exclude_current_time,
        )
        found = scope.groups.get(identity)
        if found is None:
            found = scope.groups[identity] = self.rows_of(window, scope, own_row)
        return found

    def rows_of(self, window: s.Window, scope: _Scope, own_row: bool) -> Group:
        if self.main is None:
            raise self.refuse("a window without a table", window.at)
        if not window.partition:
            raise self.refuse("a window without PARTITION BY", window.at)
        if window.order is None:
            raise self.refuse("a window without ORDER BY", window.at)
        if window.descending:
            raise self.refuse("ORDER BY … DESC in a window", window.order.at)
        own = tuple(output.node for output in scope.columns)
        key = tuple(self.position(name, scope) for name in window.partition)
        time = self.position(window.order, scope)
        if own[time].type not in (Type.TIMESTAMP, Type.BIGINT):
            raise self.refuse(f"ORDER BY a {own[time].type} in a window", window.order.at)
        for place, name in zip(key, window.partition, strict=True):
            if own[place].type in (Type.FLOAT, Type.DOUBLE):
                raise self.refuse(f"PARTITION BY a {own[place].type}", name.at)
        sources: list[tuple[Base, tuple[Node, ...]]] = []
        if not window.instance_not_in_window:
            sources.append((self.main, own))
        for union in window.unions:
            base, columns, where = self.scan(union, "a UNION of a window")
            if where is not None:
                raise self.refuse("WHERE in a UNION of a window", union.at)
            nodes = tuple(output.node for output in columns)
            if [n.type for n in nodes] != [n.type for n in own]:
                raise self.refuse("a UNION whose columns are not those of the main table", union.at)
            sources.append((base, nodes))
        for base, nodes in sources:
            for place in (*key, time):
                node = nodes[place]
                if not isinstance(node, Column) or node.base is not base:
                    raise self.refuse("PARTITION BY or ORDER BY something that is not a table's column", window.at)
        return Group(own, tuple(sources), key, time, own_row, window.exclude_current_time)

    def position(self, name: s.Name, scope: _Scope) -> int:
        found = [i for i, output in enumerate(scope.columns) if _matches(output, name)]
        if len(found) != 1:
            raise point(self.script, name.at, f"{'ambiguous' if found else 'unknown'} column {'.'.join(name.parts)}")
        return found[0]

    # -- expressions -----------------------------------------------------------------------------------------------

    def lookup(self, name: s.Name, scope: _Scope) -> Node | None:
        found = {output.node for output in scope.columns if _matches(output, name)}
        if len(found) > 1:
            raise point(self.script, name.at, f"ambiguous column {'.'.join(name.parts)}")
        return found.pop() if found else None

    def name(self, name: s.Name, scope: _Scope) -> Node:
        node = self.lookup(name, scope)
        if node is None:
            raise point(self.script, name.at, f"unknown column {'.'.join(name.parts)}")
        return node

    def condition(self, expr: s.Expr, scope: _Scope) -> Node:
        node = self.bind(expr, scope)
        try:
            return f.condition(node)
        except f.Mismatch as error:
            raise self.refuse(str(error), expr.at) from None

    def bind(self, expr: s.Expr, scope: _Scope, over: _Frame | None = None) -> Node:
        """The typed expression; `over`: the window of the aggregates in it."""
        try:
            return self._bind(expr, scope, over)
        except f.Mismatch as error:
            what = f"{expr.function}() of " if isinstance(expr, s.Call) else ""
            raise self.refuse(f"{what}{error}", expr.at) from None

    def _bind(self, expr: s.Expr, scope: _Scope, over: _Frame | None) -> Node:
        if isinstance(expr, s.Literal):
            try:
                return _literal(expr, self.pool)
            except OverflowError:
                raise self.refuse(f"the number {expr.value}", expr.at) from None
        if isinstance(expr, s.Name):
            return self.name(expr, scope)
        if isinstance(expr, s.Over):
            if over is not None:
                raise self.refuse("OVER inside OVER", expr.at)
            return self.bind(expr.operand, scope, self.window(expr.window, scope, expr.at))
        if isinstance(expr, s.Call):
            name = canonical(expr.function)
            if name in AGGREGATES:
                return self.aggregate(name, expr, scope, over)
            found = f.scalar(name, [self.bind(a, scope, over) for a in expr.arguments])
            if found is None:
                raise self.refuse(f"function {expr.function}", expr.at)
            return found
        if isinstance(expr, s.Cast):
            return f.cast(self.bind(expr.operand, scope, over), expr.type)
        if isinstance(expr, s.Unary):
            operand = self.bind(expr.operand, scope, over)
            if expr.operator == "not":
                return f.invert(f.truth(operand))
            if expr.operator == "-":
                return f.negate(operand)
            return f.complement(operand)
        if isinstance(expr, s.Binary):
            left, right = self.bind(expr.left, scope, over), self.bind(expr.right, scope, over)
            if expr.operator in ("and", "or", "xor"):
                return f.logic(expr.operator, f.truth(left), f.truth(right))
            if expr.operator in ("=", "!=", "<", "<=", ">", ">="):
                return f.compare(expr.operator, left, right)
            return f.arithmetic(expr.operator, left, right)
        if isinstance(expr, s.IsNull):
            node = f.is_null(self.bind(expr.operand, scope, over))
            return f.invert(node) if expr.negated else node
        if isinstance(expr, s.Between):
            operand = self.bind(expr.operand, scope, over)
            low, high = self.bind(expr.low, scope, over), self.bind(expr.high, scope, over)
            node = f.logic("and", f.compare(">=", operand, low), f.compare("<=", operand, high))
            return f.invert(node) if expr.negated else node
        if isinstance(expr, s.In):
            operand = self.bind(expr.operand, scope, over)
            tests = [f.compare("=", operand, self.bind(choice, scope, over)) for choice in expr.choices]
            node = tests[0]
            for test in tests[1:]:
                node = f.logic("or", node, test)
            return f.invert(node) if expr.negated else node
        if isinstance(expr, s.Like):
            arguments = [self.bind(expr.operand, scope, over), self.bind(expr.pattern, scope, over)]
            if expr.escape is not None:
                arguments.append(self.bind(expr.escape, scope, over))
            found = f.scalar("regexp_like" if expr.kind == "rlike" else f"{expr.kind}_match", arguments)
            if found is None:
                raise self.refuse(expr.kind.upper(), expr.at)
            return f.invert(found) if expr.negated else found
        if isinstance(expr, s.Case):
            return self.case(expr, scope, over)
        raise self.refuse("`*` here", expr.at)

    def case(self, expr: s.Case, scope: _Scope, over: _Frame | None) -> Node:
        operand = None if expr.operand is None else self.bind(expr.operand, scope, over)
        tests: list[Node] = []
        for when, _ in expr.whens:
            test = self.bind(when, scope, over)
            tests.append(f.condition(test) if operand is None else f.compare("=", operand, test))
        branches = [self.bind(then, scope, over) for _, then in expr.whens]
        null = Const(Type.NULL, 0, True)
        branches.append(null if expr.otherwise is None else self.bind(expr.otherwise, scope, over))
        branches = f.same_type(branches)
        node = branches[-1]
        for test, branch in zip(reversed(tests), reversed(branches[:-1]), strict=True):
            node = f.choose(test, branch, node)
        return node

    def aggregate(self, name: str, expr: s.Call, scope: _Scope, over: _Frame | None) -> Node:
        if over is None:
            raise self.refuse(f"aggregate {expr.function}() without a window", expr.at)
        inner = _Scope(
            [
                dataclasses.replace(column, node=Element(column.node.type, over.group, i))
                for i, column in enumerate(scope.columns)
            ],
            {},
            {},
        )
        arguments: list[Node] = []
        for i, argument in enumerate(expr.arguments):
            if isinstance(argument, s.Star):
                if i > 0 or name not in ("count", "count_where") or argument.table is not None:
                    raise self.refuse(f"`*` in {expr.function}()", argument.at)
                arguments.append(Const(Type.INT, 1))
            else:
                node = self.bind(argument, inner, over)
                if any(isinstance(n, Aggregate) and (n.kind != Op.AT or n.number > 0) for n in _walk(node)):
                    raise self.refuse("an aggregate of an aggregate", argument.at)
                arguments.append(node)
        if name in ("at", "lag"):
            return self.place(name, arguments, over)
        return AGGREGATES[name](over.group, over.number, arguments)

    def place(self, name: str, arguments: list[Node], over: _Frame) -> Node:
        """at() and lag(): the n-th row back from the request's, whatever the frame and the exclusion of that row."""
        group = self.group(over.window, over.scope, own_row=True)
        moved = [_in_group(argument, group) for argument in arguments]
        node = AGGREGATES[name](group, 0, moved)
        if not isinstance(node, Aggregate):
            raise TypeError(node)
        return dataclasses.replace(node, frame=group.frame((True, node.number, 0, 0)))


def _in_group(node: Node, group: Group) -> Node:
    """`node` with the columns of the window's rows taken from `group`, whose columns are the same."""
    if isinstance(node, Element):
        return dataclasses.replace(node, group=group)
    if isinstance(node, (Apply, Host)):
        return dataclasses.replace(node, arguments=tuple(_in_group(a, group) for a in node.arguments))
    return node


def _walk(node: Node) -> list[Node]:
    found = [node]
    for child in getattr(node, "arguments", ()):
        found += _walk(child)
    return found


def _columns(base: Base, table: str) -> list[Output]:
    return [Output(c.name, table, Column(c.type, base, i)) for i, c in enumerate(base.table.columns)]


def _matches(output: Output, name: s.Name) -> bool:
    if output.name != name.parts[-1]:
        return False
    return len(name.parts) == 1 or output.table == name.parts[-2]


def _conjuncts(expr: s.Expr) -> list[s.Expr]:
    if isinstance(expr, s.Binary) and expr.operator == "and":
        return _conjuncts(expr.left) + _conjuncts(expr.right)
    return [expr]


def _children(expr: s.Expr) -> Sequence[s.Expr]:
    found: list[s.Expr] = []
    for field in dataclasses.fields(expr):
        value = getattr(expr, field.name)
        for item in value if isinstance(value, tuple) else (value,):
            for part in item if isinstance(item, tuple) else (item,):
                if isinstance(part, (s.Literal, s.Name, s.Unary, s.Binary, s.Call, s.Cast, s.Case, s.IsNull, s.In,
                                     s.Between, s.Like, s.Over, s.Star)):  # fmt: skip
                    found.append(part)
    return found


def _identity(node: object) -> object:
    """A syntax node without its places, so that the same window written twice is one."""
    if isinstance(node, tuple):
        return tuple(_identity(part) for part in node)
    if dataclasses.is_dataclass(node):
        values = [(field.name, getattr(node, field.name)) for field in dataclasses.fields(node)]
        return (type(node), tuple(_identity(value) for name, value in values if name not in ("at", "text")))
    return node
