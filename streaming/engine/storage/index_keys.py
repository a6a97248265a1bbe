"""The keys of an index: how values enter them, and the hash table that finds a key's number."""

# mypy: disable-error-code="no-any-return, return-value"
from __future__ import annotations

import numpy as np

from streaming.engine.native.kernel import Int64, Matrix, inner, kernel
from streaming.engine.native.memory import address, int64s_at
from streaming.engine.storage.strings import EMPTY, EMPTY_KEY, NULL_KEY
from streaming.engine.types import NULLS_PER_WORD

__all__ = ["find_key", "key_numbers", "key_word", "refill"]


@inner
def key_word(word: int, null: bool, text: bool) -> int:
    """How a value enters a key: OpenMLDB spells NULL and '' as texts of their own (see `strings`)."""
    if text:
        if null:
            return NULL_KEY
        return EMPTY_KEY if word == EMPTY else word
    return 0 if null else word


@inner
def find_key(probe: Int64, slots: Int64, keys: Int64) -> int:
    """The slot of `probe` in the table of keys: one that holds it, or the empty one where it belongs."""
    h = np.uint64(0x9E3779B97F4A7C15)
    for i in range(len(probe)):
        h = (h ^ np.uint64(probe[i])) * np.uint64(0xBF58476D1CE4E5B9)
        h ^= h >> np.uint64(31)
    mask = len(slots) - 1
    slot = np.int64(h & np.uint64(mask))
    width = len(probe)
    while slots[slot] >= 0:
        base = slots[slot] * width
        same = True
        for i in range(width):
            if keys[base + i] != probe[i]:
                same = False
                break
        if same:
            return slot
        slot = (slot + 1) & mask
    return slot


@inner
def _probe(rows: Matrix, row: int, key_columns: Int64, texts: Int64, n_columns: int, probe: Int64) -> None:
    # the last word of a key says which of its numbers are NULL
    missing = 0
    for i in range(len(key_columns)):
        c = key_columns[i]
        null = (rows[row, n_columns + c // NULLS_PER_WORD] >> (c % NULLS_PER_WORD)) & 1
        probe[i] = key_word(rows[row, c], null != 0, texts[i] != 0)
        if null and not texts[i]:
            missing |= 1 << i
    probe[len(key_columns)] = missing


@kernel
def key_numbers(
    rows: Matrix,
    order: Int64,
    key_columns: Int64,
    texts: Int64,
    n_columns: int,
    slots: Int64,
    keys: Int64,
    key_count: Int64,
    probe: Int64,
    out: Int64,
    first: int,
) -> int:
    """Key numbers of `order`'s rows; stops where the table of keys is full and says how far it came.

    `probe` is room for a key.
    """
    width = len(probe)
    for i in range(first, len(order)):
        _probe(rows, order[i], key_columns, texts, n_columns, probe)
        slot = find_key(probe, slots, keys)
        if slots[slot] < 0:
            key = key_count[0]
            if 2 * key >= len(slots) or (key + 1) * width > len(keys):
                return i
            for j in range(width):
                keys[key * width + j] = probe[j]
            slots[slot] = key
            key_count[0] = key + 1
        out[i] = slots[slot]
    return len(order)


@kernel
def refill(slots: Int64, keys: Int64, count: int, width: int) -> None:
    """Enters the first `count` keys into `slots`, which is empty (-1)."""
    for key in range(count):
        slots[find_key(int64s_at(address(keys) + 8 * key * width, width), slots, keys)] = key
