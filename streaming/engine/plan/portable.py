"""What OpenMLDB's compiler refuses and the embedded engine answers: refused for a query that a cluster shall run."""

from __future__ import annotations

from streaming.engine.errors import UnsupportedSQL, error_at
from streaming.engine.kernels.instructions import Op
from streaming.engine.library.statistics import first_known, last_known
from streaming.engine.plan.nodes import Aggregate, Apply, Const, Node, PythonAggregate, PythonCall
from streaming.engine.plan.scope import aggregates, children
from streaming.engine.sql import syntax
from streaming.engine.types import Type

__all__ = ["check_names", "check_portable", "loses_aggregate"]

_LIST_MAX = 1_000


def check_portable(select: syntax.Select, script: str) -> None:
    """Refuses what a query has that OpenMLDB's compiler does not take.

    A sub-query under a window or on the right of a join may hold columns, constants and casts of these: it is computed
    row by row there, and OpenMLDB has then no index to look into. A window may stand in it, and then anything else.

    Args:
        select: the query.
        script: the text that it is from.

    Raises:
        UnsupportedSQL: names the place.
    """
    check_names(select, script)
    checker = _Checker(script)
    checker.select(select, rows=False)
    checker.main(select)


def check_names(statement: syntax.Select | syntax.CreateTable, script: str) -> None:
    """Refuses names without backquotes that OpenMLDB's parser does not read as names.

    Raises:
        UnsupportedSQL: names the place.
    """
    for at, word in statement.keywords:
        kind = "keyword" if word.isascii() else "word"
        raise _Checker(script).refuse(f"the {kind} {word} as a name without backquotes", at)


def loses_aggregate(node: Node, inside: bool = False, asked: bool = False) -> bool:
    """Whether an item has a CASE that OpenMLDB's compiler fails at ("fail to verify codegen module").

    It is one without ELSE, or whose ELSE is NULL, of a text, a date or a time that an aggregate is part of. Outside of
    other aggregates it is compiled after all where it, or a CASE around it, asks something of an aggregate.

    Args:
        inside: whether the node is an argument of an aggregate.
        asked: whether a CASE around it asks something of an aggregate.
    """
    if isinstance(node, (Aggregate, PythonAggregate)):
        below = node.arguments if isinstance(node, PythonAggregate) else (node.value, node.condition)
        return any(part is not None and loses_aggregate(part, inside=True) for part in below)
    if not isinstance(node, (Apply, PythonCall)):
        return False
    tests: list[Node] = []
    kept: list[Node] = []
    last: Node = node
    while isinstance(last, Apply) and last.op == Op.SELECT:
        tests.append(last.arguments[0])
        kept.append(last.arguments[1])
        last = last.arguments[2]
    if not kept:
        return any(loses_aggregate(part, inside, asked) for part in node.arguments)
    if any(loses_aggregate(test, inside, asked) for test in tests):
        return True
    asked = asked or (not inside and any(map(_folds, tests)))
    if not asked and isinstance(last, Const) and last.null and _folds(kept[-1]):
        return last.type in (Type.STRING, Type.DATE, Type.TIMESTAMP)
    return any(loses_aggregate(part, inside, asked) for part in (*kept, last))


def _folds(node: Node) -> bool:
    """Whether there is an aggregate in it that is not one row's value."""
    return any(
        one.kind not in (Op.AT, Op.OLDEST)
        if isinstance(one, Aggregate)
        else one.function not in (first_known, last_known)
        for one in aggregates(node)
    )


class _Checker:
    def __init__(self, script: str) -> None:
        self.script = script

    def refuse(self, what: str, at: int) -> UnsupportedSQL:
        return error_at(self.script, at, f"unsupported by OpenMLDB: {what}")

    def select(self, select: syntax.Select, rows: bool) -> None:
        """Checks a SELECT; `rows`: whether a window or a join reads the rows that it makes."""
        windowed = False
        for item in select.items:  # all of them are checked, also behind the first that has a window
            windowed |= self.expression(item.expr)
        for item in select.items:
            if rows and not windowed and not _plain(item.expr):
                raise self.refuse("a sub-query that computes, under a window or in a join", item.at)
        if select.where is not None:
            self.expression(select.where)
        for join in select.joins:
            self.expression(join.condition)
            self.source(join.source, rows=True)
        used, windows = _windows(select)
        self.names(select, used, rows)
        for window in windows:
            for union in window.unions:
                self.source(union, rows=True)
        if select.source is not None:
            self.source(select.source, rows=rows or windowed)

    def names(self, select: syntax.Select, windows: list[syntax.Window], rows: bool) -> None:
        """Checks what the windows of a SELECT call their table: OpenMLDB finds its index under no alias.

        Args:
            windows: those that an item is over.
            rows: whether a join reads the SELECT's rows.
        """
        tables = {*_tables(select.source), *(name for join in select.joins for name in _tables(join.source))}
        for window in windows:
            for column in (*window.partition, *([] if window.order is None else [window.order])):
                if len(column.parts) > 1 and column.parts[-2] not in tables:
                    raise self.refuse(f"a window over {'.'.join(column.parts)}, by the alias of a table", column.at)
        below: syntax.Select | None = select if windows else None
        while below is not None and below.source is not None:
            if below.source.alias is not None and (below.joins or (rows and below is select)):
                raise self.refuse("a window over rows of a join whose left side has an alias", below.source.at)
            below = below.source.select if isinstance(below.source, syntax.SubSelect) else None

    def main(self, select: syntax.Select) -> None:
        """Checks the SELECT that a request's row goes through: OpenMLDB fails every request of one with a WHERE."""
        if select.where is not None:
            raise self.refuse("WHERE of a request's rows", select.where.at)
        if isinstance(select.source, syntax.SubSelect):
            self.main(select.source.select)

    def source(self, source: syntax.Source, rows: bool) -> None:
        if isinstance(source, syntax.SubSelect):
            tables: list[tuple[str, ...]] = []
            for select in (source.select, *source.more):
                self.select(select, rows)
                tables += _leftmost(select)
            if len(set(tables)) < len(tables):
                raise self.refuse("UNION ALL of a table with itself", source.at)

    def expression(self, expr: syntax.Expr) -> bool:
        """Checks an expression; whether it has a window."""
        if isinstance(expr, syntax.IsNull):
            raise self.refuse("IS NULL (isnull(x) says the same)", expr.at)
        if isinstance(expr, syntax.In) and len(expr.choices) > _LIST_MAX:
            raise self.refuse(f"IN with a list of more than {_LIST_MAX}", expr.at)
        windowed = isinstance(expr, syntax.Over)
        for child in children(expr):
            windowed |= self.expression(child)
        return windowed


def _plain(expr: syntax.Expr) -> bool:
    """Whether it is a column, a constant, or a cast of these."""
    if isinstance(expr, syntax.Cast):
        return _plain(expr.operand)
    return isinstance(expr, (syntax.Name, syntax.Star, syntax.Literal))


def _leftmost(select: syntax.Select) -> list[tuple[str, ...]]:
    """The table that a SELECT begins with, if it has a FROM."""
    source = select.source
    while isinstance(source, syntax.SubSelect):
        source = source.select.source
    return [] if source is None else [source.name]


def _tables(source: syntax.Source | None) -> list[str]:
    """The names of the tables that a source reads."""
    if isinstance(source, syntax.SubSelect):
        selects = (source.select, *source.more)
        return [name for one in selects for of in (one.source, *(j.source for j in one.joins)) for name in _tables(of)]
    return [] if source is None else [source.name[-1]]


def _windows(select: syntax.Select) -> tuple[list[syntax.Window], list[syntax.Window]]:
    """The windows that an item is over, and these with all of the WINDOW clause."""
    named = dict(select.windows)
    inline: list[syntax.Window] = []
    used: dict[str, syntax.Window] = {}
    waiting = [item.expr for item in select.items]
    while waiting:
        expr = waiting.pop()
        waiting += children(expr)
        if isinstance(expr, syntax.Over):
            if isinstance(expr.window, syntax.Window):
                inline.append(expr.window)
            elif expr.window in named:
                used[expr.window] = named[expr.window]
    return [*used.values(), *inline], [*named.values(), *inline]
