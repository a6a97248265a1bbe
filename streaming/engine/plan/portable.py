"""What OpenMLDB's compiler refuses and the embedded engine answers: refused for a query that a cluster shall run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from streaming.engine.errors import UnsupportedSQL, error_at
from streaming.engine.kernels.instructions import Op
from streaming.engine.library.statistics import first_known, last_known
from streaming.engine.plan.casts import is_numeric
from streaming.engine.plan.functions import common_type
from streaming.engine.plan.nodes import Aggregate, Const, Node
from streaming.engine.plan.scope import aggregates, children
from streaming.engine.sql import syntax
from streaming.engine.types import Type

__all__ = ["CompiledCases", "check_names", "check_portable"]

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


class CompiledCases:
    """Which CASEs of an item OpenMLDB's compiler fails at, with "fail to verify codegen module".

    Where a CASE, IFNULL or NVL2 asks nothing of an aggregate, one that is in a branch is computed in that branch alone.
    Then its value cannot be cast to the type of the other branches, and for what it stands in behind a THEN, nor can
    the ELSE; and a text, a date or a time behind that THEN needs an ELSE. Around all of that a CASE that asks something
    of an aggregate mends it, but not in an aggregate's arguments.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._failing: list[tuple[int, bool]] = []  # offsets, and whether in an aggregate's arguments

    @contextlib.contextmanager
    def arguments_of_aggregate(self) -> Iterator[None]:
        """What is met in this context stands in an aggregate's arguments."""
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    def mark(self) -> int:
        """A place: what is met from here on is behind it."""
        return len(self._failing)

    def case(self, tests: Sequence[Node], branches: Sequence[Node], mark: int, at: int) -> None:
        """A CASE was met: what it asks, and its branches, before they become one type; they are behind the mark."""
        if not self._inside and any(map(_folds, tests)):
            self._failing[mark:] = [failing for failing in self._failing[mark:] if failing[1]]
        elif _fails(branches):
            self._failing.append((at, self._inside > 0))

    def first_failing(self) -> int | None:
        """The offset of one that is not compiled, and forgets all."""
        failing, self._failing = self._failing, []
        return failing[0][0] if failing else None


def _fails(branches: Sequence[Node]) -> bool:
    last = branches[-1]
    kind, folds = last.type, _folds(last)
    constant = isinstance(last, Const)
    for kept in reversed(branches[:-1]):  # two by two from the last, as the CASE is nested
        kinds = {kept.type, kind} - {Type.NULL}
        if not kinds:
            return False  # it has no type at all, and is refused for that
        common = common_type(kinds)
        number = constant and is_numeric(kind) and is_numeric(common)  # its cast is a constant
        casts_last = kind not in (Type.NULL, common) and not number
        if _folds(kept):
            null = kind == Type.NULL and common in (Type.STRING, Type.DATE, Type.TIMESTAMP)
            if casts_last or null or kept.type != common:
                return True
        elif folds and casts_last:
            return True
        kind, folds, constant = common, folds or _folds(kept), False
    return False


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
