"""Which events may be asked side by side: the cutter of micro-batches for stores that answer many requests per call.

An event reads rows and writes rows (`Footprint`). Answered in one call, events do not see each other's rows; so two
that touch the same rows go into different micro-batches, in their order: the later one's request is asked when the
earlier one's rows are in, and the earlier one's before the later one's rows are in. Two that write the same rows may
share a micro-batch, in which rows keep their order, but the later one does not overtake: of rows of one time, which is
the last is told by the order in which they came. Then every event is answered as if it had come alone.

What waits is known once, when an event comes (`Backlog.add`): a turn costs what is in it, not what is open.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Backlog", "Footprint"]

E = TypeVar("E")


@dataclass(frozen=True)
class Footprint:
    """What an event touches; rows, and lanes, by names that are equal for what is the same.

    Attributes:
        reads, writes: rows.
        lanes: in which it overtakes nobody.
    """

    reads: tuple[Hashable, ...] = ()
    writes: tuple[Hashable, ...] = ()
    lanes: tuple[Hashable, ...] = ()


@dataclass(eq=False)
class _Waiting(Generic[E]):
    """An event that is not done.

    Attributes:
        number: counts events as they come.
        waits_for: how many events have to be done before it is in a micro-batch, one counted for each row that both
            touch.
        followers: the events that wait for it.
        not_before: events that have to be done, or in the same micro-batch.
    """

    number: int
    event: E
    footprint: Footprint
    waits_for: int = 0
    followers: list[_Waiting[E]] = field(default_factory=list)
    not_before: list[_Waiting[E]] = field(default_factory=list)
    is_done: bool = False


@dataclass(eq=False)
class _Rows(Generic[E]):
    """Of events that are not done the last one that writes these rows, and those that read them since."""

    writer: _Waiting[E] | None = None
    readers: dict[int, _Waiting[E]] = field(default_factory=dict)


class Backlog(Generic[E]):
    """Events that wait for each other, in the order in which they came. An event is one object, and here once."""

    def __init__(self) -> None:
        self._count = 0
        self._waiting: dict[int, _Waiting[E]] = {}  # by the event's `id`
        self._free: dict[int, _Waiting[E]] = {}  # by number, those that wait for nobody
        self._rows: dict[Hashable, _Rows[E]] = {}
        self._lanes: dict[Hashable, _Waiting[E]] = {}  # the last of each

    def __len__(self) -> int:
        return len(self._waiting)

    def clear(self) -> None:
        """Forgets all."""
        for known in (self._waiting, self._free, self._rows, self._lanes):
            known.clear()

    def add(self, event: E, footprint: Footprint) -> None:
        """An event comes."""
        self._count += 1
        mine = _Waiting(self._count, event, footprint)
        self._waiting[id(event)] = mine
        for name in footprint.reads:
            rows = self._rows.get(name)
            if rows is not None and rows.writer is not None:
                rows.writer.followers.append(mine)
                mine.waits_for += 1
        for name in footprint.writes:
            rows = self._rows.get(name)
            if rows is None:
                self._rows[name] = _Rows(mine)
                continue
            if rows.writer is not None and rows.writer is not mine:
                mine.not_before.append(rows.writer)
            for reader in rows.readers.values():
                reader.followers.append(mine)
                mine.waits_for += 1
            rows.writer, rows.readers = mine, {}
        for name in footprint.reads:
            self._rows.setdefault(name, _Rows()).readers[mine.number] = mine
        for name in footprint.lanes:
            last = self._lanes.get(name, mine)
            if last is not mine:
                mine.not_before.append(last)
            self._lanes[name] = mine
        if not mine.waits_for:
            self._free[mine.number] = mine

    def ready(self, count_max: int) -> list[E]:
        """The next micro-batch: all events that can be asked now, in their order, at most `count_max`."""
        chosen: list[E] = []
        numbers: set[int] = set()
        for number in sorted(self._free):
            mine = self._free[number]
            if all(other.is_done or other.number in numbers for other in mine.not_before):
                chosen.append(mine.event)
                numbers.add(number)
                if len(chosen) == count_max:
                    break
        return chosen

    def done(self, events: Iterable[E]) -> None:
        """Their rows are in; they wait no more, and nobody waits for them. Events that are not here are left out."""
        for event in events:
            mine = self._waiting.pop(id(event), None)
            if mine is None:
                continue
            mine.is_done = True
            self._free.pop(mine.number, None)
            for follower in mine.followers:
                follower.waits_for -= 1
                if not follower.waits_for:
                    self._free[follower.number] = follower
            mine.followers.clear()
            mine.not_before.clear()  # else each kept all before it
            self._forget(mine)

    def _forget(self, mine: _Waiting[E]) -> None:
        for name in (*mine.footprint.reads, *mine.footprint.writes):
            rows = self._rows.get(name)
            if rows is None:
                continue
            rows.readers.pop(mine.number, None)
            if rows.writer is mine:
                rows.writer = None
            if rows.writer is None and not rows.readers:
                del self._rows[name]
        for name in mine.footprint.lanes:
            if self._lanes.get(name) is mine:
                del self._lanes[name]
