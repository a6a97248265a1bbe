"""Expressions over the rows of one table, computed over whole batches: a SELECT without windows, joins and a store.

What an application makes of its events (`streaming.app`) is such: CHECKs, and the items of INSERT … SELECT. All
expressions of a stream are one program, so that what several of them have in common is computed once.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from streaming.engine.errors import error_at
from streaming.engine.plan.nodes import Apply, ColumnNode, Const, Node, PythonCall, QueryTable
from streaming.engine.plan.scope import aggregates, walk
from streaming.engine.plan.select import Output, Query, plan
from streaming.engine.program.arrow_functions import Evaluator, arrow_evaluator
from streaming.engine.program.compiled_query import compile_query, request_words
from streaming.engine.program.runner import Runner
from streaming.engine.sql import syntax
from streaming.engine.storage.rows import schema_of
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

    def __init__(self, name: str, columns: Sequence[Column], expressions: Sequence[syntax.Expr], script: str) -> None:
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
        # What Arrow computes, and columns that only pass through, are not computed by kernels: no text is interned.
        self._by_arrow: list[Evaluator] = []
        self._arrow_columns: list[Column] = []
        self._arrow_places: dict[Node, ColumnNode] = {}
        self._width = len(columns)
        nodes = [node if query.main is None else self._with_arrow(node, query.main) for node in self._nodes]
        self._from: list[
            tuple[bool, int]
        ] = []  # of each expression: of the kernels' answer or of the rows, which column
        computed: list[Output] = []
        for i, node in enumerate(nodes):
            if isinstance(node, ColumnNode):
                self._from.append((False, node.position))
            else:
                self._from.append((True, len(computed)))
                computed.append(Output(f"e{i}", node))
        self._schema = pa.schema([])
        self._compiled = None
        if computed and query.main is not None:
            query.main.table = Table("", name, [*columns, *self._arrow_columns])
            self._schema = schema_of(query.main.table.columns)
            self._compiled = compile_query(name, Query(query.main, tuple(computed), None, None), strict=False)
        self._runner = Runner(self._pool, _no_clock)
        self._lasting = self._pool.count

    @property
    def texts_held(self) -> int:
        """How many texts of batches are held in memory; there is a limit."""
        return self._pool.count - self._lasting

    def __call__(self, rows: pa.RecordBatch) -> list[pa.Array]:
        """The values of each expression, in the order of the rows.

        Args:
            rows: every column of the table, in its order and of its types.
        """
        columns = list(rows.columns)
        for evaluate in self._by_arrow:
            value = evaluate(columns)
            columns.append(pa.repeat(value, rows.num_rows) if isinstance(value, pa.Scalar) else value)
        answer: Sequence[pa.ChunkedArray] = ()
        if self._compiled is not None:
            if self._pool.count - self._lasting > _TEXTS_MAX:
                self._pool.truncate(self._lasting)
            words = request_words(self._compiled, pa.RecordBatch.from_arrays(columns, schema=self._schema), self._pool)
            answer = self._runner.answer(self._compiled, words, self._compiled.no_limits).columns
        return [_whole(answer[place]) if by_kernel else columns[place] for by_kernel, place in self._from]

    def _with_arrow(self, node: Node, main: QueryTable) -> Node:
        """The node with what Arrow computes of it as further columns of the rows."""
        if isinstance(node, ColumnNode):
            return node
        if node in self._arrow_places:
            return self._arrow_places[node]
        if isinstance(node, (Apply, PythonCall)):
            # What an argument is computed to may be needed elsewhere, too.
            arguments = tuple(
                self._with_arrow(argument, main) if isinstance(argument, PythonCall) else argument
                for argument in node.arguments
            )
            candidate: Node = dataclasses.replace(node, arguments=arguments)
        else:
            candidate = node
        evaluate = arrow_evaluator(candidate, self._pool)
        if evaluate is not None:
            place = ColumnNode(node.type, main, self._width + len(self._by_arrow))
            self._by_arrow.append(evaluate)
            self._arrow_columns.append(
                Column(f"arrow {len(self._by_arrow)}", node.type or Type.BOOL)
            )  # NULL is a bool in Arrow
            self._arrow_places[node] = place
            return place
        if isinstance(node, (Apply, PythonCall)):
            arguments = tuple(
                argument if isinstance(argument, Const) else self._with_arrow(argument, main)
                for argument in node.arguments
            )
            return dataclasses.replace(node, arguments=arguments)
        return node


def _whole(values: pa.ChunkedArray) -> pa.Array:
    return values.chunk(0) if values.num_chunks == 1 else pa.concat_arrays(values.chunks)


def _described(node: Node, table: Table) -> Expression:
    read = frozenset(table.columns[part.position].name for part in walk(node) if isinstance(part, ColumnNode))
    column = table.columns[node.position].name if isinstance(node, ColumnNode) else None
    return Expression(node.type, column, read, isinstance(node, Const) and node.null)


def _no_clock() -> int:
    return time.time_ns() // 1_000_000  # no row of a store is read, so nothing can be too old
