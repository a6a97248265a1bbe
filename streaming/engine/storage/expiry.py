"""Freeing: rows that no request can see any more leave their table, and strings that nothing holds leave the pool.

A row is free to go when its time to live is over in every index of its table, now and at every mark that it may be
rolled back to: an absolute time to live is over for good, but one in rows per key counts only the rows that were there
at the mark. What stays keeps its order, so that "inserted before" is still a comparison of row numbers.
"""

# mypy: disable-error-code="no-any-return, return-value"
from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from streaming.engine.native.kernel import Bytes, Flags, Int64, Matrix, kernel
from streaming.engine.native.memory import address, copy
from streaming.engine.storage.index_keys import refill
from streaming.engine.storage.strings import FIXED, StringPool
from streaming.engine.storage.table import NO_TTL, Index, Table
from streaming.engine.types import Type

__all__ = ["collect_strings", "expired", "expires", "remove"]

_CHUNK = 1 << 16  # rows moved at a time: the copy of a chunk is all the room that it takes


def expires(table: Table) -> bool:
    """Whether every index of the table lets its rows go."""
    return not table.keeps and bool(table.indexes) and all(i.ttl != NO_TTL for i in table.indexes.values())


@kernel
def _live(
    heads: Int64,
    n_keys: int,
    entries: Matrix,
    bounds: Int64,
    seen: Int64,
    latest: int,
    expiry: int,
    both: int,
    alive: Bytes,
) -> None:
    # A row belongs to the first bound (rows at a mark, at last rows now) above its number. It is there as long as less
    # than `latest` newer rows of that bound stand before it: later marks have all of these rows, and more.
    # `seen` is room for their counts.
    n_bounds = len(bounds)
    for key in range(n_keys):
        for b in range(n_bounds):
            seen[b] = 0
        entry = heads[key]
        while entry >= 0:
            own = 0
            while bounds[own] <= entry:
                own += 1
            many = latest > 0 and seen[own] >= latest
            old = entries[entry, 1] < expiry
            if not ((many and old) if both else (many or old)):
                alive[entry] = 1
            for b in range(own, n_bounds):
                seen[b] += 1
            entry = entries[entry, 0]


def expired(table: Table, now_ms: int, marks: Iterable[int]) -> npt.NDArray[np.bool_]:
    """bool[count], the rows that nobody can see: neither now nor after going back to when the table had `marks` rows.

    Args:
        now_ms: wall clock.
    """
    bounds = np.array(sorted({count for count in marks if 0 < count < table.count} | {table.count}), np.int64)
    alive = np.zeros(table.count, np.uint8)
    for index in table.indexes.values():
        ttl_ms, latest, both = index.ttl
        expiry = now_ms - ttl_ms if ttl_ms else 0
        if both and not (ttl_ms and latest):  # one of the two is never over
            alive[:] = 1
        elif latest:
            room = np.empty_like(bounds)
            _live(index.heads, int(index.key_count[0]), index.entries, bounds, room, latest, expiry, int(both), alive)
        else:
            alive |= table.rows[: table.count, index.ts] >= expiry
    return alive == 0


@kernel
def _close_gaps(entries: Matrix, heads: Int64, n_keys: int, gone: Flags) -> None:
    for key in range(n_keys):
        while heads[key] >= 0 and gone[heads[key]]:
            heads[key] = entries[heads[key], 0]
    for entry in range(len(gone)):
        if not gone[entry]:
            older = entries[entry, 0]
            while older >= 0 and gone[older]:
                older = entries[older, 0]
            entries[entry, 0] = older


@kernel
def _move_up(
    entries: Matrix, heads: Int64, gone: Flags, moved: Int64, keys: Int64, key_count: Int64, width: int
) -> None:
    for entry in range(len(gone)):
        if not gone[entry]:
            older = entries[entry, 0]
            entries[moved[entry], 0] = moved[older] if older >= 0 else -1
            entries[moved[entry], 1] = entries[entry, 1]
    count = 0
    for key in range(key_count[0]):
        if heads[key] >= 0:
            heads[count] = moved[heads[key]]
            for i in range(width):
                keys[count * width + i] = keys[key * width + i]
            count += 1
    for key in range(count, key_count[0]):
        heads[key] = -1
    key_count[0] = count


def remove(table: Table, gone: npt.NDArray[np.bool_]) -> None:
    """Takes the rows `gone`, bool[count], out of the table and its indexes, and gives their memory back."""
    moved = np.cumsum(~gone) - 1
    left = int(moved[-1]) + 1 if len(moved) else 0
    for index in table.indexes.values():
        _close_gaps(index.entries, index.heads, int(index.key_count[0]), gone)
        _move_up(index.entries, index.heads, gone, moved, index.keys, index.key_count, len(index.key) + 1)
        _fit(index, left)
    at = 0
    for first in range(0, table.count, _CHUNK):
        kept = table.rows[first : min(first + _CHUNK, table.count)][~gone[first : first + _CHUNK]]
        table.rows[at : at + len(kept)] = kept
        at += len(kept)
    table.rows.resize((_room(left), table.width), refcheck=False)
    table.freed += table.count - left
    table.count = left
    table.version += 1


def _room(used: int) -> int:
    return max(64, used + used // 4)


def _fit(index: Index, entries: int) -> None:
    """Shrinks an index to what it holds, and enters its keys anew: their numbers or words have changed."""
    index.entries.resize((_room(entries), 2), refcheck=False)
    index.linked = entries
    rehash(index)


def rehash(index: Index) -> None:
    """Enters the keys of an index anew, after their words have changed."""
    count, width = int(index.key_count[0]), len(index.key) + 1
    size = 32
    while size <= count:  # `Index._ids` stops at half of the slots
        size *= 2
    heads, keys = np.full(size, -1, np.int64), np.empty(size * width, np.int64)
    heads[:count], keys[: count * width] = index.heads[:count], index.keys[: count * width]
    index.heads, index.keys, index.slots = heads, keys, np.full(2 * size, -1, np.int64)
    refill(index.slots, index.keys, count, width)
    index.version += 1


@kernel
def _note(words: Matrix, columns: Int64, used: Bytes) -> None:
    for i in range(len(words)):
        for k in range(len(columns)):
            used[words[i, columns[k]]] = 1


@kernel
def _keep(arena: Bytes, ends: Int64, used: Bytes, codes: Int64, new_arena: Bytes, new_ends: Int64) -> int:
    """Copies the strings in use; `codes` becomes the new code of each. Returns how many there are."""
    count, at = 0, 0
    for code in range(len(used)):
        if not used[code]:
            continue
        first = ends[code - 1] if code else 0
        copy(address(new_arena) + at, address(arena) + first, ends[code] - first)
        at += ends[code] - first
        new_ends[count] = at
        codes[code] = count
        count += 1
    return count


@kernel
def _rename(words: Matrix, columns: Int64, codes: Int64) -> None:
    for i in range(len(words)):
        for k in range(len(columns)):
            words[i, columns[k]] = codes[words[i, columns[k]]]


def collect_strings(
    pool: StringPool, tables: Sequence[Table], constants: Sequence[tuple[Int64, npt.NDArray[np.bool_]]]
) -> None:
    """Drops every string that no row, no key and no constant holds; the others get new codes.

    Args:
        tables: all tables.
        constants: of each deployment its constants, int64[c], and which of them are strings.
    """
    used = np.zeros(pool.count, np.uint8)
    used[: len(FIXED)] = 1
    held: list[tuple[Int64, Int64]] = []  # words in rows, and the columns that are codes
    indexes = [index for table in tables for index in table.indexes.values()]
    for table in tables:
        texts = np.array([c for c, column in enumerate(table.columns) if column.type == Type.STRING], np.int64)
        held.append((table.rows[: table.count], texts))
    for index in indexes:
        count, width = int(index.key_count[0]), len(index.key) + 1
        held.append((index.keys[: count * width].reshape(-1, width), np.flatnonzero(index.texts)))
    for words, texts in held:
        _note(words, texts, used)
    for numbers, are_texts in constants:
        used[numbers[are_texts]] = 1
    codes = np.zeros(pool.count, np.int64)
    bytes_used = int(np.diff(pool.ends[: pool.count], prepend=0)[used != 0].sum())
    arena = np.empty(max(1 << 16, 2 * bytes_used), np.uint8)
    ends = np.zeros(max(1 << 12, 2 * int(used.sum())), np.int64)
    count = _keep(pool.arena, pool.ends, used, codes, arena, ends)
    for words, texts in held:
        _rename(words, texts, codes)
    for numbers, are_texts in constants:
        numbers[are_texts] = codes[numbers[are_texts]]
    for index in indexes:
        if index.texts.any():
            rehash(index)
    pool.replace(arena, ends, count, bytes_used)
