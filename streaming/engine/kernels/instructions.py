"""The layout that plans and kernels share: instructions, registers, domains.

A program is a list of instructions over vector registers. A register holds one value for each element of its domain:

    0   constants                      one element, read with stride 0
    1   the requests of the batch      n elements
    2…  the rows of one group          for each element of the parent domain a segment of rows, newest first

All registers lie in one int64 array, `mem` (a float as its bits), with NULL flags at the same places of `nulls`. The
kernel lays a group's registers behind one another once its number of rows is known. An instruction names a register by
domain and slot in one number, see `register`. Slots 0 and 1 of a group are the row reference (`ROW_BITS` bits of row
number, then the number of the source; -1 is the request itself) and the element of the parent domain that it belongs
to. What an instruction needs beyond seven numbers stands in `operands`, see `kernels.operands`.

Kernels name these enumerations, too: numba makes numbers of their members.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = [
    "CONSTANTS",
    "FLOAT32",
    "REQUESTS",
    "ROW_BITS",
    "ROW_MASK",
    "SLOT_BITS",
    "SLOT_MASK",
    "Domain",
    "Field",
    "FrequencyKind",
    "Op",
    "Outcome",
    "State",
    "domain_of",
    "register",
    "slot_of",
]

CONSTANTS, REQUESTS = 0, 1
"""The first two domains."""

SLOT_BITS = 20
SLOT_MASK = (1 << SLOT_BITS) - 1
ROW_BITS = 40
ROW_MASK = (1 << ROW_BITS) - 1

FLOAT32 = 1
"""What an instruction has in the place of a number of bits where its result is a float32."""


def register(domain: int, slot: int) -> int:
    """The number by which instructions name a register."""
    return domain << SLOT_BITS | slot


def domain_of(number: int) -> int:
    """The domain of a register."""
    return number >> SLOT_BITS


def slot_of(number: int) -> int:
    """The slot of a register in its domain."""
    return number & SLOT_MASK


class Domain(IntEnum):
    """Columns of the table of domains."""

    LENGTH = 0
    BASE = 1  # where slot 0 begins in `mem`
    OFFSETS = 2  # where the parent's length + 1 segment offsets begin
    FRAMES = 3  # where the first and last places of frame 0 begin: each the parent's length
    SLOTS = 4
    PARENT = 5


class State(IntEnum):
    """Places of the kernel's state, by which it stops, asks for room, and goes on."""

    PC = 0  # number of the next instruction
    OUTCOME = 1  # see `Outcome`
    NEED = 2  # how much room it wants
    TOP = 3  # first unused place of `mem`


class Outcome(IntEnum):
    """Why the kernel stopped."""

    DONE = -1
    PYTHON = 0  # before a PYTHON instruction
    MEMORY = 1  # `mem` is too short
    STRINGS = 2  # the string pool is too small
    SCRATCH = 3  # the room to count in is too short


class FrequencyKind(IntEnum):
    """What FREQUENCY makes of the counts of a value."""

    DISTINCT_COUNT = 0
    TOP1_RATIO = 1
    TOPN_FREQUENCY = 2


class Field(IntEnum):
    """Columns of an instruction. A to F are its operands: registers unless `Op` says otherwise."""

    OP = 0
    OUT = 1
    A = 2
    B = 3
    C = 4
    D = 5
    E = 6
    F = 7


class Op(IntEnum):
    """Instructions. Kernels test for ranges of them: a new one goes among its like."""

    LOAD = 0  # a: column of the request
    FETCH = 1  # row reference a (of `JOIN` or `PICK`), table number b, column c
    COLLECT = 2  # out: domain number, a: place of its `Collect` in the operands
    FLAT = 3  # a: parent register for the request's element, table number b, column c for all other elements
    FLAT_PARENT = 4  # a: parent register, for every element; b: 1 for the request's own elements only
    FLAT_COLUMN = 5  # source number a, table number b, column c; d: 1 where the other sources' elements become NULL
    FLAT_COPY = 6  # source number a, register b
    JOIN = 7  # a: place of its `Join` in the operands
    PICK = 8  # a: domain number, b: condition register
    COPY = 9
    # integers: c: width of the result in bits, 16, 32 or 64
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
    # floats: c: `FLOAT32` where the result is one
    FADD = 30
    FSUB = 31
    FMUL = 32
    FDIV = 33
    FMOD = 34
    FNEG = 35
    ROUND32 = 36
    TO_FLOAT = 37
    TO_INT = 38
    # comparisons: bool; F of floats, S of strings
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
    # aggregates: domain number a, frame number b, value c, condition d or -1, number e, bits f; F of
    # floats, S of strings
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
    # `FrequencyKind`s of one value in one pass: e: place of its `Frequency` in the operands; the rest as of aggregates
    FREQUENCY = 113
    # a function in Python: `a` is its number in the program; the kernel stops before it
    PYTHON = 200
