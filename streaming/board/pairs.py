"""The newest scores, and the best pairs of user and item, in bounded memory and at the pace of a burst.

Scores lie in a ring of columns; each pair has a slot in another set of columns, and a link to its last score in the
ring, each score one to the score before it of its pair. A pair keeps its slot as long as one of its scores is in the
ring, and the best pairs longer. So what a batch costs beside its decoding is one dictionary look-up per score and a few
array operations, and a ranking under any filter is a few array operations more.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streaming.board.decoding import Raw, ScoreDecoder
from streaming.board.fields import ScoreFields
from streaming.board.labels import ScoreKeys
from streaming.board.rows import Key, Match, PairRow, Place, Requests, ScoreRow

__all__ = ["NO_TIME", "TREND", "VALUES_MAX", "Pairs"]

TREND = 12
"""How many of a pair's last scores are its trend."""

VALUES_MAX = 200
"""Of a declared field: one that has more values is no filter."""

NO_TIME = -(2**62)
"""Of a score that does not say its event's time."""

CHUNK = 1000  # scores that are taken in one hold of the lock: some milliseconds
SECONDS = 120  # of the throughput that is remembered
MATCHES_MAX = 20
SCORES_MAX = 200  # of one pair, that are shown

Int64 = npt.NDArray[np.int64]


class Pairs:
    """The state. Any thread may call.

    Args:
        fields: of a score.
        scores_max: the newest so many are kept.
        best_max: the best so many pairs of which none is among these are kept, too.
        clock: monotonic seconds, for the throughput.
        keys: by which labels are found; None: none are.
    """

    def __init__(
        self,
        fields: ScoreFields,
        scores_max: int = 100_000,
        best_max: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
        keys: ScoreKeys | None = None,
    ) -> None:
        self.fields, self.scores_max, self.best_max = fields, scores_max, best_max
        self._clock = clock
        self._lock = threading.Lock()
        self._keys_of = keys
        self._of_pair = keys is not None and set(keys.fields) <= set(fields.pair)  # all its scores have one label key
        self._decode = ScoreDecoder(fields, () if keys is None else keys.fields)
        ring, slots = scores_max, scores_max + best_max + max(1000, scores_max // 4)
        self._slot: npt.NDArray[np.int32] = np.zeros(ring, np.int32)
        self._probability: npt.NDArray[np.float32] = np.zeros(ring, np.float32)
        self._at: Int64 = np.zeros(ring, np.int64)
        self._time: Int64 = np.zeros(ring, np.int64)
        self._version: npt.NDArray[np.int32] = np.zeros(ring, np.int32)
        self._partition: npt.NDArray[np.int32] = np.zeros(ring, np.int32)
        self._offset: Int64 = np.zeros(ring, np.int64)
        self._label_code: Int64 = np.zeros(ring if keys is not None else 0, np.int64)  # of the label's key
        self._before: Int64 = np.full(ring, -1, np.int64)  # the number of the pair's score before
        # The same of each pair's last score, which may have left the ring.
        self._last: Int64 = np.full(slots, -1, np.int64)  # its number; -1: the slot is free
        self._last_probability: npt.NDArray[np.float32] = np.zeros(slots, np.float32)
        self._last_at: Int64 = np.zeros(slots, np.int64)
        self._last_time: Int64 = np.zeros(slots, np.int64)
        self._last_version: npt.NDArray[np.int32] = np.zeros(slots, np.int32)
        self._last_partition: npt.NDArray[np.int32] = np.zeros(slots, np.int32)
        self._last_offset: Int64 = np.zeros(slots, np.int64)
        self._count: Int64 = np.zeros(slots, np.int64)
        self._pair_code: Int64 = np.zeros(slots if self._of_pair else 0, np.int64)  # of the label's key
        self._keys: list[Key | None] = [None] * slots
        self._free = list(range(slots - 1, -1, -1))
        self._index: dict[Key, int] = {}
        self._versions: list[str] = []
        self._version_codes: dict[str, int] = {}
        self._filters: dict[str, _Filter] = {}
        self._seconds: deque[tuple[int, int]] = deque(maxlen=SECONDS)
        self.received = 0
        """Scores that were taken."""
        self.unreadable = 0
        """Records of the topic that are no scores of this application."""

    # ── taking scores ────────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, records: Sequence[Raw], *, live: bool = True) -> None:
        """Takes scores, each partition's in its order.

        Args:
            live: they come now; else they are of the look-back, and no throughput.
        """
        size = min(CHUNK, self.scores_max)
        for start in range(0, len(records), size):
            part = records[start : start + size]
            scores, kept = self._decode(part)
            codes = self._codes(self._keys_of, scores) if self._keys_of is not None and kept else None
            with self._lock:
                self.unreadable += len(part) - len(kept)
                if kept:
                    self._take(scores, kept, codes)
                    if live:
                        self._tick(len(kept))

    def _codes(self, keys: ScoreKeys, scores: Sequence[Any]) -> Int64:
        """The numbers of the scores' label keys; of pairs that are kept as they are known, where a pair has one."""
        key_of = self._decode.label_key
        if not self._of_pair:
            return keys([*map(key_of, scores)])
        with self._lock:
            slots = np.array([self._index.get(key, -1) for key in map(self._decode.key, scores)], np.int32)
            codes = self._pair_code[slots]
        new = np.flatnonzero(slots < 0)
        if len(new):
            codes[new] = keys([key_of(scores[at]) for at in new.tolist()])
        return codes

    def _take(self, scores: Sequence[Any], records: Sequence[Raw], codes: Int64 | None) -> None:
        n, first, ring = len(scores), self.received, self.scores_max
        slots: npt.NDArray[np.int32] = np.empty(n, np.int32)
        index, key_of = self._index, self._decode.key
        for number, score in enumerate(scores):
            key = key_of(score)
            slot = index.get(key)
            slots[number] = self._new(key, slots[:number], n) if slot is None else slot
        probabilities: npt.NDArray[np.float32] = np.array([score.probability for score in scores], np.float32)
        at: Int64 = np.array([record.at for record in records], np.int64)
        times: Int64 = np.array([_ms(score.time) for score in scores], np.int64)
        versions: npt.NDArray[np.int32] = np.array([self._code(score.version) for score in scores], np.int32)
        partitions: npt.NDArray[np.int32] = np.array([record.partition for record in records], np.int32)
        offsets: Int64 = np.array([record.offset for record in records], np.int64)
        numbers = np.arange(first, first + n)
        places = numbers % ring
        # Of each score the one before it of its pair: within the batch, or what was the pair's last.
        order = np.argsort(slots, kind="stable")
        of_slot, of_number = slots[order], numbers[order]
        before = self._last[of_slot]
        same = of_slot[1:] == of_slot[:-1]
        before[1:][same] = of_number[:-1][same]
        self._before[places[order]] = before
        self._slot[places], self._probability[places], self._at[places] = slots, probabilities, at
        self._time[places], self._version[places] = times, versions
        if codes is not None:
            self._label_code[places] = codes
            if self._of_pair:
                self._pair_code[slots] = codes
        self._partition[places], self._offset[places] = partitions, offsets
        lasts = order[np.append(~same, True)] if n else order  # of each pair its last score of the batch
        of = slots[lasts]
        self._last[of], self._last_probability[of], self._last_at[of] = numbers[lasts], probabilities[lasts], at[lasts]
        self._last_time[of], self._last_version[of] = times[lasts], versions[lasts]
        self._last_partition[of], self._last_offset[of] = partitions[lasts], offsets[lasts]
        np.add.at(self._count, slots, 1)
        self.received += n

    def _new(self, key: Key, taken: npt.NDArray[np.int32], coming: int) -> int:
        """A slot for a pair that has none.

        Args:
            taken: the slots of the batch so far.
            coming: how many scores the batch has.
        """
        if not self._free:
            self._make_room(taken, coming)
        slot = self._free.pop()
        self._index[key], self._keys[slot] = slot, key
        self._last[slot], self._count[slot] = -1, 0
        for declared in self._filters.values():
            declared.codes[slot] = declared.code(declared.value_of(key))
        return slot

    def _make_room(self, taken: npt.NDArray[np.int32], coming: int) -> None:
        """Gives up the pairs that will have no score in the ring and are not the best.

        There are more slots than pairs that may stay: those of the ring, and `best_max`.
        """
        old = (self._last >= 0) & (self._last < self.received + coming - self.scores_max)
        old[taken] = False
        candidates = np.flatnonzero(old)
        if len(candidates) > self.best_max:
            best = np.argpartition(-self._last_probability[candidates], self.best_max)[: self.best_max]
            candidates = np.delete(candidates, best)
        for slot in candidates.tolist():
            key = self._keys[slot]
            if key is not None:
                del self._index[key]
            self._keys[slot] = None
            self._last[slot] = -1
            self._free.append(slot)

    def _code(self, version: Any) -> int:
        text = "" if version is None else str(version)
        code = self._version_codes.get(text)
        if code is None:
            if len(self._versions) >= 10_000:  # no model has so many: somebody else's records
                return 0
            code = self._version_codes[text] = len(self._versions)
            self._versions.append(text)
        return code

    def _tick(self, count: int) -> None:
        second = int(self._clock())
        if self._seconds and self._seconds[-1][0] == second:
            count += self._seconds.pop()[1]
        self._seconds.append((second, count))

    # ── filters ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def declare(self, name: str, value_of: Callable[[Key], str | None]) -> None:
        """Makes a filter of what is declared of a pair, or computes it anew for all pairs.

        Args:
            value_of: its value for a pair; None: there is none.
        """
        with self._lock:
            declared = self._filters[name] = _Filter(value_of, np.zeros(len(self._keys), np.int32))
            for key, slot in self._index.items():
                declared.codes[slot] = declared.code(value_of(key))

    def choices(self) -> dict[str, list[tuple[str, int]]]:
        """By filter, its values with how many pairs have each, the commonest first; without filters of too many."""
        with self._lock:
            used = self._last >= 0
            found = {}
            for name, declared in self._filters.items():
                if declared.overflown:
                    continue
                counts = np.bincount(declared.codes[used], minlength=len(declared.values)).tolist()
                pairs = zip(declared.values, counts, strict=True)
                found[name] = sorted([(v, n) for v, n in pairs if v is not None and n], key=lambda vn: (-vn[1], vn[0]))
        return {name: values for name, values in found.items() if len(values) > 1}

    # ── what is asked ────────────────────────────────────────────────────────────────────────────────────────────────

    def ranking(
        self, limit: int, *, not_before: int = 0, filters: Mapping[str, str] | None = None
    ) -> tuple[list[PairRow], int]:
        """The pairs of the highest last score, and how many there are in all.

        Args:
            limit: rows at most.
            not_before: only pairs whose last score was published then or later, epoch ms.
            filters: declared name → the value that it must have; a name that is not declared has none.
        """
        with self._lock:
            wanted = (self._last >= 0) & (self._last_at >= not_before)
            for name, value in (filters or {}).items():
                declared = self._filters.get(name)
                code = None if declared is None else declared.known.get(value)
                wanted &= False if declared is None or code is None else declared.codes == code
            slots = np.flatnonzero(wanted)
            total = len(slots)
            if total > limit:
                slots = slots[np.argpartition(-self._last_probability[slots], limit)[:limit]]
            order = np.lexsort((-self._last[slots], -self._last_probability[slots]))
            return [self._row(slot) for slot in slots[order].tolist()], total

    def pair(self, key: Key) -> tuple[PairRow, list[ScoreRow], Place] | None:
        """A pair, its scores in the ring (newest first), and where its last score lies; None: it is not kept."""
        with self._lock:
            slot = self._index.get(key)
            if slot is None:
                return None
            place = Place(
                int(self._last_partition[slot]), int(self._last_offset[slot]), float(self._last_probability[slot])
            )
            return self._row(slot), [self._score(number) for number in self._chain(slot, SCORES_MAX)], place

    def history(self, field: str, value: Any, limit: int = 200) -> tuple[list[ScoreRow], list[PairRow]]:
        """The newest scores of a user or an item, newest first, and its pairs, the best first; `limit` of each."""
        if field not in self.fields.pair:
            return [], []
        at = self.fields.pair.index(field)
        of = [slot for key, slot in self._pairs() if key[at] == value]
        with self._lock:
            # Looked for without the lock: a slot may have become another pair's since.
            slots = np.array(
                [slot for slot in of if (key := self._keys[slot]) is not None and key[at] == value], np.int64
            )
            if not len(slots):
                return [], []
            first = max(0, self.received - self.scores_max)
            numbers = np.arange(first, self.received)
            chosen = numbers[np.isin(self._slot[numbers % self.scores_max], slots)][::-1][:limit]
            best = slots[np.argsort(-self._last_probability[slots], kind="stable")][:limit]
            return [self._score(number) for number in chosen.tolist()], [self._row(slot) for slot in best.tolist()]

    def find(self, text: str) -> list[Match]:
        """Users and items whose name is, begins with or holds a text; those that are it first."""
        wanted = text.strip().casefold()
        if not wanted:
            return []
        pairs = self._pairs()
        named: list[tuple[bool, bool, int, str, str, Any]] = []
        for at, field in enumerate(self.fields.pair):
            for value in {key[at] for key, _ in pairs}:
                name = "null" if value is None else str(value).casefold()
                if wanted in name:
                    named.append((name != wanted, not name.startswith(wanted), len(name), name, field, value))
        named.sort(key=lambda match: match[:5])
        chosen = {(field, value): (0, 0.0) for *_, field, value in named[:MATCHES_MAX]}
        for at, field in enumerate(self.fields.pair):
            values = {value for of, value in chosen if of == field}
            for slot in [slot for key, slot in pairs if key[at] in values] if values else []:
                key = self._keys[slot]
                if key is not None and (field, key[at]) in chosen:
                    count, best = chosen[field, key[at]]
                    chosen[field, key[at]] = count + 1, max(best, float(self._last_probability[slot]))
        return [Match(field, value, count, best) for (field, value), (count, best) in chosen.items()]

    def _pairs(self) -> list[tuple[Key, int]]:
        with self._lock:
            return list(self._index.items())

    def any(self, draw: float) -> Place | None:
        """Where one of the scores in the ring lies; None: there is none yet.

        Args:
            draw: which one, 0 ≤ draw < 1; 0 is the oldest.
        """
        with self._lock:
            kept = min(self.received, self.scores_max)
            if not kept:
                return None
            at = (self.received - kept + int(draw * kept)) % self.scores_max
            return Place(int(self._partition[at]), int(self._offset[at]), float(self._probability[at]))

    def requests(self) -> Requests:
        """The scores of the ring by what their labels are found by; of a board with keys."""
        with self._lock:
            received = self.received
            columns = (self._label_code.copy(), self._time.copy(), self._probability.copy())
        count = min(received, self.scores_max)
        at = np.arange(received - count, received) % self.scores_max
        codes, times, probabilities = columns
        return Requests(received - count, codes[at], times[at], probabilities[at])

    def per_second(self, count: int) -> list[int]:
        """Scores taken in each of the last whole seconds, oldest first."""
        now = int(self._clock())
        with self._lock:
            counts = dict(self._seconds)
        return [counts.get(second, 0) for second in range(now - count, now)]

    def pairs_kept(self) -> int:
        """How many pairs there are."""
        return len(self._index)

    def version(self) -> str:
        """The model version of the last score; "": none says one."""
        with self._lock:
            return self._versions[self._version[(self.received - 1) % self.scores_max]] if self.received else ""

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _chain(self, slot: int, limit: int) -> list[int]:
        """The numbers of a pair's scores in the ring, newest first."""
        oldest = self.received - self.scores_max
        found: list[int] = []
        number = int(self._last[slot])
        while number >= max(0, oldest) and len(found) < limit:
            found.append(number)
            number = int(self._before[number % self.scores_max])
        return found

    def _row(self, slot: int) -> PairRow:
        key = self._keys[slot]
        if key is None:
            raise RuntimeError(f"slot {slot} is free")
        trend = [float(self._probability[number % self.scores_max]) for number in reversed(self._chain(slot, TREND))]
        return PairRow(
            key,
            float(self._last_probability[slot]),
            int(self._last_at[slot]),
            _known(int(self._last_time[slot])),
            self._versions[self._last_version[slot]],
            tuple(trend),
            int(self._count[slot]),
            int(self._last[slot]),
        )

    def _score(self, number: int) -> ScoreRow:
        at = number % self.scores_max
        key = self._keys[self._slot[at]]
        if key is None:
            raise RuntimeError(f"score {number} is of no pair")
        return ScoreRow(
            key,
            float(self._probability[at]),
            int(self._at[at]),
            _known(int(self._time[at])),
            self._versions[self._version[at]],
            number,
        )


class _Filter:
    """Codes of one declared field: of each slot the place of its value in `values`; 0: none."""

    def __init__(self, value_of: Callable[[Key], str | None], codes: npt.NDArray[np.int32]) -> None:
        self.value_of, self.codes = value_of, codes
        self.values: list[str | None] = [None]
        self.known: dict[str, int] = {}
        self.overflown = False

    def code(self, value: str | None) -> int:
        if value is None:
            return 0
        code = self.known.get(value)
        if code is None:
            if len(self.values) > VALUES_MAX:
                self.overflown = True
                return 0
            code = self.known[value] = len(self.values)
            self.values.append(value)
        return code


def _ms(time_ms: Any) -> int:
    return time_ms if type(time_ms) is int and abs(time_ms) < 2**62 else NO_TIME


def _known(time_ms: int) -> int | None:
    return None if time_ms == NO_TIME else time_ms
