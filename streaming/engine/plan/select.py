"""A SELECT -> typed expressions over tables, joins and windows: names resolved, types checked, all else refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from streaming.engine.plan import functions
from streaming.engine.plan.expressions import Binder
from streaming.engine.plan.joins import JoinPlanner
from streaming.engine.plan.nodes import Node, QueryTable
from streaming.engine.plan.portable import check_portable
from streaming.engine.plan.scope import Output, Planning, Scope, aggregates, columns_of, named
from streaming.engine.plan.windows import WindowPlanner, check_lists, merge_conflict
from streaming.engine.sql import syntax
from streaming.engine.storage.strings import StringPool
from streaming.engine.storage.table import Table

__all__ = ["Output", "Query", "plan"]


@dataclass(frozen=True)
class Query:
    """What a SELECT computes, per row of `main` (None: it has no FROM).

    Attributes:
        main: the table of the requests.
        outputs: the columns of the answer.
        where: the condition on them; None: every request is answered.
        limit: the most rows of an answer offline; None: all.
        online_only: constructs that a request passes by, but that mean something offline: (what, offset in the script).
    """

    main: QueryTable | None
    outputs: tuple[Output, ...]
    where: Node | None
    limit: int | None
    online_only: tuple[tuple[str, int], ...] = ()


def plan(
    select: syntax.Select,
    script: str,
    database: str,
    find: Callable[[tuple[str, ...]], Table | None],
    pool: StringPool,
    *,
    portable: bool = False,
) -> Query:
    """Resolves `select`, whose text is in `script`.

    Args:
        database: the one in use, or '' for none.
        find: a table by its name or (database, name).
        pool: where the constants' texts are interned, for good.
        portable: whether to refuse what OpenMLDB's compiler does not take.

    Raises:
        UnsupportedSQL: an unknown name, a type that does not fit, or a construct that the engine does not run.
    """
    if portable:
        check_portable(select, script)
    planning = Planning(script, database, find, pool, portable=portable)
    outputs, where = _Planner(planning).select(select)
    nodes = [output.node for output in outputs] + ([] if where is None else [where])
    check_lists(planning, nodes)
    merged = merge_conflict(nodes)
    if merged is not None:
        group, what = merged
        raise planning.refuse(what, group.at)
    return Query(planning.main, tuple(outputs), where, select.limit, tuple(planning.online))


class _Planner:
    """Takes SELECTs apart: what they read, and what they make of it. Windows, joins and expressions have their own."""

    def __init__(self, planning: Planning) -> None:
        self.planning = planning
        self.binder = Binder(planning, WindowPlanner(planning, self.scan))
        self.joins = JoinPlanner(self.binder, self.scan, self.nested)

    def select(self, select: syntax.Select) -> tuple[list[Output], Node | None]:
        """The outputs of a SELECT whose leftmost table is the request's, and the conditions on its rows."""
        columns: list[Output] = []
        where: Node | None = None
        if select.source is not None:
            columns, where = self.main_source(select.source)
        elif select.where is not None:
            raise self.planning.refuse("WHERE without FROM", select.where.at)
        if select.distinct:
            self.planning.online.append(("SELECT DISTINCT", select.at))
        scope = Scope(columns, dict(select.windows))
        for join in select.joins:
            scope.columns = scope.columns + self.joins.join(join, scope)
        if select.where is not None:
            where = functions.conjunction(where, self.binder.condition(select.where, scope))
        scope.filtered = where is not None
        return self.items(select, scope), where

    def main_source(self, source: syntax.Source) -> tuple[list[Output], Node | None]:
        if isinstance(source, syntax.SubSelect):
            return self.nested(source)
        table = self.planning.table(source.name, source.at)
        if self.planning.main is None:
            self.planning.main = QueryTable(table)
        elif self.planning.main.table is not table:
            raise self.planning.refuse("a sub-query over another table than the main one", source.at)
        return columns_of(self.planning.main, source, self.planning.database), None

    def nested(self, source: syntax.SubSelect) -> tuple[list[Output], Node | None]:
        """A sub-query over the request's table."""
        if source.more:
            raise self.planning.refuse("UNION ALL of the request's table", source.at)
        outputs, where = self.select(source.select)
        if source.select.limit is not None:
            self.planning.online.append(("LIMIT in a sub-query", source.at))
        return named(outputs, source.alias, self.planning.database), where

    def scan(self, source: syntax.Source, what: str) -> tuple[QueryTable, list[Output], Node | None]:
        """A stored table, or a sub-query that projects, filters and joins one: its rows, columns and condition."""
        if isinstance(source, syntax.TableRef):
            base = QueryTable(self.planning.table(source.name, source.at))
            return base, columns_of(base, source, self.planning.database), None
        select = source.select
        if source.more:
            raise self.planning.refuse(f"UNION ALL in {what}", source.at)
        if select.source is None:
            raise self.planning.refuse(f"a sub-query without FROM as {what}", source.at)
        if select.limit is not None:
            raise self.planning.refuse(f"a sub-query with LIMIT as {what}", source.at)
        if select.distinct:
            self.planning.online.append(("SELECT DISTINCT", select.at))
        base, columns, where = self.scan(select.source, what)
        if any(aggregates(column.node) for column in columns):
            raise self.planning.refuse("a sub-query over one with windows, in a join", select.at)
        scope = Scope(columns, dict(select.windows), base=base)
        for join in select.joins:
            scope.columns = scope.columns + self.joins.join(join, scope, base)
        if select.where is not None:
            test = self.binder.condition(select.where, scope)
            if aggregates(test):
                raise self.planning.refuse("WHERE over a window of a joined sub-query", select.where.at)
            where = functions.conjunction(where, test)
        scope.filtered = where is not None
        return base, named(self.items(select, scope), source.alias, self.planning.database), where

    def items(self, select: syntax.Select, scope: Scope) -> list[Output]:
        """The columns that a SELECT makes of a scope's."""
        outputs: list[Output] = []
        for item in select.items:
            if isinstance(item.expr, syntax.Star):
                outputs += self.star(item.expr, scope)
                continue
            node = self.binder.item(item.expr, scope)
            failing = self.binder.cases.first_failing()
            if self.planning.portable and failing is not None:
                what = "an aggregate in a branch of a CASE whose branches have several types, or no ELSE"
                raise self.planning.wrong(f"unsupported by OpenMLDB: {what}", failing)
            name = item.text if item.alias is None else item.alias
            found = (
                [c for c in scope.columns if self.planning.matches(c, item.expr)]
                if isinstance(item.expr, syntax.Name)
                else []
            )
            made_by = found[0].made_by if found else item.expr
            outputs.append(Output(name, node, found[0].paths if found else frozenset(), made_by))
        return outputs

    def star(self, star: syntax.Star, scope: Scope) -> list[Output]:
        table = star.table
        found = [c for c in scope.columns if table is None or any(table == of for _, of, _ in c.paths)]
        if not found:
            raise self.planning.wrong(f"unknown table {table}" if table else "nothing to select", star.at)
        return found
