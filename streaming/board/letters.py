"""Dead letters: how many by reason, and the newest of them."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from streaming.events.dead_letter import ERRORS, TRUNCATED, origin_headers
from streaming.events.record import Record, reason_of
from streaming.ops.log import place

__all__ = ["SHOWN_BYTES_MAX", "Letter", "Letters"]

SHOWN_BYTES_MAX = 2000
"""Of a record's key or value."""

SHOWN_CHARS_MAX = 1000
"""Of each of its headers: another program may write letters, with a whole stack in one."""


NO_REASON = "unknown"  # another program's letter


@dataclass(frozen=True)
class Letter:
    """A dead letter for people: where it lies, where its record came from, why, and how it begins.

    Attributes:
        at: when it was written, epoch ms.
        size: bytes of the value, as far as the letter has them.
        cut: the letter lacks a part of its record.
    """

    place: str
    origin: str
    at: int
    reason: str
    message: str
    key: str
    value: str
    size: int
    cut: bool


class Letters:
    """Counts and the newest. One thread takes, any may ask.

    Args:
        kept: the newest so many.
    """

    def __init__(self, kept: int = 500) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._newest: deque[Letter] = deque(maxlen=kept)

    def take(self, records: Sequence[Record]) -> None:
        """Takes records of the topic; what is no dead letter (a marker of `dlq replay`) is passed by."""
        letters = [letter for record in records if (letter := _letter(record)) is not None]
        with self._lock:
            self._counts.update(letter.reason for letter in letters)
            self._newest.extend(letters)

    def counts(self) -> dict[str, int]:
        """By reason, the commonest first."""
        with self._lock:
            return dict(self._counts.most_common())

    def newest(self, reason: str = "", limit: int = 100) -> list[Letter]:
        """The newest first; of one reason, or of any."""
        with self._lock:
            letters = list(self._newest)
        return [letter for letter in reversed(letters) if reason in ("", letter.reason)][:limit]


def _letter(record: Record) -> Letter | None:
    _, found = origin_headers(record)
    why = {name: text[:SHOWN_CHARS_MAX] for name, text in found.items()}
    if f"{ERRORS}topic" not in why:
        return None
    origin, number = why.get(f"{ERRORS}partition", "?"), why.get(f"{ERRORS}offset", "?")
    value = record.value() or b""
    return Letter(
        place(record.topic(), record.partition(), record.offset()),
        f"{why[f'{ERRORS}topic']}[{origin}]@{number}",
        record.timestamp()[1],
        reason_of(why.get(f"{ERRORS}exception.class.name", ""), why.get(f"{ERRORS}stage", "")) or NO_REASON,
        why.get(f"{ERRORS}exception.message", ""),
        _text(record.key()),
        _text(record.value()),
        len(value),
        any(name.startswith(TRUNCATED) for name in why),
    )


def _text(part: bytes | None) -> str:
    if part is None:
        return "null"
    return part[:SHOWN_BYTES_MAX].decode("utf-8", "backslashreplace") + ("…" if len(part) > SHOWN_BYTES_MAX else "")
