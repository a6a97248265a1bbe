"""The interpreter: runs a program's instructions over one batch of requests.

`instructions` says what they are and how registers lie.
"""

# mypy: disable-error-code="no-any-return, return-value"
from __future__ import annotations

from streaming.engine.kernels.aggregates import fold, frequency
from streaming.engine.kernels.columns import copy_of_parent, copy_of_source, fetch, load, source_column
from streaming.engine.kernels.instructions import SLOT_BITS, Domain, Field, Op, Outcome, State
from streaming.engine.kernels.joins import join, pick
from streaming.engine.kernels.registers import is_vector, place
from streaming.engine.kernels.scalar import apply
from streaming.engine.kernels.window import collect
from streaming.engine.native.kernel import Bytes, Float64, Int64, Matrix, inner, long_kernel
from streaming.engine.native.memory import word

__all__ = ["run"]


@inner
def _aggregate(
    instruction: Int64,
    operands: Int64,
    domains: Matrix,
    mem: Int64,
    mem_f: Float64,
    nulls: Bytes,
    scratch: Int64,
    arena: Bytes,
    ends: Int64,
    slots: Int64,
    meta: Int64,
) -> int:
    """Runs one aggregate instruction. Returns 0, or what it wants, see `frequency`."""
    op, out, domain = instruction[Field.OP], instruction[Field.OUT], instruction[Field.A]
    value, condition = instruction[Field.C], instruction[Field.D]
    parent = domains[domains[domain, Domain.PARENT], Domain.LENGTH]
    offsets = domains[domain, Domain.OFFSETS]
    lo = domains[domain, Domain.FRAMES] + 2 * instruction[Field.B] * parent
    hi = lo + parent
    condition = place(domains, condition) if condition >= 0 else -1
    if op == Op.FREQUENCY:
        return frequency(
            parent,
            offsets,
            lo,
            hi,
            place(domains, value),
            is_vector(value),
            condition,
            instruction[Field.E],
            operands,
            domains,
            mem,
            mem_f,
            nulls,
            scratch,
            arena,
            ends,
            slots,
            meta,
        )
    fold(
        op,
        parent,
        place(domains, out),
        offsets,
        lo,
        hi,
        place(domains, value),
        is_vector(value),
        condition,
        instruction[Field.E],
        instruction[Field.F],
        mem,
        mem_f,
        nulls,
        arena,
        ends,
    )
    return 0


@long_kernel
def run(
    code: Matrix,
    operands: Int64,
    constants: Int64,
    constant_nulls: Bytes,
    requests: Matrix,
    n_columns: int,
    domains: Matrix,
    mem: Int64,
    mem_f: Float64,
    nulls: Bytes,
    state: Int64,
    tables: Matrix,
    indexes: Matrix,
    limits: Matrix,
    scratch: Int64,
    arena: Bytes,
    ends: Int64,
    slots: Int64,
    meta: Int64,
) -> int:
    """Runs instructions from state[PC] until the end, a PYTHON instruction, or want of room.

    Every instruction can be run again, so that the caller makes room and calls again.

    Args:
        code: int64[k, 8], the instructions, see `Field`.
        operands: int64[m], their lists, see `kernels.operands`.
        constants, constant_nulls: domain 0, which a run begins with.
        requests: int64[n, width], the rows of the batch, laid out as in a table.
        n_columns: how many columns they have.
        domains: int64[d, 6], the table of domains, see `Domain`.
        mem, mem_f, nulls: the registers, as int64 and as float64, and their NULL flags.
        state: int64[4], see `State`.
        tables: int64[t, 3], see `indexes.TableField`.
        indexes: int64[x, 10], see `indexes.IndexField`.
        limits: int64[n, x], entries of each index that request i may see: the first limits[i, x]; or int64[0, x].
        scratch: int64[s], zeros: room to count in.
        arena, ends, slots, meta: the string pool, see `strings.StringPool`.

    Returns:
        An `Outcome`; `state` says how much room it wants.
    """
    pc = state[State.PC]
    outcome = word(Outcome.PYTHON)
    if pc == 0:
        for i in range(len(constants)):
            mem[i] = constants[i]
            nulls[i] = constant_nulls[i]
    every, stay = word(-1), word(0)
    while pc < len(code):
        op, out = code[pc, Field.OP], code[pc, Field.OUT]
        a, b, c, d = code[pc, Field.A], code[pc, Field.B], code[pc, Field.C], code[pc, Field.D]
        if op == Op.PYTHON:
            break
        if op == Op.COLLECT:
            need = collect(out, a, operands, domains, mem, nulls, state, indexes, limits)
            if need:
                outcome, state[State.NEED] = word(Outcome.MEMORY), need
                break
            pc += 1
            continue
        n, base = domains[out >> SLOT_BITS, Domain.LENGTH], place(domains, out)
        if op == Op.LOAD:
            load(base, n, requests, a, n_columns, mem, nulls)
        elif op == Op.FETCH:
            fetch(base, n, place(domains, a), tables[b], c, mem, nulls)
        elif op == Op.FLAT:
            source_column(out, every, tables[b], c, stay, domains, mem, nulls)
            copy_of_parent(out, a, word(1), domains, mem, nulls)
        elif op == Op.FLAT_PARENT:
            copy_of_parent(out, a, b, domains, mem, nulls)
        elif op == Op.FLAT_COLUMN:
            source_column(out, a, tables[b], c, d, domains, mem, nulls)
        elif op == Op.FLAT_COPY:
            copy_of_source(out, a, b, domains, mem, nulls)
        elif op == Op.JOIN:
            need = join(out, a, operands, domains, mem, nulls, state, indexes, limits)
            if need:
                outcome, state[State.NEED] = word(Outcome.MEMORY), need
                break
        elif op == Op.PICK:
            pick(base, n, a, b, domains, mem, nulls)
        elif op < Op.COUNT:
            steps = is_vector(a) | is_vector(b) << 1 | is_vector(c) << 2
            x, y, z = place(domains, a), place(domains, b), place(domains, c)
            apply(op, n, base, x, y, z, steps, d, mem, mem_f, nulls, arena, ends)
        else:
            need = _aggregate(code[pc], operands, domains, mem, mem_f, nulls, scratch, arena, ends, slots, meta)
            if need:
                outcome = word(Outcome.STRINGS) if need > 0 else word(Outcome.SCRATCH)
                state[State.NEED] = abs(need)
                break
        pc += 1
    state[State.PC] = pc
    if pc == len(code):
        outcome = word(Outcome.DONE)
    state[State.OUTCOME] = outcome
    return outcome
