"""Kernels of scalar instructions: one loop over a register per instruction, NULL in, NULL out unless said."""

# mypy: disable-error-code="no-any-return, return-value"
from __future__ import annotations

import numpy as np

from streaming.engine.kernels.instructions import FLOAT32, Op
from streaming.engine.native.kernel import Bytes, Float64, Int64, inner
from streaming.engine.native.memory import word
from streaming.engine.storage.strings import less
from streaming.engine.types import FIRST_DATE, LAST_DATE, ZERO_DATE

__all__ = ["apply", "wrap"]

_ZONE_MS = 8 * 3_600_000  # OpenMLDB's dates and times of day are those of UTC+8
_DAY_MS = 86_400_000


@inner
def wrap(value: int, bits: int) -> int:
    """The low bits of a number: 16, 32 or all 64 of them, with its sign."""
    if bits == 16:
        return np.int64(np.int16(value))
    if bits == 32:
        return np.int64(np.int32(value))
    return value


@inner
def _integers(op: int, x: int, y: int, bits: int) -> int:
    if op == Op.ADD:
        return wrap(x + y, bits)
    if op == Op.SUB:
        return wrap(x - y, bits)
    if op == Op.MUL:
        return wrap(x * y, bits)
    if op == Op.BIT_AND:
        return x & y
    if op == Op.BIT_OR:
        return x | y
    if op == Op.BIT_XOR:
        return x ^ y
    if op == Op.SHIFT_LEFT:
        return wrap(x << y, bits)
    if op == Op.SHIFT_RIGHT:
        return x >> y
    if op == Op.EQ:
        return np.int64(x == y)
    if op == Op.NE:
        return np.int64(x != y)
    if op == Op.LT:
        return np.int64(x < y)
    if op == Op.LE:
        return np.int64(x <= y)
    return np.int64((x != 0) != (y != 0))  # XOR


@inner
def _floats(op: int, x: float, y: float) -> float:
    if op == Op.FADD:
        return x + y
    if op == Op.FSUB:
        return x - y
    if op == Op.FMUL:
        return x * y
    return x / y


@inner
def _compare(op: int, x: float, y: float) -> bool:
    if op == Op.FEQ:
        return x == y
    if op == Op.FNE:
        return x != y
    if op == Op.FLT:
        return x < y
    return x <= y


@inner
def _wrapping_sum(a: int, b: int) -> int:
    """The sum of two int64, of which the compiler must not take it that it does not wrap."""
    return np.int64(np.uint64(a) + np.uint64(b))


@inner
def _cut(value: int, divisor: int) -> int:
    """The quotient, cut towards 0 as C does it."""
    quotient = word(value // divisor)
    if quotient < 0 and quotient * divisor != value:
        quotient += 1
    return quotient


@inner
def _day(local: int) -> int:
    """The days since 1970 of a local time in milliseconds, which C first cuts to seconds."""
    return local // _DAY_MS if local >= 0 else _cut(local, word(1_000)) // 86_400


@inner
def _time(op: int, ms: int) -> int:
    if op == Op.TIMESTAMP_OF:
        return ms * _DAY_MS - _ZONE_MS
    local = _wrapping_sum(ms, _ZONE_MS)
    if op == Op.DAY_OF_WEEK:
        return (_day(local) + 4) % 7 + 1
    # before 1970 these are negative; minutes and seconds are the same in every zone of whole hours
    if op == Op.HOUR:
        hours = _cut(local, word(3_600_000))
        return hours - _cut(hours, word(24)) * 24
    if op == Op.MINUTE:
        minutes = _cut(ms, word(60_000))
        return minutes - _cut(minutes, word(60)) * 60
    if op == Op.SECOND:
        seconds = _cut(ms, word(1_000))
        return seconds - _cut(seconds, word(60)) * 60
    day = _day(local)
    return day if day >= FIRST_DATE and day <= LAST_DATE else ZERO_DATE


@inner
def _apply_to_integers(
    op: int, n: int, o: int, a: int, b: int, sa: int, sb: int, bits: int, mem: Int64, nulls: Bytes
) -> None:
    """Arithmetic, comparison and exclusive or of two integers."""
    if op == Op.IDIV or op == Op.MOD:  # noqa: PLR1714 - a tuple costs numba much time
        for i in range(n):
            x, y = a + sa * i, b + sb * i
            p, q = mem[x], mem[y]
            if nulls[x] or nulls[y] or q == 0:
                nulls[o + i] = 1
                mem[o + i] = 0
                continue
            nulls[o + i] = 0
            quotient = -p if q == -1 else word(p // q)
            if (p < 0) != (q < 0) and quotient * q != p:
                quotient += 1
            mem[o + i] = wrap(quotient if op == Op.IDIV else p - quotient * q, bits)  # like C: towards 0
    else:
        for i in range(n):
            x, y = a + sa * i, b + sb * i
            mem[o + i] = _integers(op, mem[x], mem[y], bits)
            nulls[o + i] = nulls[x] | nulls[y]


@inner
def _apply_to_floats(
    op: int, n: int, o: int, a: int, b: int, sa: int, sb: int, bits: int, mem_f: Float64, nulls: Bytes
) -> None:
    """Arithmetic of two floats."""
    if op == Op.FMOD:
        for i in range(n):
            x, y = a + sa * i, b + sb * i
            nulls[o + i] = nulls[x] | nulls[y] | (mem_f[y] == 0.0)
            if not nulls[o + i]:
                p, q = mem_f[x], mem_f[y]
                remainder = abs(p) % abs(q)
                value = -remainder if p < 0 and not np.isnan(remainder) else remainder
                if np.isnan(p) or np.isnan(q):  # a NaN keeps its sign, and so does a zero
                    value = p if np.isnan(p) else q
                elif p == 0.0:
                    value = p
                mem_f[o + i] = np.float64(np.float32(value)) if bits == FLOAT32 else value
    else:
        for i in range(n):
            x, y = a + sa * i, b + sb * i
            nulls[o + i] = nulls[x] | nulls[y] | (op == Op.FDIV and mem_f[y] == 0.0)
            value = _floats(op, mem_f[x], mem_f[y]) if not nulls[o + i] else 0.0
            mem_f[o + i] = np.float64(np.float32(value)) if bits == FLOAT32 else value


@inner
def _compare_all(
    op: int,
    n: int,
    o: int,
    a: int,
    b: int,
    sa: int,
    sb: int,
    mem: Int64,
    mem_f: Float64,
    nulls: Bytes,
    arena: Bytes,
    ends: Int64,
) -> None:
    """Comparison of two floats or two strings."""
    if op <= Op.FLE:
        for i in range(n):
            x, y = a + sa * i, b + sb * i
            nulls[o + i] = nulls[x] | nulls[y]
            mem[o + i] = np.int64(_compare(op, mem_f[x], mem_f[y]))
    else:
        for i in range(n):
            x, y = a + sa * i, b + sb * i
            nulls[o + i] = nulls[x] | nulls[y]
            if not nulls[o + i]:
                below = less(mem[x], mem[y], arena, ends) or (op == Op.SLE and mem[x] == mem[y])
                mem[o + i] = np.int64(below)


@inner
def _apply_logic(op: int, n: int, o: int, a: int, b: int, sa: int, sb: int, mem: Int64, nulls: Bytes) -> None:
    """AND and OR, three-valued: false and NULL = false, true or NULL = true."""
    decisive = 0 if op == Op.AND else 1
    for i in range(n):
        x, y = a + sa * i, b + sb * i
        p, q = np.int64(mem[x] != 0), np.int64(mem[y] != 0)
        if (not nulls[x] and p == decisive) or (not nulls[y] and q == decisive):
            mem[o + i] = decisive
            nulls[o + i] = 0
        else:
            mem[o + i] = 1 - decisive
            nulls[o + i] = nulls[x] | nulls[y]


@inner
def _choose(
    op: int, n: int, o: int, a: int, b: int, c: int, sa: int, sb: int, sc: int, mem: Int64, nulls: Bytes
) -> None:
    """IF_NULL, SELECT and IN_RANGE: one of the operands, or NULL."""
    if op == Op.IF_NULL:
        for i in range(n):
            x = a + sa * i
            if nulls[x]:
                x = b + sb * i
            mem[o + i] = mem[x]
            nulls[o + i] = nulls[x]
    elif op == Op.SELECT:
        for i in range(n):
            x = a + sa * i
            y = b + sb * i if mem[x] != 0 and not nulls[x] else c + sc * i
            mem[o + i] = mem[y]
            nulls[o + i] = nulls[y]
    else:
        for i in range(n):
            x = a + sa * i
            mem[o + i] = mem[x]
            nulls[o + i] = nulls[x] | (mem[x] < mem[b + sb * i]) | (mem[x] > mem[c + sc * i])


@inner
def _to_integer(value: float, bits: int) -> int:
    """A float as an integer; out of range: what x86's cvttsd2si gives, which narrows to 32 bits at least."""
    edge = 9.223372036854775e18 if bits == 64 else 2147483648.0
    if value < edge and value > (-edge if bits == 64 else -2147483649.0):
        return wrap(np.int64(value), bits)  # type: ignore[arg-type]
    return -0x8000000000000000 if bits == 64 else wrap(word(-0x80000000), bits)


@inner
def _convert(
    op: int, n: int, o: int, a: int, b: int, sa: int, sb: int, bits: int, mem: Int64, mem_f: Float64, nulls: Bytes
) -> None:
    """Instructions of one value: conversions, signs, copies, tests, fields of times."""
    for i in range(n):
        x = a + sa * i
        nulls[o + i] = nulls[x]
        if op == Op.COPY:
            mem[o + i] = mem[x]
        elif op == Op.SAME_NULL:
            mem[o + i] = mem[x]
            nulls[o + i] = nulls[x] | nulls[b + sb * i]
        elif op == Op.NOT or op == Op.TRUTH:  # noqa: PLR1714 - a tuple costs numba much time
            mem[o + i] = np.int64((mem[x] == 0) == (op == Op.NOT))
        elif op == Op.FTRUTH:
            mem[o + i] = np.int64(mem_f[x] != 0.0)
        elif op >= Op.DAY_OF_WEEK and op <= Op.TIMESTAMP_OF:
            mem[o + i] = _time(op, mem[x])
            if op == Op.TIMESTAMP_OF and mem[x] == ZERO_DATE:
                nulls[o + i] = 1
        elif op == Op.WRAP:
            mem[o + i] = wrap(mem[x], bits)
        elif op == Op.TO_INT:
            mem[o + i] = _to_integer(mem_f[x], bits)
        elif op == Op.TO_FLOAT:
            value = np.float64(mem[x])
            mem_f[o + i] = np.float64(np.float32(mem[x])) if bits == FLOAT32 else value
        elif op == Op.ROUND32:
            mem_f[o + i] = np.float64(np.float32(mem_f[x]))
        elif op == Op.NEG:
            mem[o + i] = wrap(-mem[x], bits)
        elif op == Op.FNEG:
            mem_f[o + i] = -mem_f[x]
        else:
            mem[o + i] = wrap(~mem[x], bits)


@inner
def apply(
    op: int,
    n: int,
    o: int,
    a: int,
    b: int,
    c: int,
    steps: int,
    bits: int,
    mem: Int64,
    mem_f: Float64,
    nulls: Bytes,
    arena: Bytes,
    ends: Int64,
) -> None:
    """Runs scalar instruction `op` over `n` elements.

    Args:
        o, a, b, c: where the registers begin in `mem`.
        steps: bit 0, 1, 2: operand a, b, c is a vector (else a constant).
        bits: width of an integer result; `FLOAT32`: the result is one.
        mem_f: `mem` as float64.
        arena, ends: the string pool's.
    """
    sa, sb, sc = steps & 1, steps >> 1 & 1, steps >> 2 & 1
    unary = op == Op.NEG or op == Op.WRAP or op == Op.BIT_NOT  # noqa: PLR1714 - a tuple costs numba much time
    integers = op >= Op.ADD and op <= Op.SHIFT_RIGHT and not unary
    if integers or (op >= Op.EQ and op <= Op.LE) or op == Op.XOR:
        _apply_to_integers(op, n, o, a, b, sa, sb, bits, mem, nulls)
    elif op >= Op.FADD and op <= Op.FMOD:
        _apply_to_floats(op, n, o, a, b, sa, sb, bits, mem_f, nulls)
    elif op >= Op.FEQ and op <= Op.SLE:
        _compare_all(op, n, o, a, b, sa, sb, mem, mem_f, nulls, arena, ends)
    elif op >= Op.AND and op <= Op.OR:
        _apply_logic(op, n, o, a, b, sa, sb, mem, nulls)
    elif op == Op.IS_NULL:
        for i in range(n):
            mem[o + i] = np.int64(nulls[a + sa * i])
            nulls[o + i] = 0
    elif op >= Op.IF_NULL and op <= Op.IN_RANGE:
        _choose(op, n, o, a, b, c, sa, sb, sc, mem, nulls)
    else:
        _convert(op, n, o, a, b, sa, sb, bits, mem, mem_f, nulls)
