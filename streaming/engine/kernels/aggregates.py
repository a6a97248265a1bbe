"""Kernels of aggregates: one pass over each request's segment, newest row first."""

# mypy: disable-error-code="no-any-return, return-value"
from __future__ import annotations

import numpy as np

from streaming.engine.kernels.instructions import FLOAT32, FrequencyKind, Op
from streaming.engine.kernels.operands import FREQUENCY_FIELDS, FrequencyField, ResultField
from streaming.engine.kernels.registers import place
from streaming.engine.kernels.scalar import wrap
from streaming.engine.native.kernel import Bytes, Float64, Int64, Matrix, inner
from streaming.engine.native.memory import address, copy, word
from streaming.engine.storage.strings import EMPTY, USED, intern, less

__all__ = ["fold", "frequency"]

FLOAT32_MAX, FLOAT64_MAX = 3.4028234663852886e38, 1.7976931348623157e308


@inner
def _beats(op: int, plain: bool, x: int, best: int, mem: Int64, mem_f: Float64, arena: Bytes, ends: Int64) -> bool:
    """Whether the value at x is the minimum or maximum instead of that at `best`, which is newer.

    `plain`: of min and max, not of min_where and max_where, to which NaN and the zeros are something else.
    """
    if op == Op.FMIN and plain:
        return not mem_f[best] < mem_f[x]  # of 0.0 and -0.0, OpenMLDB keeps the later, and takes NaN in and out
    if op == Op.FMAX and plain:
        return mem_f[x] > mem_f[best] or mem_f[best] != mem_f[best]
    return (
        (op == Op.MIN and mem[x] < mem[best])
        or (op == Op.FMIN and mem_f[x] < mem_f[best])
        or (op == Op.SMIN and less(mem[x], mem[best], arena, ends))
        or (op == Op.MAX and mem[x] > mem[best])
        or (op == Op.FMAX and mem_f[x] > mem_f[best])
        or (op == Op.SMAX and less(mem[best], mem[x], arena, ends))
    )


@inner
def _bounded(op: int, value: float, bits: int) -> float:
    """min() or max() of floats, which OpenMLDB begins with the greatest and the least finite one."""
    limit = FLOAT32_MAX if bits == FLOAT32 else FLOAT64_MAX
    if op == Op.FMIN:
        return limit if value > limit else value
    return value if value >= -limit else -limit  # NaN, too


@inner
def _put_result(
    op: int,
    plain: bool,
    at: int,
    count: int,
    total: int,
    total_f: float,
    best: int,
    bits: int,
    mem: Int64,
    mem_f: Float64,
    nulls: Bytes,
) -> None:
    """Writes an aggregate's result: what was counted and summed, or the value at `best`."""
    nulls[at] = 0
    if op == Op.COUNT:
        mem[at] = count
    elif op >= Op.MIN:
        if best < 0:
            nulls[at] = 1
            mem[at] = 0
        else:
            mem[at] = mem[best]
            nulls[at] = nulls[best]
            if plain and (op == Op.FMIN or op == Op.FMAX):  # noqa: PLR1714 - a tuple costs numba much time
                mem_f[at] = _bounded(op, mem_f[best], bits)
    elif count == 0:
        nulls[at] = 1
        mem[at] = 0
    elif op == Op.SUM:
        mem[at] = wrap(total, bits)
    elif op == Op.FSUM:
        mem_f[at] = total_f
    else:
        mem_f[at] = total_f / count


@inner
def fold(
    op: int,
    n: int,
    o: int,
    offsets: int,
    lo: int,
    hi: int,
    value: int,
    step: int,
    condition: int,
    number: int,
    bits: int,
    mem: Int64,
    mem_f: Float64,
    nulls: Bytes,
    arena: Bytes,
    ends: Int64,
) -> None:
    """One result per request: count, sum, avg, min, max, and the values at a place.

    Args:
        o: where the result's register begins.
        offsets, lo, hi: where the segments' offsets and the frame's bounds in them begin.
        value, step: the aggregated register, and whether it is a vector.
        condition: the register of the condition, or -1; rows where it is NULL or false do not count.
        number: the place, for `AT`; 1: NULL counts, for `COUNT`.
        bits: width of an integer result; `FLOAT32`: the result is one.
        arena, ends: the string pool's.
    """
    for i in range(n):
        begin = mem[offsets + i]
        first, end = begin + mem[lo + i], begin + mem[hi + i]
        count, total, best = word(0), word(0), word(-1)
        total_f = 0.0
        for p in range(first, end):
            if condition >= 0 and (nulls[condition + p] or not mem[condition + p]):
                continue
            x = value + step * p
            if op == Op.AT:
                if count == number:
                    best = x
                    break
                count += 1
                continue
            if op == Op.OLDEST:
                best = x
                continue
            if nulls[x] and not (op == Op.COUNT and number):
                continue
            count += 1
            if op == Op.COUNT:
                continue
            if op == Op.SUM:
                total += mem[x]
            elif op == Op.FSUM:
                total_f += mem_f[x]
                if bits == FLOAT32:
                    total_f = np.float64(np.float32(total_f))
            elif op == Op.AVG:
                total_f += np.float64(mem[x])
            elif op == Op.FAVG:
                total_f += mem_f[x]
            elif best < 0 or _beats(op, condition < 0, x, best, mem, mem_f, arena, ends):
                best = x
        _put_result(op, condition < 0, o + i, count, total, total_f, best, bits, mem, mem_f, nulls)


@inner
def _digits(value: int, arena: Bytes, at: int) -> int:
    """Writes a number in decimal; returns where it ends."""
    if value < 0:
        arena[at] = 45
        at += 1
    # the smallest int64 has no positive counterpart: work on the negative side
    rest = value if value < 0 else -value
    start = at
    while True:
        quotient = -((-rest) // 10) if rest > -0x7FFFFFFFFFFFFFFF else -922337203685477580
        arena[at] = 48 + (quotient * 10 - rest)
        at += 1
        rest = quotient
        if rest == 0:
            break
    i, j = start, at - 1
    while i < j:
        arena[i], arena[j] = arena[j], arena[i]
        i += 1
        j -= 1
    return at


@inner
def _slots_for(rows: int) -> int:
    """How many slots so many rows take, twice as many as these or more."""
    size = 4
    while size < 2 * rows:
        size *= 2
    return size


@inner
def _slot_of(key: int, mask: int, scratch: Int64) -> int:
    """The slot of a value, or the free one where it belongs."""
    slot = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)) & mask
    while scratch[2 * slot + 1] and scratch[2 * slot] != key:
        slot = (slot + 1) & mask
    return slot


@inner
def _count_nan(distinct: int, used_at: int, scratch: Int64) -> int:
    """Counts a NaN as the smallest float so far, as top1_ratio's map does; returns how often that was counted."""
    best, least = word(-1), word(0)
    for u in range(distinct):
        slot = scratch[used_at + u]
        key = scratch[2 * slot]
        order = key if key >= 0 else key ^ 0x7FFFFFFFFFFFFFFF  # as the floats are ordered
        if best < 0 or order < least:
            best, least = slot, order
    if best < 0:
        return 0
    scratch[2 * best + 1] += 1
    return scratch[2 * best + 1]


@inner
def _clear(distinct: int, used_at: int, scratch: Int64) -> None:
    """Makes the slots in use zeros again."""
    for u in range(distinct):
        slot = scratch[used_at + u]
        scratch[2 * slot] = 0
        scratch[2 * slot + 1] = 0
        scratch[used_at + u] = 0


@inner
def frequency(
    n: int,
    offsets: int,
    lo: int,
    hi: int,
    value: int,
    step: int,
    condition: int,
    at: int,
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
    """distinct_count, top1_ratio and topn_frequency of one value, counted in one pass; its arguments are as of `fold`.

    `at`: where the `operands.Frequency` lies that says which of them.
    `scratch` is zero before and after: (value, count) by slot, then the slots in use.
    Returns 0; or the bytes by which the string pool lacks room; or minus the length that `scratch` needs.
    """
    text, real = operands[at + FrequencyField.IS_TEXT], operands[at + FrequencyField.IS_REAL]
    for i in range(n):
        begin = mem[offsets + i]
        first, end = begin + mem[lo + i], begin + mem[hi + i]
        size = _slots_for(end - first)
        if 3 * size > len(scratch):
            return -3 * size
        mask, used_at = size - 1, 2 * size
        distinct, total, most, strangers = word(0), word(0), word(0), word(0)  # strangers: NaN, none like another
        zero, missing, stranger_first = False, False, False
        for p in range(first, end):
            if condition >= 0 and (nulls[condition + p] or not mem[condition + p]):
                continue
            x = value + step * p
            if nulls[x]:
                missing = True
                continue
            key = mem[x]
            total += 1
            if real and mem_f[x] != mem_f[x]:
                strangers += 1
                stranger_first |= distinct == 0
                most = max(most, _count_nan(distinct, used_at, scratch))
                continue
            if real and mem_f[x] == 0.0:
                key = 0
            zero |= key == (EMPTY if text else 0)
            slot = _slot_of(key, mask, scratch)
            if scratch[2 * slot + 1] == 0:
                scratch[2 * slot] = key
                scratch[used_at + distinct] = slot
                distinct += 1
            scratch[2 * slot + 1] += 1
            most = max(most, scratch[2 * slot + 1])
        for r in range(operands[at + FrequencyField.N_RESULTS]):
            result = at + FREQUENCY_FIELDS + ResultField.SIZE * r
            kind, wanted = operands[result + ResultField.KIND], operands[result + ResultField.NUMBER]
            o = place(domains, operands[result + ResultField.REGISTER]) + i
            nulls[o] = 0
            if kind == FrequencyKind.DISTINCT_COUNT:
                # NULL counts as the type's zero value
                mem[o] = distinct + strangers + (1 if missing and not zero else 0)
            elif kind == FrequencyKind.TOP1_RATIO:
                mem_f[o] = (1.0 if stranger_first else most / total) if total else 0.0
            elif first == end:
                mem[o] = EMPTY  # of no rows at all '', not n times NULL
            else:
                code = _top(wanted, distinct, used_at, text, scratch, arena, ends, slots, meta)
                if code < 0:
                    _clear(distinct, used_at, scratch)
                    return -code
                mem[o] = code
        _clear(distinct, used_at, scratch)
    return 0


@inner
def _top(
    wanted: int,
    distinct: int,
    used_at: int,
    text: int,
    scratch: Int64,
    arena: Bytes,
    ends: Int64,
    slots: Int64,
    meta: Int64,
) -> int:
    """The code of topn_frequency's text, or minus the room it needs. Counted values are marked by a negative count."""
    start = meta[USED]
    at = start
    room = 0
    for u in range(distinct):
        slot = scratch[used_at + u]
        code = scratch[2 * slot]
        room = max(room, ends[code] - ends[code - 1] if text and code else 21)
    need = wanted * (max(room, 4) + 1)
    if start + 2 * need > len(arena):
        return -2 * need
    for rank in range(wanted):
        best = -1
        for u in range(distinct):
            slot = scratch[used_at + u]
            count = scratch[2 * slot + 1]
            if count <= 0:
                continue
            if best < 0 or count > scratch[2 * best + 1]:
                best = slot
            elif count == scratch[2 * best + 1]:
                key, other = scratch[2 * slot], scratch[2 * best]
                if less(key, other, arena, ends) if text else key < other:
                    best = slot
        if rank:
            arena[at] = 44
            at += 1
        if best < 0:
            arena[at], arena[at + 1], arena[at + 2], arena[at + 3] = 78, 85, 76, 76
            at += 4
            continue
        key = scratch[2 * best]
        scratch[2 * best + 1] = -scratch[2 * best + 1]
        if text:
            first = ends[key - 1] if key else 0
            copy(address(arena) + at, address(arena) + first, ends[key] - first)
            at += ends[key] - first
        else:
            at = _digits(key, arena, at)
    for u in range(distinct):
        slot = scratch[used_at + u]
        scratch[2 * slot + 1] = abs(scratch[2 * slot + 1])
    code = intern(address(arena) + start, at - start, arena, ends, slots, meta)
    return code if code >= 0 else -2 * need
