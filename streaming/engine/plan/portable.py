"""What OpenMLDB's compiler refuses and the embedded engine answers: refused for a query that a cluster shall run."""

from __future__ import annotations

from streaming.engine.errors import UnsupportedSQL, error_at
from streaming.engine.plan.scope import children
from streaming.engine.sql import syntax

__all__ = ["check_portable"]

_LIST_MAX = 1_000

# Words that OpenMLDB's parser takes for no name unless they stand in backquotes, and the embedded one does.
_KEYWORDS = frozenset(
    """all any array assert_rows_modified at cast collate contains create cube current default define distinct enum
    except exists extract fetch following for grouping groups hash if ignore index intersect interval lateral lookup
    merge mod natural new no nulls of open outer preceding proto recursive respect rollup set some struct tablesample
    to treat unbounded unnest using with within""".split()  # noqa: SIM905
)


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
    _Checker(script).select(select, rows=False)


class _Checker:
    def __init__(self, script: str) -> None:
        self.script = script

    def refuse(self, what: str, at: int) -> UnsupportedSQL:
        return error_at(self.script, at, f"unsupported by OpenMLDB: {what}")

    def select(self, select: syntax.Select, rows: bool) -> None:
        """Checks a SELECT; `rows`: whether a window or a join reads the rows that it makes."""
        windowed = any(self.expression(item.expr) for item in select.items)
        for item in select.items:
            self.name(item)
            if rows and not windowed and not _plain(item.expr):
                raise self.refuse("a sub-query that computes, under a window or in a join", item.at)
        if select.where is not None:
            self.expression(select.where)
        for join in select.joins:
            self.expression(join.condition)
            self.source(join.source, rows=True)
        windows = [window for _, window in select.windows] + _inline(select)
        for window in windows:
            for union in window.unions:
                self.source(union, rows=True)
        if select.source is not None:
            self.source(select.source, rows=rows or windowed)

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

    def name(self, item: syntax.Item) -> None:
        """Checks the names that an item reads and gives."""
        names = [item.alias] if item.alias is not None else []
        names += item.expr.parts if isinstance(item.expr, syntax.Name) else []
        for name in names:
            if name.lower() in _KEYWORDS and f"`{name}`" not in self.script:
                raise self.refuse(f"the keyword {name} as a name without backquotes", item.at)


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


def _inline(select: syntax.Select) -> list[syntax.Window]:
    """The windows that stand behind OVER themselves."""
    found: list[syntax.Window] = []
    waiting = [item.expr for item in select.items]
    while waiting:
        expr = waiting.pop()
        waiting += children(expr)
        if isinstance(expr, syntax.Over) and isinstance(expr.window, syntax.Window):
            found.append(expr.window)
    return found
