"""The machine: runs a plan's instructions over one batch. `machine` says what they are and how registers lie."""

# mypy: disable-error-code="no-any-return, return-value"
from __future__ import annotations

from streaming.engine.kernels.aggregates import fold, frequency
from streaming.engine.kernels.scalar import apply
from streaming.engine.kernels.window import EVERYWHERE, ROWS, collect, flat_column, join
from streaming.engine.native.kernel import Bytes, Float64, Int64, Matrix, inner, kernel
from streaming.engine.native.memory import int64s_at, word

__all__ = ["run"]


@inner
def _at(doms: Matrix, reference: int) -> int:
    d = reference >> 20
    return doms[d, 1] + (reference & 0xFFFFF) * doms[d, 0]


@inner
def _vector(reference: int) -> int:
    return 1 if reference >> 20 else 0


@kernel
def run(
    code: Matrix,
    extra: Int64,
    constants: Int64,
    constant_nulls: Bytes,
    requests: Matrix,
    n_columns: int,
    doms: Matrix,
    mem: Int64,
    mem_f: Float64,
    nul: Bytes,
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
    """Runs instructions from state[PC] until the end, a HOST instruction, or want of room.

    Every instruction can be run again, so that the caller makes room and calls again.

    Args:
        code: int64[k, 8], the instructions.
        constants, constant_nulls: domain 0, which a run begins with.
        requests: int64[n, width], the rows of the batch, laid out as in a table.
        tables: int64[t, 3], address of the words, width, number of columns.
        indexes: int64[x, 10], addresses, sizes and times to live, see `window`.
        limits: int64[n, x], entries of each index that request i may see: the first limits[i, x]; or int64[0, x].

    Returns:
        -1: done, 0: at a HOST instruction, else what it wants (see `State`).
    """
    pc = state[0]
    state[1] = 0
    if pc == 0:
        for i in range(len(constants)):
            mem[i] = constants[i]
            nul[i] = constant_nulls[i]
    every, stay = word(-1), word(0)
    while pc < len(code):
        op, out, a, b, c = code[pc, 0], code[pc, 1], code[pc, 2], code[pc, 3], code[pc, 4]
        if op == 200:
            break
        if op == 2:
            need = collect(out, a, extra, doms, mem, nul, state, indexes, limits)
            if need:
                state[1], state[2] = 1, need
                break
            pc += 1
            continue
        n = doms[out >> 20, 0]
        o = _at(doms, out)
        if op == 0:
            flag_word, bit = n_columns + a // 62, a % 62
            for i in range(n):
                mem[o + i] = requests[i, a]
                nul[o + i] = (requests[i, flag_word] >> bit) & 1
        elif op == 1:
            words, width = int64s_at(tables[b, ROWS], EVERYWHERE), tables[b, 1]
            flag_word, bit = tables[b, 2] + c // 62, c % 62
            x = _at(doms, a)
            for i in range(n):
                if nul[x + i]:
                    nul[o + i] = 1
                    mem[o + i] = 0
                else:
                    base = (mem[x + i] & 0xFFFFFFFFFF) * width
                    mem[o + i] = words[base + c]
                    nul[o + i] = (words[base + flag_word] >> bit) & 1
        elif op >= 3 and op <= 4:
            d = out >> 20
            x, step = _at(doms, a), _vector(a)
            rows, owner = doms[d, 1], doms[d, 1] + n
            only_own = op == 3 or b == 1
            if op == 3:
                words = int64s_at(tables[b, ROWS], EVERYWHERE)
                flat_column(out, every, words, tables[b, 1], tables[b, 2], c, stay, doms, mem, nul)
            for p in range(n):
                if not only_own or mem[rows + p] < 0:
                    q = x + step * mem[owner + p]
                    mem[o + p] = mem[q]
                    nul[o + p] = nul[q]
        elif op == 5:
            alone = code[pc, 5]
            words = int64s_at(tables[b, ROWS], EVERYWHERE)
            flat_column(out, a, words, tables[b, 1], tables[b, 2], c, alone, doms, mem, nul)
        elif op == 6:
            x, step = _at(doms, b), _vector(b)
            rows = doms[out >> 20, 1]
            for p in range(n):
                row = mem[rows + p]
                if row >= 0 and row >> 40 == a:
                    mem[o + p] = mem[x + step * p]
                    nul[o + p] = nul[x + step * p]
        elif op == 7:
            need = join(out, a, extra, doms, mem, nul, state, indexes, limits)
            if need:
                state[1], state[2] = 1, need
                break
        elif op == 8:
            offsets, rows, condition = doms[a, 2], doms[a, 1], _at(doms, b)
            step = _vector(b)
            for i in range(n):
                nul[o + i] = 1
                mem[o + i] = -1
                for p in range(mem[offsets + i], mem[offsets + i + 1]):
                    if mem[condition + step * p] and not nul[condition + step * p]:
                        mem[o + i] = mem[rows + p]
                        nul[o + i] = 0
                        break
        elif op < 100:
            d = code[pc, 5]
            steps = _vector(a) | _vector(b) << 1 | _vector(c) << 2
            apply(op, n, o, _at(doms, a), _at(doms, b), _at(doms, c), steps, d, mem, mem_f, nul, arena, ends)
        else:
            offsets, parent = doms[a, 2], doms[doms[a, 5], 0]
            lo = doms[a, 3] + 2 * b * parent
            hi = lo + parent
            d, e, bits = code[pc, 5], code[pc, 6], code[pc, 7]
            condition = _at(doms, d) if d >= 0 else -1
            if op == 113:
                need = frequency(
                    parent,
                    offsets,
                    lo,
                    hi,
                    _at(doms, c),
                    _vector(c),
                    condition,
                    e,
                    extra,
                    doms,
                    mem,
                    mem_f,
                    nul,
                    scratch,
                    arena,
                    ends,
                    slots,
                    meta,
                )
                if need:
                    state[1], state[2] = (2, need) if need > 0 else (3, -need)
                    break
            else:
                fold(
                    op,
                    parent,
                    o,
                    offsets,
                    lo,
                    hi,
                    _at(doms, c),
                    _vector(c),
                    condition,
                    e,
                    bits,
                    mem,
                    mem_f,
                    nul,
                    arena,
                    ends,
                )
        pc += 1
    state[0] = pc
    return -1 if pc == len(code) else state[1]
