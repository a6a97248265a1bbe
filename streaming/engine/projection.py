"""Expressions over the rows of one table, computed over whole batches: a SELECT without windows, joins and a store.

What an application makes of its events (`streaming.app`) is such: CHECKs, and the items of INSERT … SELECT. All
expressions of a stream are one program, so that what several of them have in common is computed once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from streaming.engine.errors import error_at
from streaming.engine.plan.nodes import ColumnNode, Const, Node
from streaming.engine.plan.scope import aggregates, walk
from streaming.engine.plan.select import Output, Query, plan
from streaming.engine.program.compiled_query import compile_query, request_words
from streaming.engine.program.runner import Runner
from streaming.engine.sql import syntax
from streaming.engine.storage.strings import StringPool
from streaming.engine.storage.table import Column, Table
from streaming.engine.types import Type

__all__ = ["Expression", "Projection"]

# Texts of former batches that may stay in the pool: the same ones come again and again.
_TEXTS_MAX = 1 << 16


@dataclass(frozen=True)
class Expression:
    """What is known of an expression before it runs.

    Attributes:
        type: of its values.
        column: the column that it is, and nothing else; None: it is computed.
        columns: those that it reads; empty: it is constant.
        null: whether it is the constant NULL.
    """

    type: Type
    column: str | None
    columns: frozenset[str]
    null: bool


class Projection:
    """Expressions over rows of a table, planned and compiled once.

    Args:
        name: of the table, by which its columns may be qualified.
        columns: of the table.
        expressions: what is computed; over no window.
        script: the text that they are from, for messages.

    Attributes:
        expressions: what is known of each, in their order.

    Raises:
        UnsupportedSQL: an unknown column, types that do not fit, an aggregate; with its place in `script`.
    """

    def __init__(
        self, name: str, columns: Sequence[Column], expressions: Sequence[syntax.Expr], script: str
    ) -> None:
        self._pool = StringPool()
        table = Table("", name, columns)
        outputs: list[Output] = []
        query = Query(None, (), None, None)
        if expressions:
            for expr in expressions:
                if isinstance(expr, syntax.Star):
                    raise error_at(script, expr.at, "unsupported: `*` here")
            items = tuple(syntax.Item(expr, f"e{i}", "", expr.at) for i, expr in enumerate(expressions))
            at = expressions[0].at
            select = syntax.Select(items, syntax.TableRef((name,), None, at), (), None, (), None, at)
            query = plan(select, script, "", lambda found: table if found == (name,) else None, self._pool)
            outputs = list(query.outputs)
        for output, expr in zip(outputs, expressions, strict=True):
            if aggregates(output.node):
                raise error_at(script, expr.at, "unsupported: an aggregate")
        self._nodes = [output.node for output in outputs]
        self.expressions = tuple(_described(node, table) for node in self._nodes)
        # Columns that only pass through are taken as they came: their texts need not be interned.
        computed = tuple(output for output in outputs if not isinstance(output.node, ColumnNode))
        self._compiled = None
        if computed:
            self._compiled = compile_query(name, Query(query.main, computed, None, None), strict=False)
        self._runner = Runner(self._pool, _no_clock)
        self._lasting = self._pool.count

    def __call__(self, rows: pa.Table) -> list[pa.Array | pa.ChunkedArray]:
        """The values of each expression, in the order of the rows.

        Args:
            rows: every column of the table.

        Raises:
            BadRow: a column is missing or of another type.
        """
        answer: pa.Table | None = None
        if self._compiled is not None:
            if self._pool.count - self._lasting > _TEXTS_MAX:
                self._pool.truncate(self._lasting)
            words = request_words(self._compiled, rows, self._pool)
            answer = self._runner.answer(self._compiled, words, self._compiled.no_limits)
        values: list[pa.Array | pa.ChunkedArray] = []
        place = 0
        for node, known in zip(self._nodes, self.expressions, strict=True):
            if known.column is not None:
                values.append(rows.column(known.column))
            elif answer is not None:
                values.append(answer.column(place))
                place += 1
            else:
                raise TypeError(node)
        return values


def _described(node: Node, table: Table) -> Expression:
    read = frozenset(table.columns[part.position].name for part in walk(node) if isinstance(part, ColumnNode))
    column = table.columns[node.position].name if isinstance(node, ColumnNode) else None
    return Expression(node.type, column, read, isinstance(node, Const) and node.null)


def _no_clock() -> int:
    return time.time_ns() // 1_000_000  # no row of a store is read, so nothing can be too old
