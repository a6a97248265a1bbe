"""Kernels that bring columns of rows into registers: of requests, of the rows of a domain, of the rows of joins."""

# mypy: disable-error-code="no-any-return, return-value"
from __future__ import annotations

from streaming.engine.kernels.indexes import UNMEASURED, TableField
from streaming.engine.kernels.instructions import ROW_BITS, ROW_MASK, SLOT_BITS, Domain
from streaming.engine.kernels.registers import is_vector, place
from streaming.engine.native.kernel import Bytes, Int64, Matrix, inner
from streaming.engine.native.memory import int64s_at
from streaming.engine.types import NULLS_PER_WORD

__all__ = ["copy_of_parent", "copy_of_source", "fetch", "load", "source_column"]


@inner
def load(base: int, n: int, requests: Matrix, column: int, n_columns: int, mem: Int64, nulls: Bytes) -> None:
    """A column of the requests into the register that begins at `base`."""
    flag_word, bit = n_columns + column // NULLS_PER_WORD, column % NULLS_PER_WORD
    for i in range(n):
        mem[base + i] = requests[i, column]
        nulls[base + i] = (requests[i, flag_word] >> bit) & 1


@inner
def fetch(base: int, n: int, rows: int, table: Int64, column: int, mem: Int64, nulls: Bytes) -> None:
    """A column of the rows that a join has found, whose references begin at `rows`; NULL where there is none."""
    words, width = int64s_at(table[TableField.ROWS], UNMEASURED), table[TableField.WIDTH]
    flag_word, bit = table[TableField.N_COLUMNS] + column // NULLS_PER_WORD, column % NULLS_PER_WORD
    for i in range(n):
        if nulls[rows + i]:
            nulls[base + i] = 1
            mem[base + i] = 0
        else:
            row = (mem[rows + i] & ROW_MASK) * width
            mem[base + i] = words[row + column]
            nulls[base + i] = (words[row + flag_word] >> bit) & 1


@inner
def source_column(
    out: int, source: int, table: Int64, column: int, alone: int, domains: Matrix, mem: Int64, nulls: Bytes
) -> None:
    """A column of the rows of a source (-1: of whichever source) into register `out` of their domain.

    `alone`: the other elements become NULL instead of staying as they are.
    """
    domain, base = out >> SLOT_BITS, place(domains, out)
    rows, m = domains[domain, Domain.BASE], domains[domain, Domain.LENGTH]
    words, width = int64s_at(table[TableField.ROWS], UNMEASURED), table[TableField.WIDTH]
    flag_word, bit = table[TableField.N_COLUMNS] + column // NULLS_PER_WORD, column % NULLS_PER_WORD
    for p in range(m):
        row = mem[rows + p]
        if row >= 0 and (source < 0 or row >> ROW_BITS == source):
            at = (row & ROW_MASK) * width
            mem[base + p] = words[at + column]
            nulls[base + p] = (words[at + flag_word] >> bit) & 1
        elif alone:
            mem[base + p] = 0
            nulls[base + p] = 1


@inner
def copy_of_parent(out: int, register: int, only_own: int, domains: Matrix, mem: Int64, nulls: Bytes) -> None:
    """A register of the parent domain into register `out`, for each of the parent's rows.

    `only_own`: only for the requests' own elements; the others stay as they are.
    """
    domain, base = out >> SLOT_BITS, place(domains, out)
    value, step = place(domains, register), is_vector(register)
    n = domains[domain, Domain.LENGTH]
    rows, owner = domains[domain, Domain.BASE], domains[domain, Domain.BASE] + n
    for p in range(n):
        if not only_own or mem[rows + p] < 0:
            at = value + step * mem[owner + p]
            mem[base + p] = mem[at]
            nulls[base + p] = nulls[at]


@inner
def copy_of_source(out: int, source: int, register: int, domains: Matrix, mem: Int64, nulls: Bytes) -> None:
    """A register into register `out` of the same domain, for the rows of one source; the others stay as they are."""
    domain, base = out >> SLOT_BITS, place(domains, out)
    value, step = place(domains, register), is_vector(register)
    rows = domains[domain, Domain.BASE]
    for p in range(domains[domain, Domain.LENGTH]):
        row = mem[rows + p]
        if row >= 0 and row >> ROW_BITS == source:
            mem[base + p] = mem[value + step * p]
            nulls[base + p] = nulls[value + step * p]
