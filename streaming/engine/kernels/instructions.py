"""The layout that plans and kernels share: instructions, registers, domains.

A plan is a list of instructions over vector registers. A register holds one value for each element of its domain:

    0   constants                      one element, read with stride 0
    1   the requests of the batch      n elements
    2…  the rows of one group          for each element of the parent domain a segment of rows, newest first

All registers lie in one int64 array, `mem` (a float as its bits), with NULL flags at the same places of `nul`. The
kernel lays a group's registers behind one another once its number of rows is known. An operand is a reference:
domain * 2^20 + slot. Slots 0 and 1 of a group are the row (`ROW_BITS` bits of row number, then the number of the
source; -1 is the request itself) and the element of the parent domain that it belongs to.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["CONSTANTS", "REQUESTS", "ROW_BITS", "Domain", "Op", "State", "ref"]

CONSTANTS, REQUESTS = 0, 1
ROW_BITS = 40


class Domain(IntEnum):
    """Columns of the table of domains."""

    LENGTH = 0
    BASE = 1  # where slot 0 begins in `mem`
    OFFSETS = 2  # where the parent's length + 1 segment offsets begin
    FRAMES = 3  # where lo and hi of frame 0 begin: each the parent's length
    SLOTS = 4
    PARENT = 5


class State(IntEnum):
    """Places of the kernel's state, by which it stops, asks for room, and goes on."""

    PC = 0
    WANT = 1  # 0: nothing, 1: more `mem`, 2: more room in the string pool, 3: more scratch
    NEED = 2  # how much
    TOP = 3  # first unused place of `mem`


class Op(IntEnum):
    """Instructions: (op, out, a, b, c, d, e, f); operands are references unless said otherwise."""

    LOAD = 0  # a: column of the request
    FETCH = 1  # row reference a (of `JOIN` or `PICK`), table number b, column c
    COLLECT = 2  # out: domain number, a: place in `extra`
    FLAT = 3  # a: parent register for the request's element, table number b, column c for all other elements
    FLAT_PARENT = 4  # a: parent register, for every element; b: 1 for the request's own elements only
    FLAT_COLUMN = 5  # source number a, table number b, column c; d: 1 where the other sources' elements become NULL
    FLAT_COPY = 6  # source number a, register b
    JOIN = 7  # a: place in `extra`: index number, number of keys, (key register, is text)*
    PICK = 8  # a: domain number, b: condition register
    COPY = 9
    # integers: b wraps to `c` bits (16, 32 or 64; c is a number)
    ADD = 10
    SUB = 11
    MUL = 12
    IDIV = 13
    MOD = 14
    NEG = 15
    WRAP = 16
    BIT_AND = 17
    BIT_OR = 18
    BIT_XOR = 19
    BIT_NOT = 20
    SHIFT_LEFT = 21
    SHIFT_RIGHT = 22
    # floats: c is 1 where the result is a float32
    FADD = 30
    FSUB = 31
    FMUL = 32
    FDIV = 33
    FMOD = 34
    FNEG = 35
    ROUND32 = 36
    TO_FLOAT = 37
    TO_INT = 38
    # comparisons: bool
    EQ = 40
    NE = 41
    LT = 42
    LE = 43
    FEQ = 44
    FNE = 45
    FLT = 46
    FLE = 47
    SLT = 48
    SLE = 49
    # logic
    AND = 50
    OR = 51
    XOR = 52
    NOT = 53
    IS_NULL = 54
    IF_NULL = 55
    SELECT = 56  # a: condition, b, c
    IN_RANGE = 57  # NULL where a lies outside [b, c] (registers)
    TRUTH = 58  # a number as a bool
    FTRUTH = 59
    SAME_NULL = 60  # value of a, NULL where b is
    # time, UTC+8
    DAY_OF_WEEK = 70
    HOUR = 71
    MINUTE = 72
    SECOND = 73
    DATE_OF = 74  # days since 1970 of a timestamp
    TIMESTAMP_OF = 75  # the midnight of a date
    # aggregates: out, domain number a, frame number b, value c, condition d or -1, number e
    COUNT = 100
    SUM = 101
    FSUM = 102
    AVG = 103
    FAVG = 104
    MIN = 105
    FMIN = 106
    SMIN = 107
    MAX = 108
    FMAX = 109
    SMAX = 110
    AT = 111
    OLDEST = 112
    # distinct_count, top1_ratio and topn_frequency of one value in one pass.
    # a domain, b frame, c value, d condition, e place in `extra`: text, number of outputs, (kind, n, out)*
    FREQUENCY = 113
    # a function in Python: `a` is its number in the plan; the kernel stops before it
    HOST = 200


def ref(domain: int, slot: int) -> int:
    """The reference of a register."""
    return domain << 20 | slot
