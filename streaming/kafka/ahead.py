"""Records behind a committed offset that are done already, as they are noted beside it.

Over a cluster an event waits only for earlier ones whose rows it reads, not for all of its partition: the offset that a
transaction commits is that of the first record that is not done, and which ones behind it are done is noted with it.
Both become valid with the scores, or not at all.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["Ahead"]

SPAN_MAX = 1 << 20
"""No note says more: 20,000 times what the loop lets lie open."""


@dataclass(frozen=True)
class Ahead:
    """What is done of a partition behind an offset.

    Attributes:
        offset: the committed one: everything before it is done.
        done: offsets behind it that are done; it is none of them.
    """

    offset: int
    done: frozenset[int] = field(default_factory=frozenset)

    def to_text(self) -> str:
        """For a note; "": nothing is done behind the offset. A bit for each offset, compressed, in base64."""
        if not self.done:
            return ""
        numbers = np.array(sorted(self.done)) - self.offset
        bits = np.zeros(int(numbers[-1]) + 1, np.uint8)
        bits[numbers] = 1
        return f"{self.offset}:{base64.b64encode(zlib.compress(np.packbits(bits).tobytes(), 9)).decode()}"

    @classmethod
    def from_text(cls, text: str) -> Ahead | None:
        """The reverse; None: nothing is noted, or somebody else's note."""
        offset, _, packed = text.partition(":")
        try:
            unpacked = zlib.decompressobj().decompress(base64.b64decode(packed, validate=True), SPAN_MAX // 8)
            made = cls(int(offset), frozenset((np.flatnonzero(_bits(unpacked)) + int(offset)).tolist()))
        except (ValueError, zlib.error):
            return None
        return made if made.done and made.offset >= 0 else None

    def has(self, offset: int) -> bool:
        """Is the record there done?"""
        return offset < self.offset or offset in self.done

    def moved(self, done: Collection[int], undone: int | None, end: int) -> Ahead:
        """After more became done.

        Args:
            done: their offsets.
            undone: the first that was read and is not done; None: there is none.
            end: behind the last that was read.
        """
        everything = self.done | frozenset(done)
        if undone is None:
            offset = max(end, self.offset)
            while offset in everything:  # it was read before, by whoever had the partition then
                offset += 1
        else:
            # Not up to `undone`: between it and what is done may lie many offsets without a record.
            offset = max((number + 1 for number in everything if number < undone), default=self.offset)
        return Ahead(offset, frozenset(number for number in everything if number > offset))


def _bits(packed: bytes) -> npt.NDArray[np.uint8]:
    return np.unpackbits(np.frombuffer(packed, np.uint8))
