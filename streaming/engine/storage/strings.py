"""The string pool: every string of the engine is interned once and is a small integer, its code, from then on.

Codes count up from 0 in order of first sight. Four are fixed, because OpenMLDB builds its index keys as text: a NULL
key is spelled `!N@U#L$L%` and an empty one `!@#$%`, so that rows with these very texts match them.

Strings of a request are interned like all others and forgotten again after the answer (`truncate`): the newest codes
leave the open-addressing table in reverse order of arrival, which restores it exactly.
"""

# mypy: disable-error-code="no-any-return, return-value"
from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import pyarrow as pa

from streaming.engine.library.text_bytes import text_bytes
from streaming.engine.native.kernel import Bytes, Int64, Matrix, inner, kernel
from streaming.engine.native.memory import address, copy, load8, load64, word
from streaming.engine.types import NULLS_PER_WORD

__all__ = ["COUNT", "EMPTY", "EMPTY_KEY", "FIXED", "NULL", "NULL_KEY", "USED", "StringPool", "intern", "less"]

NULL, EMPTY, NULL_KEY, EMPTY_KEY = 0, 1, 2, 3
FIXED = ["", "", "!N@U#L$L%", "!@#$%"]

# Places in `Pool.meta`.
COUNT, USED = 0, 1


@inner
def _hash(at: int, length: int) -> np.uint64:
    h = np.uint64(0xCBF29CE484222325) ^ np.uint64(length)
    for i in range(0, length - 7, 8):
        h = (h ^ np.uint64(load64(at + i))) * np.uint64(0xBF58476D1CE4E5B9)
        h ^= h >> np.uint64(29)
    if length & 7:
        last = word(0)
        if length > 8:
            last = load64(at + length - 8)
        else:
            for i in range(length):
                last = last << 8 | (load8(at + i) & 0xFF)
        h = (h ^ np.uint64(last)) * np.uint64(0xBF58476D1CE4E5B9)
        h ^= h >> np.uint64(29)
    h *= np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(32))


@inner
def _same(a: int, b: int, length: int) -> bool:
    for i in range(0, length - 7, 8):
        if load64(a + i) != load64(b + i):
            return False
    if length > 8:
        return load64(a + length - 8) == load64(b + length - 8)
    for i in range(length & ~7, length):  # noqa: SIM110 - compiled
        if load8(a + i) != load8(b + i):
            return False
    return True


@inner
def intern(at: int, length: int, arena: Bytes, ends: Int64, slots: Int64, meta: Int64) -> int:
    """The code of `length` bytes at an address, which may lie in the arena; -1 where the pool must grow first."""
    if length == 0:
        return EMPTY
    mask, texts = len(slots) - 1, address(arena)
    slot = np.int64(_hash(at, length) & np.uint64(mask))
    while slots[slot]:
        code = slots[slot]
        begin = ends[code - 1]
        if ends[code] - begin == length and _same(texts + begin, at, length):
            return code
        slot = (slot + 1) & mask
    code, used = meta[COUNT], meta[USED]
    if code >= len(ends) or 2 * code >= len(slots) or used + length > len(arena):
        return -1
    copy(texts + used, at, length)
    ends[code] = used + length
    slots[slot] = code
    meta[COUNT], meta[USED] = code + 1, used + length
    return code


@inner
def less(a: int, b: int, arena: Bytes, ends: Int64) -> bool:
    """Whether string `a` stands before string `b`, byte by byte."""
    if a == b:
        return False
    i, j = (ends[a - 1] if a > 0 else 0), (ends[b - 1] if b > 0 else 0)
    while i < ends[a] and j < ends[b]:
        if arena[i] != arena[j]:
            return arena[i] < arena[j]
        i += 1
        j += 1
    return i >= ends[a] and j < ends[b]


@kernel
def _intern_many(
    data: Bytes,
    offsets: Int64,
    valid: Bytes,
    out: Int64,
    first: int,
    arena: Bytes,
    ends: Int64,
    slots: Int64,
    meta: Int64,
) -> int:
    for i in range(first, len(out)):
        if len(valid) and not valid[i]:
            out[i] = NULL
            continue
        code = intern(address(data) + offsets[i], offsets[i + 1] - offsets[i], arena, ends, slots, meta)
        if code < 0:
            return i
        out[i] = code
    return len(out)


@kernel
def _intern_rows(
    rows: Matrix,
    columns: Int64,
    n_columns: int,
    data: Bytes,
    state: Int64,
    arena: Bytes,
    ends: Int64,
    slots: Int64,
    meta: Int64,
) -> int:
    """Puts the codes of texts, which lie in `data` one behind the other, in the place of their lengths in `rows`.

    Goes on from text number state[0], byte state[1]. Returns 0, or the length of the text that finds no room.
    """
    place, at = state[0], state[1]
    for number in range(place, len(rows) * len(columns)):
        r, c = number // len(columns), columns[number % len(columns)]
        if (rows[r, n_columns + c // NULLS_PER_WORD] >> (c % NULLS_PER_WORD)) & 1:
            continue
        length = rows[r, c]
        code = intern(address(data) + at, length, arena, ends, slots, meta)
        if code < 0:
            state[0], state[1] = number, at
            return length
        rows[r, c] = code
        at += length
    return 0


@kernel
def _refill(arena: Bytes, ends: Int64, slots: Int64, first: int, count: int) -> None:
    mask = len(slots) - 1
    for code in range(first, count):
        slot = np.int64(_hash(address(arena) + ends[code - 1], ends[code] - ends[code - 1]) & np.uint64(mask))
        while slots[slot]:
            slot = (slot + 1) & mask
        slots[slot] = code


@kernel
def _truncate(arena: Bytes, ends: Int64, slots: Int64, meta: Int64, count: int) -> None:
    mask = len(slots) - 1
    for code in range(meta[COUNT] - 1, count - 1, -1):
        slot = np.int64(_hash(address(arena) + ends[code - 1], ends[code] - ends[code - 1]) & np.uint64(mask))
        while slots[slot] != code:
            slot = (slot + 1) & mask
        slots[slot] = 0
    meta[COUNT], meta[USED] = count, ends[count - 1]


_TURN = 1 << 18  # strings that are hashed before Python may switch threads
_ALL_VALID: Bytes = np.empty(0, np.uint8)


class StringPool:
    """The strings of one engine.

    Attributes:
        arena: uint8[capacity], the bytes of all strings, in order of their codes.
        ends: int64[capacity], where each string ends (and the next begins).
        slots: int64[2^k], the hash table: a code, or 0.
        meta: int64[2], number of strings and bytes used.
    """

    def __init__(self) -> None:
        self.arena: Bytes = np.zeros(1 << 16, np.uint8)
        self.ends: Int64 = np.zeros(1 << 12, np.int64)
        self.slots: Int64 = np.zeros(1 << 13, np.int64)
        self.meta: Int64 = np.array([2, 0], np.int64)
        self._state: Int64 = np.zeros(2, np.int64)
        for text in FIXED[2:]:
            self.code(text)

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return self.arena.nbytes + self.ends.nbytes + self.slots.nbytes

    @property
    def count(self) -> int:
        """Number of strings."""
        return int(self.meta[COUNT])

    def grow(self, more_bytes: int = 0) -> None:
        """Doubles whatever is nearly full. Kernels that answered -1 are called again after it."""
        count, used = self.meta
        if 2 * (used + more_bytes) > len(self.arena):
            arena = np.empty(max(2 * len(self.arena), 2 * int(used + more_bytes)), np.uint8)
            arena[:used] = self.arena[:used]
            self.arena = arena
        if 2 * count > len(self.ends):
            ends = np.zeros(2 * len(self.ends), np.int64)
            ends[:count] = self.ends[:count]
            self.ends = ends
        if 4 * count > len(self.slots):
            self.slots = np.zeros(2 * len(self.slots), np.int64)
            self._refill(int(count))

    def reserve(self, more: int) -> None:
        """Makes room for so many more strings at once: the hash table is then made once, not at each doubling."""
        count = self.count
        if count + more >= len(self.ends):
            ends = np.zeros(count + more + 1, np.int64)
            ends[:count] = self.ends[:count]
            self.ends = ends
        size = len(self.slots)
        while size <= 2 * (count + more):
            size *= 2
        if size > len(self.slots):
            self.slots = np.zeros(size, np.int64)
            self._refill(count)

    def truncate(self, count: int) -> None:
        """Forgets every string whose code is `count` or more."""
        if count < self.meta[COUNT]:
            _truncate(self.arena, self.ends, self.slots, self.meta, count)

    def replace(self, arena: Bytes, ends: Int64, count: int, used: int) -> None:
        """Takes over `count` strings of `used` bytes; those that were here are gone, and their codes mean others."""
        self.arena, self.ends = arena, ends
        self.meta[COUNT], self.meta[USED] = count, used
        size = 1 << 13
        while size < 3 * count:
            size *= 2
        self.slots = np.zeros(size, np.int64)
        self._refill(count)

    def begins_with(self, arena: Bytes, ends: Int64) -> bool:
        """Whether these strings, laid out as the pool's, begin with all that are here, so that no code changes."""
        count, used = int(self.meta[COUNT]), int(self.meta[USED])
        return bool(
            len(ends) >= count
            and np.array_equal(ends[:count], self.ends[:count])
            and np.array_equal(arena[:used], self.arena[:used])
        )

    def _refill(self, count: int) -> None:
        """Enters the first `count` strings into the hash table, which is empty; other threads have a turn meanwhile."""
        for first in range(2, count, _TURN):
            _refill(self.arena, self.ends, self.slots, first, min(first + _TURN, count))

    def code(self, text: str | bytes) -> int:
        """The code of one string."""
        return int(self.codes([text])[0])

    def codes(self, texts: Sequence[str | bytes | None]) -> Int64:
        """The codes of `texts`; that of None is NULL."""
        blobs = [b"" if t is None else text_bytes(t) if isinstance(t, str) else t for t in texts]
        offsets = np.array([0, *accumulate(map(len, blobs))], np.int64)
        valid = _ALL_VALID
        if None in texts:
            valid = np.fromiter((t is not None for t in texts), np.uint8, len(texts))
        return self._intern(np.frombuffer(b"".join(blobs), np.uint8), offsets, valid)

    def fill(self, rows: Matrix, columns: Int64, n_columns: int, data: bytes) -> None:
        """Puts codes in the place of lengths.

        Args:
            rows: int64[n, width] as of a table of `n_columns` columns; where it is not NULL, a text's length in bytes.
            columns: which columns are text.
            data: all texts, row by row.
        """
        texts, state = np.frombuffer(data, np.uint8), self._state
        state[:] = 0
        while True:
            length = _intern_rows(rows, columns, n_columns, texts, state, self.arena, self.ends, self.slots, self.meta)
            if not length:
                return
            self.grow(length)

    def _intern(self, data: Bytes, offsets: Int64, valid: Bytes) -> Int64:
        out = np.empty(len(offsets) - 1, np.int64)
        done = 0
        while True:
            done = _intern_many(data, offsets, valid, out, done, self.arena, self.ends, self.slots, self.meta)
            if done == len(out):
                return out
            self.grow(int(offsets[done + 1] - offsets[done]))

    def arrow_codes(self, array: pa.Array) -> Int64:
        """The codes of a pyarrow string, large_string or dictionary array; that of a null is NULL."""
        if pa.types.is_dictionary(array.type):
            inner = self.arrow_codes(array.dictionary)
            valid = array.is_valid().to_numpy(zero_copy_only=False)
            indices = array.indices.fill_null(0).to_numpy(zero_copy_only=False)
            return np.where(valid, inner[indices] if len(inner) else 0, NULL).astype(np.int64)
        if len(array) == 0:
            return np.empty(0, np.int64)
        _, offset_buffer, data_buffer = array.buffers()
        kind = np.int64 if pa.types.is_large_string(array.type) else np.int32
        offsets = np.frombuffer(offset_buffer, kind)[array.offset : array.offset + len(array) + 1].astype(np.int64)
        data = np.frombuffer(data_buffer, np.uint8) if data_buffer else np.empty(0, np.uint8)
        valid = np.empty(0, np.uint8)
        if array.null_count:
            valid = array.is_valid().to_numpy(zero_copy_only=False).astype(np.uint8)
        return self._intern(data, offsets, valid)

    def text(self, code: int) -> str:
        """The string of a code; bytes of a letter that was cut are what `text_bytes` makes of them again."""
        start = int(self.ends[code - 1]) if code else 0
        return self.arena[start : int(self.ends[code])].tobytes().decode("utf-8", "surrogateescape")
