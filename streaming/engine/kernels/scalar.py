"""Kernels of scalar instructions: one loop over a register per instruction, NULL in, NULL out unless said."""

# mypy: disable-error-code="no-any-return, return-value"
from __future__ import annotations

import numpy as np

from streaming.engine.native.kernel import Bytes, Float64, Int64, inner
from streaming.engine.native.memory import word
from streaming.engine.storage.strings import less

__all__ = ["apply"]

_ZONE_MS = 8 * 3_600_000  # OpenMLDB's dates and times of day are those of UTC+8
_DAY_MS = 86_400_000


@inner
def _wrap(value: int, bits: int) -> int:
    if bits == 16:
        return np.int64(np.int16(value))
    if bits == 32:
        return np.int64(np.int32(value))
    return value


@inner
def _integers(op: int, x: int, y: int, bits: int) -> int:
    if op == 10:
        return _wrap(x + y, bits)
    if op == 11:
        return _wrap(x - y, bits)
    if op == 12:
        return _wrap(x * y, bits)
    if op == 17:
        return x & y
    if op == 18:
        return x | y
    if op == 19:
        return x ^ y
    if op == 21:
        return _wrap(x << y, bits)
    if op == 22:
        return x >> y
    if op == 40:
        return np.int64(x == y)
    if op == 41:
        return np.int64(x != y)
    if op == 42:
        return np.int64(x < y)
    if op == 43:
        return np.int64(x <= y)
    return np.int64((x != 0) != (y != 0))  # XOR


@inner
def _floats(op: int, x: float, y: float) -> float:
    if op == 30:
        return x + y
    if op == 31:
        return x - y
    if op == 32:
        return x * y
    return x / y


@inner
def _compare(op: int, x: float, y: float) -> bool:
    if op == 44:
        return x == y
    if op == 45:
        return x != y
    if op == 46:
        return x < y
    return x <= y


@inner
def _time(op: int, ms: int) -> int:
    if op == 75:
        return ms * _DAY_MS - _ZONE_MS
    local = ms + _ZONE_MS
    if op == 70:
        return (local // _DAY_MS + 4) % 7 + 1
    # C cuts towards 0, before 1970 too; minutes and seconds are the same in every zone of whole hours
    if op == 71:
        return local // 3_600_000 % 24 if local >= 0 else -(-local // 3_600_000 % 24)
    if op == 72:
        return ms // 60_000 % 60 if ms >= 0 else -(-ms // 60_000 % 60)
    if op == 73:
        return ms // 1_000 % 60 if ms >= 0 else -(-ms // 1_000 % 60)
    return local // _DAY_MS


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
    nul: Bytes,
    arena: Bytes,
    ends: Int64,
) -> None:
    """Runs scalar instruction `op` over `n` elements.

    Args:
        o, a, b, c: where the registers begin in `mem`.
        steps: bit 0, 1, 2: operand a, b, c is a vector (else a constant).
        bits: width of an integer result; 1: the result is a float32.
        mem_f: `mem` as float64.
    """
    sa, sb, sc = steps & 1, steps >> 1 & 1, steps >> 2 & 1
    if (op >= 10 and op <= 12) or (op >= 17 and op <= 22 and op != 20) or (op >= 40 and op <= 43) or op == 52:
        for i in range(n):
            x, y = a + sa * i, b + sb * i
            mem[o + i] = _integers(op, mem[x], mem[y], bits)
            nul[o + i] = nul[x] | nul[y]
    elif op >= 13 and op <= 14:
        for i in range(n):
            x, y = a + sa * i, b + sb * i
            p, q = mem[x], mem[y]
            if nul[x] or nul[y] or q == 0:
                nul[o + i] = 1
                mem[o + i] = 0
                continue
            nul[o + i] = 0
            quotient = -p if q == -1 else word(p // q)
            if (p < 0) != (q < 0) and quotient * q != p:
                quotient += 1
            mem[o + i] = _wrap(quotient if op == 13 else p - quotient * q, bits)  # like C: towards 0
    elif op >= 30 and op <= 33:
        for i in range(n):
            x, y = a + sa * i, b + sb * i
            nul[o + i] = nul[x] | nul[y] | (op == 33 and mem_f[y] == 0.0)
            value = _floats(op, mem_f[x], mem_f[y]) if not nul[o + i] else 0.0
            mem_f[o + i] = np.float64(np.float32(value)) if bits == 1 else value
    elif op == 34:
        for i in range(n):
            x, y = a + sa * i, b + sb * i
            nul[o + i] = nul[x] | nul[y] | (mem_f[y] == 0.0)
            if not nul[o + i]:
                p, q = mem_f[x], mem_f[y]
                remainder = abs(p) % abs(q)
                value = -remainder if p < 0 else remainder
                if p == 0.0 and not np.isnan(q):  # a zero keeps its sign; of NaN there is no remainder
                    value = p
                mem_f[o + i] = np.float64(np.float32(value)) if bits == 1 else value
    elif op >= 44 and op <= 47:
        for i in range(n):
            x, y = a + sa * i, b + sb * i
            nul[o + i] = nul[x] | nul[y]
            mem[o + i] = np.int64(_compare(op, mem_f[x], mem_f[y]))
    elif op >= 48 and op <= 49:
        for i in range(n):
            x, y = a + sa * i, b + sb * i
            nul[o + i] = nul[x] | nul[y]
            if not nul[o + i]:
                below = less(mem[x], mem[y], arena, ends) or (op == 49 and mem[x] == mem[y])
                mem[o + i] = np.int64(below)
    elif op >= 50 and op <= 51:
        # three-valued: false and NULL = false, true or NULL = true
        decisive = 0 if op == 50 else 1
        for i in range(n):
            x, y = a + sa * i, b + sb * i
            p, q = np.int64(mem[x] != 0), np.int64(mem[y] != 0)
            if (not nul[x] and p == decisive) or (not nul[y] and q == decisive):
                mem[o + i] = decisive
                nul[o + i] = 0
            else:
                mem[o + i] = 1 - decisive
                nul[o + i] = nul[x] | nul[y]
    elif op == 53 or op == 58:  # noqa: PLR1714 - a tuple costs numba much time
        for i in range(n):
            x = a + sa * i
            mem[o + i] = np.int64((mem[x] == 0) == (op == 53))
            nul[o + i] = nul[x]
    elif op == 59:
        for i in range(n):
            x = a + sa * i
            mem[o + i] = np.int64(mem_f[x] != 0.0)
            nul[o + i] = nul[x]
    elif op == 54:
        for i in range(n):
            mem[o + i] = np.int64(nul[a + sa * i])
            nul[o + i] = 0
    elif op == 55:
        for i in range(n):
            x = a + sa * i
            if nul[x]:
                x = b + sb * i
            mem[o + i] = mem[x]
            nul[o + i] = nul[x]
    elif op == 56:
        for i in range(n):
            x = a + sa * i
            y = b + sb * i if mem[x] != 0 and not nul[x] else c + sc * i
            mem[o + i] = mem[y]
            nul[o + i] = nul[y]
    elif op == 57:
        for i in range(n):
            x = a + sa * i
            mem[o + i] = mem[x]
            nul[o + i] = nul[x] | (mem[x] < mem[b + sb * i]) | (mem[x] > mem[c + sc * i])
    elif op >= 70 and op <= 75:
        for i in range(n):
            x = a + sa * i
            mem[o + i] = _time(op, mem[x])
            nul[o + i] = nul[x]
    else:
        for i in range(n):
            x = a + sa * i
            nul[o + i] = nul[x]
            if op == 9:
                mem[o + i] = mem[x]
            elif op == 60:
                mem[o + i] = mem[x]
                nul[o + i] = nul[x] | nul[b + sb * i]
            elif op == 16:
                mem[o + i] = _wrap(mem[x], bits)
            elif op == 38:
                value = mem_f[x]
                # out of range: what x86's cvttsd2si gives, which narrows to 32 bits at least
                edge = 9.223372036854775e18 if bits == 64 else 2147483648.0
                if value < edge and value > (-edge if bits == 64 else -2147483649.0):
                    mem[o + i] = _wrap(np.int64(value), bits)  # type: ignore[arg-type]
                else:
                    mem[o + i] = -0x8000000000000000 if bits == 64 else _wrap(-0x80000000, bits)
            elif op == 37:
                value = np.float64(mem[x])
                mem_f[o + i] = np.float64(np.float32(mem[x])) if bits == 1 else value
            elif op == 36:
                mem_f[o + i] = np.float64(np.float32(mem_f[x]))
            elif op == 15:
                mem[o + i] = _wrap(-mem[x], bits)
            elif op == 35:
                mem_f[o + i] = -mem_f[x]
            else:
                mem[o + i] = _wrap(~mem[x], bits)
