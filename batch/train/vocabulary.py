"""Raw ids to rows of the embedding table: exact for ids that training saw, one shared row per field for the rest.

A plain hash bucket would give a user that training never saw the embedding of a random other user. Here an id owns a
row only when it occurred at least `count_min` times in its field; rarer and unseen ids share their field's *cold*
row, which is therefore trained on the rare ones and answers for the new ones.

Exported beside the model (numpy only, no import from this project), so that a version carries the code that made it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["Vocabulary"]

Ids = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]

LOAD_FACTOR_MAX = 0.5  # of the open-addressing table: linear probing stays at ~1.5 probes for a hit
EMPTY = np.int32(-1)


class Vocabulary:
    """Open addressing with linear probing, all fields in one table, looked up by whole arrays.

    Rows 0 … fields-1 are the cold rows; the ids of field f own the rows `row_ranges[f][0] … row_ranges[f][1]-1`.

    Args:
        keys: uint64 [slots], what `_mix` made of (field, id); slots is a power of two.
        rows: int32 [slots], the row of the slot's key, -1 where the slot is free.
        row_ranges: int64 [fields, 2].
    """

    def __init__(self, keys: npt.NDArray[np.uint64], rows: Rows, row_ranges: npt.NDArray[np.int64]) -> None:
        self._keys = keys
        self._rows = rows
        self.row_ranges = row_ranges
        self.fields = len(row_ranges)
        self._shift = np.uint64(64 - len(keys).bit_length() + 1)
        self._mask = len(keys) - 1
        # A different odd-looking constant per field: the same id in two fields is two keys.
        self._salt = (np.arange(1, self.fields + 1, dtype=np.uint64) * np.uint64(0xD6E8FEB86659FD93))[None, :]
        self._cold = np.arange(self.fields, dtype=np.int32)[None, :]

    @property
    def size(self) -> int:
        """Rows that the embedding table needs."""
        return int(self.row_ranges[-1, 1])

    @classmethod
    def fit(cls, ids: Ids, count_min: int) -> Vocabulary:
        """Gives a row to each id of `ids` (int64 [n, fields]) that occurs `count_min` times or more in its field."""
        fields = ids.shape[1]
        kept: list[Ids] = []
        for field in range(fields):
            values, counts = np.unique(ids[:, field], return_counts=True)
            kept.append(values[counts >= count_min])
        ends = fields + np.cumsum([len(values) for values in kept])
        row_ranges = np.stack([np.concatenate([[fields], ends[:-1]]), ends], axis=1).astype(np.int64)

        total = int(ends[-1]) - fields
        slots = 1 << max(4, int(np.ceil(np.log2(max(1, total) / LOAD_FACTOR_MAX))))
        vocabulary = cls(np.zeros(slots, np.uint64), np.full(slots, EMPTY), row_ranges)
        field_of = np.repeat(np.arange(fields), [len(values) for values in kept])
        salt = vocabulary._salt[0, field_of]
        vocabulary._place(
            _mix(np.concatenate(kept).view(np.uint64), salt), np.arange(fields, int(ends[-1]), dtype=np.int32)
        )
        return vocabulary

    def _place(self, keys: npt.NDArray[np.uint64], rows: Rows) -> None:
        """Puts every key into the first slot of its probe sequence that is free; all keys take a step at once."""
        slot = (keys >> self._shift).astype(np.int64)
        while len(keys):
            free = self._rows[slot] == EMPTY
            candidates = np.flatnonzero(free)
            _, first = np.unique(slot[candidates], return_index=True)
            placed = candidates[first]
            self._keys[slot[placed]] = keys[placed]
            self._rows[slot[placed]] = rows[placed]
            left = np.ones(len(keys), bool)
            left[placed] = False
            keys, rows, slot = keys[left], rows[left], (slot[left] + 1) & self._mask

    def lookup(self, ids: Ids) -> Rows:
        """Rows (int32 [n, fields]) of raw ids (int64 [n, fields]); every int64 has one."""
        key = _mix(ids.view(np.uint64), self._salt)
        slot = (key >> self._shift).astype(np.int64)
        rows = self._rows[slot]
        found = self._keys[slot] == key
        result: Rows = np.where(found & (rows != EMPTY), rows, self._cold)
        pending = np.flatnonzero(~found & (rows != EMPTY))  # a slot of another key: walk on until a hit or a free slot
        key, slot, flat = key.reshape(-1), slot.reshape(-1), result.reshape(-1)
        while len(pending):
            slot[pending] = (slot[pending] + 1) & self._mask
            rows = self._rows[slot[pending]]
            hit = (self._keys[slot[pending]] == key[pending]) & (rows != EMPTY)
            flat[pending[hit]] = rows[hit]
            pending = pending[~hit & (rows != EMPTY)]
        return result

    def save(self, path: Path) -> None:
        """Writes one `.npz`; equal vocabularies give equal bytes."""
        np.savez(path, keys=self._keys, rows=self._rows, row_ranges=self.row_ranges)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        with np.load(path) as arrays:
            return cls(arrays["keys"], arrays["rows"], arrays["row_ranges"])


def _mix(ids: npt.NDArray[np.uint64], salt: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """A bijection of 64 bits per field (Fibonacci hashing after a fold), whose high bits choose the slot."""
    mixed = ids ^ salt
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    return mixed
