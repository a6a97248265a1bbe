"""A SELECT -> typed expressions over tables, joins and windows: names resolved, types checked, all else refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from streaming.engine import functions as f
from streaming.engine import syntax as s
from streaming.engine.bind import literal
from streaming.engine.errors import point
from streaming.engine.nodes import Base, Const, Node
from streaming.engine.plan_joins import JoinPlanner
from streaming.engine.scope import Output, Scope, columns_of
from streaming.engine.strings import Pool
from streaming.engine.table import Table

__all__ = ["Output", "Query", "constant", "plan"]


@dataclass(frozen=True)
class Query:
    """What a SELECT computes, per row of `main` (None: it has no FROM)."""

    main: Base | None
    outputs: tuple[Output, ...]
    where: Node | None
    limit: int | None


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
        return literal(expr, pool)
    raise point(script, expr.at, "unsupported: a value that is not a constant")


class _Planner(JoinPlanner):
    """Binds SELECTs and what they read."""

    def query(self, select: s.Select) -> Query:
        outputs, where = self.select(select)
        if where is not None and self.windowed:
            raise self.refuse("WHERE beside windows", select.at if select.where is None else select.where.at)
        return Query(self.main, tuple(outputs), where, select.limit)

    def select(self, select: s.Select) -> tuple[list[Output], Node | None]:
        """The outputs of a SELECT whose leftmost table is the request's, and the conditions on its rows."""
        columns: list[Output] = []
        where: Node | None = None
        if select.source is not None:
            columns, where = self.main_source(select.source)
        scope = Scope(columns, dict(select.windows), {})
        for join in select.joins:
            scope.columns = scope.columns + self.join(join, scope)
        if select.where is not None:
            where = f.both(where, self.condition(select.where, scope))
        outputs: list[Output] = []
        for item in select.items:
            outputs += self.item(item, scope)
        return outputs, where

    def main_source(self, source: s.Source) -> tuple[list[Output], Node | None]:
        if isinstance(source, s.TableRef):
            table = self.table(source.name, source.at)
            if self.main is None:
                self.main = Base(table)
            elif self.main.table is not table:
                raise self.refuse("a sub-query over another table than the main one", source.at)
            return columns_of(self.main, source.alias or source.name[-1]), None
        return self.nested(source)

    def nested(self, source: s.SubSelect) -> tuple[list[Output], Node | None]:
        outputs, where = self.select(source.select)
        if source.select.limit is not None:
            raise self.refuse("LIMIT in a sub-query", source.at)
        return [dataclasses.replace(output, table=source.alias) for output in outputs], where

    def scan(self, source: s.Source, what: str) -> tuple[Base, list[Output], Node | None]:
        """A stored table, or a sub-query that projects, filters and joins one: its rows, columns and condition."""
        if isinstance(source, s.TableRef):
            base = Base(self.table(source.name, source.at))
            return base, columns_of(base, source.alias or source.name[-1]), None
        select = source.select
        if select.windows or select.limit is not None or select.source is None:
            raise self.refuse(f"a sub-query with windows or LIMIT as {what}", source.at)
        base, columns, where = self.scan(select.source, what)
        scope = Scope(columns, {}, {})
        for join in select.joins:
            scope.columns = scope.columns + self.join(join, scope, base)
        if select.where is not None:
            where = f.both(where, self.condition(select.where, scope))
        outputs: list[Output] = []
        for item in select.items:
            outputs += self.item(item, scope)
        return base, [dataclasses.replace(output, table=source.alias) for output in outputs], where

    def item(self, item: s.Item, scope: Scope) -> list[Output]:
        if isinstance(item.expr, s.Star):
            table = item.expr.table
            found = [c for c in scope.columns if table is None or c.table == table]
            if not found:
                raise point(self.script, item.at, f"unknown table {table}" if table else "nothing to select")
            return [dataclasses.replace(column, table=None) for column in found]
        node = self.bind(item.expr, scope)
        return [Output(item.text if item.alias is None else item.alias, None, node)]
