"""Kernels that look into a table's indexes: the rows of a key, newest first, as far as a request may see them."""

# mypy: disable-error-code="no-any-return, return-value"
from __future__ import annotations

from enum import IntEnum

from streaming.engine.kernels.operands import KeyField
from streaming.engine.kernels.registers import element_place
from streaming.engine.native.kernel import Bytes, Int64, Matrix, inner
from streaming.engine.native.memory import int64s_at, word
from streaming.engine.storage.index_keys import find_key, key_word

__all__ = [
    "EVERYTHING",
    "UNMEASURED",
    "IndexField",
    "TableField",
    "fill_probe",
    "first_entry",
    "head",
    "limit_of",
    "live",
    "row_of",
]


class IndexField(IntEnum):
    """Columns of the table of indexes: addresses and lengths of its arrays (see `table.Index`), and who is alive."""

    SLOTS = 0
    SLOTS_LENGTH = 1
    KEYS = 2
    KEYS_LENGTH = 3
    HEADS = 4
    ENTRIES = 5
    ROW_OF = 6  # 0: entry and row are the same number
    LATEST = 7  # rows of a key that live; 0: all
    EXPIRY = 8  # the oldest time that lives; 0: every one
    BOTH = 9  # whether both must be over for a row to be gone


class TableField(IntEnum):
    """Columns of the table of tables."""

    ROWS = 0  # address of its words
    WIDTH = 1
    N_COLUMNS = 2


UNMEASURED = 1 << 40
"""The length of an array that nobody measured."""

EVERYTHING = 0x7FFFFFFFFFFFFFFF
"""A limit that limits nothing; the time of an element without one."""


@inner
def head(index: Int64, probe: Int64) -> int:
    """The newest entry of a key; -1 where the key is unknown."""
    slots = int64s_at(index[IndexField.SLOTS], index[IndexField.SLOTS_LENGTH])
    keys = int64s_at(index[IndexField.KEYS], index[IndexField.KEYS_LENGTH])
    slot = find_key(probe, slots, keys)
    if slots[slot] < 0:
        return -1
    return int64s_at(index[IndexField.HEADS], UNMEASURED)[slots[slot]]


@inner
def live(index: Int64, entries: Int64, entry: int, limit: int, seen: Int64, source: int) -> int:
    """`entry` or the next older one that is there: before the limit, and within its time to live; -1: none.

    Args:
        entries: an entry's next older one and its time, two words for each.
        seen: by source, how many live entries of the key were met so far.
    """
    while entry >= limit:
        entry = entries[2 * entry]
    if entry >= 0 and (index[IndexField.LATEST] or index[IndexField.EXPIRY]):
        many = index[IndexField.LATEST] > 0 and seen[source] >= index[IndexField.LATEST]
        old = entries[2 * entry + 1] < index[IndexField.EXPIRY]
        if (many and old) if index[IndexField.BOTH] else (many or old):
            return -1
        seen[source] += 1
    return entry


@inner
def row_of(index: Int64, entry: int) -> int:
    """The row of an entry."""
    if index[IndexField.ROW_OF]:
        return int64s_at(index[IndexField.ROW_OF], UNMEASURED)[entry]
    return entry


@inner
def limit_of(limits: Matrix, request: int, index: int) -> int:
    """How many entries of an index a request may see: the first so many."""
    return limits[request, index] if limits.shape[0] > 0 else word(EVERYTHING)


@inner
def fill_probe(
    probe: Int64, operands: Int64, keys_at: int, n_keys: int, i: int, domains: Matrix, mem: Int64, nulls: Bytes
) -> None:
    """The key of element i, as an index spells it."""
    missing = 0
    for k in range(n_keys):
        part = keys_at + KeyField.SIZE * k
        is_text = operands[part + KeyField.IS_TEXT]
        value = element_place(domains, operands[part + KeyField.REGISTER], i)
        probe[k] = key_word(mem[value], nulls[value] != 0, is_text != 0)
        if nulls[value] and not is_text:
            missing |= 1 << k
    probe[n_keys] = missing


@inner
def first_entry(
    index: Int64, probe: Int64, limit: int, seen: Int64, source: int, newest: int, bounded: int, skip_newest: int
) -> int:
    """The entry of a key that a walk begins with; -1: none.

    Args:
        newest: where `bounded`, no entry may be newer.
        skip_newest: whether the first that may be is left out.
    """
    entries = int64s_at(index[IndexField.ENTRIES], UNMEASURED)
    entry = live(index, entries, head(index, probe), limit, seen, source)
    if bounded:
        while entry >= 0 and entries[2 * entry + 1] > newest:
            entry = live(index, entries, entries[2 * entry], limit, seen, source)
    if skip_newest and entry >= 0:
        entry = live(index, entries, entries[2 * entry], limit, seen, source)
    return entry
