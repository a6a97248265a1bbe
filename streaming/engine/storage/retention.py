"""Which rows and strings must stay, and when the others are freed: marks, pins, and looking for what may go."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streaming.engine.errors import error_at
from streaming.engine.storage.catalogue import Catalogue
from streaming.engine.storage.expiry import collect_strings, expired, expires, remove
from streaming.engine.storage.strings import StringPool
from streaming.engine.storage.table import FREE_FROM, Table

__all__ = ["Constants", "Mark", "Retention", "require_all_rows"]

Constants = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]
"""The constants of a program, int64[c], and which of them are strings, bool[c]."""


@dataclass(frozen=True, eq=False)
class Mark:
    """A moment in an engine's life.

    Attributes:
        counts: by a table's full name, how many rows it had then, of those that are there still.
    """

    counts: dict[str, int]


class Retention:
    """Frees rows and strings that nobody can see any more, and keeps those that somebody still may.

    Args:
        catalogue: the tables.
        pool: their strings.
        clock: the time by which rows live, in epoch milliseconds.
        is_read_online: whether a deployment reads a table; rows of no other one are ever freed.
        constants: those of all deployments, whose strings stay, and get new codes where codes change.

    Attributes:
        pinned: while above 0, no row moves and no string gets another code.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        pool: StringPool,
        clock: Callable[[], int],
        is_read_online: Callable[[Table], bool],
        constants: Callable[[], Sequence[Constants]],
    ) -> None:
        self._catalogue = catalogue
        self._pool = pool
        self._clock = clock
        self._is_read_online = is_read_online
        self._constants = constants
        self.pinned = 0
        self._marks: weakref.WeakSet[Mark] = weakref.WeakSet()
        self._words_gone = 0  # words of rows that left since strings were last collected
        self._strings = 0  # how many strings there were after that

    # -- marks and pins --------------------------------------------------------------------------------------------

    def mark(self) -> Mark:
        """This moment, for `rollback`. As long as the mark is held, every row stays that was alive then."""
        mark = Mark({table.full_name: table.count for table in self._catalogue.tables.values()})
        self._marks.add(mark)
        return mark

    def rollback(self, mark: Mark) -> None:
        """Forgets every row inserted since `mark`."""
        for table in self._catalogue.tables.values():
            count = mark.counts.get(table.full_name, 0)
            self._words_gone += max(0, table.count - count) * table.width
            table.truncate(count)

    def pin(self) -> None:
        """From now on, until `unpin`, nothing is freed."""
        self.pinned += 1

    def unpin(self) -> None:
        """Takes back one `pin`."""
        self.pinned -= 1

    def note_gone(self, words: int) -> None:
        """Counts words of rows that left their table: the strings that they held may go, too."""
        self._words_gone += words

    # -- freeing ---------------------------------------------------------------------------------------------------

    def free(self) -> int:
        """Frees whatever may go; returns the number of rows. Of a pinned engine that is nothing."""
        if self.pinned:
            return 0
        freed = sum(self._free_rows(table, 1) for table in self._catalogue.tables.values())
        self._collect_strings()
        return freed

    def make_room(self, grown: Iterable[Table]) -> None:
        """Frees if much may go: a quarter of the rows of a table that has grown, or half of the strings."""
        if self.pinned:
            return
        for table in grown:
            if table.count >= table.free_at:
                self._free_rows(table, table.count // 4)
        # many words have left, beside those that are there: each may have been the last one to hold its string
        many = self._pool.count > 2 * self._strings + FREE_FROM
        if many and self._words_gone > self._catalogue.words // 2:
            self._collect_strings()

    def delete(self, table: Table, gone: npt.NDArray[np.bool_]) -> None:
        """Takes rows out, bool[count], for good: a rollback does not bring them back.

        Raises:
            RuntimeError: the engine is pinned.
        """
        if self.pinned:
            raise RuntimeError("rows are deleted while a capture is open")
        self._take_out(table, gone)
        table.freed -= int(gone.sum())  # an index that is made later misses nothing

    def _take_out(self, table: Table, gone: npt.NDArray[np.bool_]) -> None:
        """Removes rows, and counts them out of every mark."""
        name, before = table.full_name, table.count
        for mark in self._marks:
            count = mark.counts.get(name, 0)
            if count:
                mark.counts[name] = count - int(gone[:count].sum())
        remove(table, gone)
        self._words_gone += (before - table.count) * table.width

    def _free_rows(self, table: Table, least: int) -> int:
        """Frees the rows of a table that are past their time to live, if they are so many; returns how many."""
        freed = 0
        if self._is_read_online(table) and table.count and expires(table):
            name, before = table.full_name, table.count
            gone = expired(table, self._clock(), [mark.counts.get(name, 0) for mark in self._marks])
            if least <= int(gone.sum()):
                self._take_out(table, gone)
                freed = before - table.count
        table.free_at = table.count + max(table.count // 2, FREE_FROM)
        return freed

    def _collect_strings(self) -> None:
        collect_strings(self._pool, list(self._catalogue.tables.values()), self._constants())
        self._words_gone, self._strings = 0, self._pool.count


def require_all_rows(table: Table, key: Sequence[int], ts: int, script: str, at: int) -> None:
    """Refuses a new or longer index over rows of which some have been freed.

    Args:
        key: numbers of the index's key columns.
        ts: number of its time column; -1: none.
        script, at: the statement that asks for it, for the message: the text, and the offset in it.

    Raises:
        UnsupportedSQL: rows are gone that the index would have.
    """
    if table.freed:
        names = ", ".join(table.columns[c].name for c in (*key, *([ts] if ts >= 0 else [])))
        raise error_at(
            script,
            at,
            f"{table.name}: {table.freed} rows whose time to live was over are gone, a new or longer "
            f"index ({names}) would miss them: make it before rows come",
        )
