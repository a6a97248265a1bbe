"""A query compiled: its program, its request rows, its answer's columns. What the runner runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.engine.kernels.arrow_results import BatchAssembler
from streaming.engine.kernels.indexes import IndexField, TableField
from streaming.engine.kernels.instructions import Field, Op, slot_of
from streaming.engine.library import CUTTING
from streaming.engine.plan.nodes import ColumnNode, QueryTable
from streaming.engine.plan.select import Query
from streaming.engine.program.compiler import compile_program
from streaming.engine.program.program import Program
from streaming.engine.storage.rows import encode
from streaming.engine.storage.strings import StringPool
from streaming.engine.storage.table import Index, Table, check_times
from streaming.engine.types import Type

__all__ = ["Addresses", "CompiledQuery", "compile_query", "request_words"]

Int64 = npt.NDArray[np.int64]
Rows: TypeAlias = Sequence[Mapping[str, Any]] | pa.Table


@dataclass
class Addresses:
    """Where the arrays of a query's tables and indexes lie, as the kernels take them.

    Attributes:
        version: the sum of the versions of the tables and indexes when their addresses were looked up; -1: never.
        expiring: (number, milliseconds) of the indexes whose rows grow old, and after how long.
        tables: int64[t, 3], see `indexes.TableField`.
        indexes: int64[x, 10], see `indexes.IndexField`.
    """

    version: int = -1
    expiring: list[tuple[int, int]] = field(default_factory=list)
    tables: Int64 = field(default_factory=lambda: np.empty((0, len(TableField)), np.int64))
    indexes: Int64 = field(default_factory=lambda: np.empty((0, len(IndexField)), np.int64))


@dataclass
class CompiledQuery:
    """A query, and all that running it needs.

    Attributes:
        name: what messages call it.
        query: what was compiled.
        program: its instructions.
        table: the table whose rows the requests are like; of a query without FROM one without columns.
        assembler: makes the answer.
        output_slots: int64[k], the register of each output, among those of the requests; behind them that of WHERE.
        times: the request's columns that windows are ordered by.
        has_where: whether a WHERE drops rows of the answer.
        indexes: those that the program reads, in its order; who compiles it for good fills them in.
        no_limits: int64[0, x], the limits of requests that may see every row.
        unread: columns of text of the request that the program does not look at.
        time_columns: `times` as an array.
        cuts_texts: whether functions in it cut texts by bytes, so that its answers may have pieces of letters.
        addresses: where its tables and indexes lay when they were last looked up.
        layouts: by the number of requests, the places of the registers of a batch of so many, see `runner`.
    """

    name: str
    query: Query
    program: Program
    table: Table
    assembler: BatchAssembler
    output_slots: Int64
    times: tuple[int, ...]
    has_where: bool
    indexes: list[Index]
    no_limits: Int64
    unread: frozenset[int]
    time_columns: Int64 = field(init=False)
    cuts_texts: bool = field(init=False)
    addresses: Addresses = field(default_factory=Addresses)
    layouts: dict[int, tuple[Int64, Int64, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.time_columns = np.array(self.times, np.int64)
        self.cuts_texts = any(call.node.function in CUTTING for call in self.program.python_steps)


def compile_query(name: str, query: Query, strict: bool) -> CompiledQuery:
    """Compiles a query; its indexes are left out.

    Args:
        name: what messages call it.
        query: the plan.
        strict: NULL join keys match nothing, as OpenMLDB has it offline.
    """
    nodes = [output.node for output in query.outputs]
    if query.where is not None:
        nodes.append(query.where)
    program = compile_program(nodes, strict)
    main = query.main or QueryTable(Table("", "", ()))  # without FROM, no column of a request is read
    times = {g.own[g.time] for g in program.groups if g.time is not None}
    read = {int(column) for op, column in program.code[:, [Field.OP, Field.A]] if op == Op.LOAD}
    texts = {c for c, column in enumerate(main.table.columns) if column.type == Type.STRING}
    return CompiledQuery(
        name,
        query,
        program,
        main.table,
        BatchAssembler([o.name for o in query.outputs], [o.node.type for o in query.outputs]),
        np.array([slot_of(register) for register in program.outputs], np.int64),
        tuple(sorted(t.position for t in times if isinstance(t, ColumnNode) and t.base is main)),
        query.where is not None,
        [],
        np.empty((0, len(program.indexes)), np.int64),
        frozenset(texts - read),
    )


def request_words(compiled: CompiledQuery, rows: Rows, pool: StringPool, known: Int64 | None = None) -> Int64:
    """int64[n, width], the words of request rows, their times checked.

    Args:
        compiled: whose requests they are.
        rows: the requests.
        pool: where their texts are interned.
        known: their words, where somebody has encoded them already.

    Raises:
        BadRow: a value of the wrong type, or a time that is NULL or negative.
    """
    table = compiled.table
    if not table.columns:
        return np.zeros((rows.num_rows if isinstance(rows, pa.Table) else len(rows), 0), np.int64)
    what = f"request of {compiled.name}"
    words = encode(what, table.columns, rows, pool, compiled.unread) if known is None else known
    check_times(what, table.columns, words, compiled.time_columns, "a window's time")
    return words
