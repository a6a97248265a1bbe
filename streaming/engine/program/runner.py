"""Runs a compiled query over batches of requests: registers and scratch for the kernels, and what they ask for.

The kernels (`streaming.engine.kernels.interpreter.run`) come back when memory is too small, or when a function is
Python's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.engine.errors import BadRow
from streaming.engine.kernels.indexes import IndexField, TableField
from streaming.engine.kernels.instructions import CONSTANTS, REQUESTS, Domain, Field, Outcome, State, domain_of, slot_of
from streaming.engine.kernels.interpreter import run
from streaming.engine.plan.nodes import PythonAggregate
from streaming.engine.program.compiled_query import Addresses, CompiledQuery
from streaming.engine.program.program import Program, PythonStep
from streaming.engine.storage.strings import StringPool
from streaming.engine.types import Type, to_python, to_word

__all__ = ["BATCH", "Runner", "wall_clock"]

Int64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

# Requests per run of a program: their registers stay in the cache, and a replay links rows in steps of so many.
BATCH = 512


# numpy takes longer for members of an enumeration
_PC, _NEED, _TOP = int(State.PC), int(State.NEED), int(State.TOP)
_DONE, _PYTHON = int(Outcome.DONE), int(Outcome.PYTHON)


def wall_clock() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Runner:
    """The memory that programs run in, shared by all deployments of an engine.

    Args:
        pool: the strings of the engine; answers add theirs, and who asked takes them out again.
        clock: the time by which rows live, in epoch milliseconds.
    """

    def __init__(self, pool: StringPool, clock: Callable[[], int]) -> None:
        self._pool = pool
        self._clock = clock
        self._mem: Int64 = np.zeros(1 << 16, np.int64)
        self._mem_f = self._mem.view(np.float64)
        self._nulls: Flags = np.zeros(1 << 16, np.uint8)
        self._scratch: Int64 = np.zeros(1 << 12, np.int64)
        self._state: Int64 = np.zeros(len(State), np.int64)

    def answer(self, compiled: CompiledQuery, requests: Int64, limits: Int64, order: Int64 | None = None) -> pa.Table:
        """Runs the program over requests, a batch at a time.

        Args:
            compiled: the query.
            requests: int64[m, width], the words of the requests.
            limits: int64[n, x], entries of each index that request i may see: the first limits[i, x]; int64[0, x]: all.
            order: int64[n], which of `requests` are asked, and in which order; None: all.

        Returns:
            A row per request, without those that the query's WHERE drops.

        Raises:
            BadRow: the computed time of a window is NULL or negative.
        """
        if order is None and len(requests) <= BATCH and not len(limits):
            return pa.Table.from_batches([self._batch(compiled, requests, limits)[0]])
        batches = [batch for batch, _ in self.batches(compiled, requests, limits, order)]
        return pa.Table.from_batches(batches, compiled.assembler.schema)

    def batches(
        self, compiled: CompiledQuery, requests: Int64, limits: Int64, order: Int64 | None = None
    ) -> Iterator[tuple[pa.RecordBatch, Int64]]:
        """As `answer`, batch by batch as they come: each with the place in `requests` of each of its rows.

        Until the last one has come, nothing else may be asked of the engine.
        """
        n = len(requests) if order is None else len(order)
        texts = self._pool.count
        for first in range(0, n, BATCH):
            chosen = np.arange(first, min(first + BATCH, n)) if order is None else order[first : first + BATCH]
            asked = requests[first : first + BATCH] if order is None else requests[chosen]
            seen = limits[first : first + BATCH]
            if len(seen):
                for index, limit in zip(compiled.indexes, seen.max(axis=0), strict=True):
                    index.link(int(limit))
            batch, kept = self._batch(compiled, asked, seen)
            yield batch, chosen if kept is None else chosen[kept]
            if n > BATCH:  # the answers' strings are in the batch; those of all the requests are needed to the end
                self._pool.truncate(texts)

    def _batch(self, compiled: CompiledQuery, requests: Int64, limits: Int64) -> tuple[pa.RecordBatch, Mask | None]:
        """A batch, and which of its requests WHERE kept; None: there is no WHERE."""
        program, n = compiled.program, len(requests)
        layout = compiled.layouts.get(n)
        if layout is None:
            layout = compiled.layouts[n] = _layout(program, compiled.output_slots, n)
            if len(compiled.layouts) > BATCH:
                compiled.layouts.clear()
        template, places, top = layout
        if top > len(self._mem):
            self._grow_memory(top)
        domains, state = template.copy(), self._state
        state[_PC] = 0
        state[_TOP] = top
        constants = len(program.constants)
        self._run(compiled, requests, limits, domains, state)
        for register in program.times:
            at = constants + slot_of(register) * n
            bad = (self._nulls[at : at + n] != 0) | (self._mem[at : at + n] < 0)
            if bad.any():
                row = int(bad.argmax())
                raise BadRow(f"{compiled.name} row {row}: the computed time of a window is NULL or negative", row)
        outputs = places[:-1] if compiled.has_where else places
        batch = compiled.assembler.batch(
            outputs, n, self._mem, self._mem_f, self._nulls, self._pool.arena, self._pool.ends
        )
        if compiled.cuts_texts:
            batch = _with_whole_letters(batch)
        if not compiled.has_where:
            return batch, None
        at = int(places[-1])
        kept: Mask = (self._mem[at : at + n] != 0) & (self._nulls[at : at + n] == 0)
        return batch.filter(pa.array(kept)), kept

    def _grow_memory(self, size: int) -> None:
        size = max(size, 2 * len(self._mem))
        mem, nulls = np.zeros(size, np.int64), np.zeros(size, np.uint8)
        mem[: len(self._mem)], nulls[: len(self._nulls)] = self._mem, self._nulls
        self._mem, self._nulls, self._mem_f = mem, nulls, mem.view(np.float64)

    def _run(self, compiled: CompiledQuery, requests: Int64, limits: Int64, domains: Int64, state: Int64) -> None:
        program, pool = compiled.program, self._pool
        addresses, columns = _addresses(compiled, self._clock), len(compiled.table.columns)
        while True:
            outcome = run(
                program.code,
                program.operands,
                program.constants,
                program.constant_nulls,
                requests,
                columns,
                domains,
                self._mem,
                self._mem_f,
                self._nulls,
                state,
                addresses.tables,
                addresses.indexes,
                limits,
                self._scratch,
                pool.arena,
                pool.ends,
                pool.slots,
                pool.meta,
            )
            if outcome == _DONE:
                return
            if outcome == _PYTHON:
                number = int(program.code[state[_PC], Field.A])
                self._call_python(program.python_steps[number], domains)
                state[_PC] += 1
                continue
            need = int(state[_NEED])
            if outcome == Outcome.MEMORY:
                self._grow_memory(need)
            elif outcome == Outcome.STRINGS:
                pool.grow(need)
            else:
                self._scratch = np.zeros(need, np.int64)

    # -- functions in Python ---------------------------------------------------------------------------------------

    def _values(self, register: int, domains: Int64, kind: Type) -> list[object]:
        """A register as Python values."""
        domain, slot = domain_of(register), slot_of(register)
        length = int(domains[domain, Domain.LENGTH])
        at = int(domains[domain, Domain.BASE]) + slot * length
        words, nulls = self._mem[at : at + length].tolist(), self._nulls[at : at + length].tolist()
        if kind == Type.STRING:
            return [None if null else self._pool.text(word) for word, null in zip(words, nulls, strict=True)]
        if kind == Type.DATE:
            return [None if null else word for word, null in zip(words, nulls, strict=True)]
        return [None if null else to_python(kind, word) for word, null in zip(words, nulls, strict=True)]

    def _call_python(self, call: PythonStep, domains: Int64) -> None:
        node = call.node
        length = int(domains[domain_of(call.out), Domain.LENGTH])
        arguments = []
        rows = int(domains[call.domain, Domain.LENGTH]) if isinstance(node, PythonAggregate) else length
        for register, argument in zip(call.arguments, node.arguments, strict=True):
            values = self._values(register, domains, argument.type)
            arguments.append(values * rows if domain_of(register) == CONSTANTS else values)
        results: list[object]
        if isinstance(node, PythonAggregate):
            elements = list(zip(*arguments, strict=True))
            offsets, frames = int(domains[call.domain, Domain.OFFSETS]), int(domains[call.domain, Domain.FRAMES])
            low = frames + 2 * call.frame * length
            results = []
            for i in range(length):
                begin = int(self._mem[offsets + i])
                first, last = begin + int(self._mem[low + i]), begin + int(self._mem[low + length + i])
                results.append(node.function(elements[first:last]))
        else:
            results = [None if None in values else node.function(*values) for values in zip(*arguments, strict=True)]
        at = int(domains[domain_of(call.out), Domain.BASE]) + slot_of(call.out) * length
        self._nulls[at : at + length] = [value is None for value in results]
        if node.type == Type.STRING:
            self._mem[at : at + length] = self._pool.codes(results)  # type: ignore[arg-type]
        elif node.type == Type.DATE:
            self._mem[at : at + length] = [0 if value is None else int(str(value)) for value in results]
        elif node.type in (Type.FLOAT, Type.DOUBLE):
            numbers = np.array([0.0 if value is None else value for value in results], np.float64)
            if node.type == Type.FLOAT:
                with np.errstate(over="ignore"):  # what is too large is infinite, as in C
                    numbers = numbers.astype(np.float32).astype(np.float64)
            self._mem_f[at : at + length] = numbers
        else:
            self._mem[at : at + length] = [0 if value is None else to_word(node.type, value) for value in results]


def _with_whole_letters(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with U+FFFD for pieces of letters: Arrow takes UTF-8 only, and would hand them on."""
    for c, column in enumerate(batch.columns):
        if pa.types.is_string(column.type):
            data = column.cast(pa.binary())
            try:
                data.cast(pa.string())
            except pa.ArrowInvalid:
                texts = [None if cell is None else cell.decode("utf-8", "replace") for cell in data.to_pylist()]
                batch = batch.set_column(c, batch.schema.field(c), pa.array(texts, pa.string()))
    return batch


def _layout(program: Program, registers: Int64, n: int) -> tuple[Int64, Int64, int]:
    """Of a batch of n: the table of domains, where the outputs begin, and the first place that is free."""
    domains = program.domains.copy()
    constants = len(program.constants)
    domains[CONSTANTS, Domain.LENGTH] = 1
    domains[REQUESTS, Domain.LENGTH], domains[REQUESTS, Domain.BASE] = n, constants
    return domains, constants + registers * n, constants + n * int(domains[REQUESTS, Domain.SLOTS])


def _addresses(compiled: CompiledQuery, clock: Callable[[], int]) -> Addresses:
    """Where the arrays of tables and indexes lie now; looked up again when one of them has moved."""
    addresses, program = compiled.addresses, compiled.program
    version = 0
    for index in compiled.indexes:
        version += index.version
    for table in program.tables:
        version += table.version
    if version != addresses.version:
        addresses.tables = np.array(
            [(t.rows.ctypes.data, t.width, len(t.columns)) for t in program.tables], np.int64
        ).reshape(-1, len(TableField))
        addresses.indexes = np.array(
            [
                (
                    x.slots.ctypes.data,
                    len(x.slots),
                    x.keys.ctypes.data,
                    len(x.keys),
                    x.heads.ctypes.data,
                    x.entries.ctypes.data,
                    x.row_of.ctypes.data if len(x.row_of) else 0,
                    x.ttl[1],
                    0,
                    x.ttl[2],
                )
                for x in compiled.indexes
            ],
            np.int64,
        ).reshape(-1, len(IndexField))
        addresses.expiring = [(i, x.ttl[0]) for i, x in enumerate(compiled.indexes) if x.ttl[0]]
        addresses.version = version
    for i, ttl_ms in addresses.expiring:
        addresses.indexes[i, IndexField.EXPIRY] = clock() - ttl_ms
    return addresses
