"""What a record is, and the ways in which one can be no event (`streaming.app.decoding` decodes it)."""

from __future__ import annotations

import re
from typing import Protocol

from streaming.errors import BadEvent

__all__ = [
    "ROWS_VERSION",
    "TIME_MS_MAX",
    "EmptyValue",
    "InvalidField",
    "Malformed",
    "NullValue",
    "Record",
    "TimeOutOfRange",
    "TooLarge",
    "WrongKey",
    "reason",
    "reason_of",
]

ROWS_VERSION = 2
"""Raise it whenever the same records make other rows than before: snapshots of older rows are not used then."""

TIME_MS_MAX = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z: later times have no text."""


class Malformed(BadEvent):
    """Not JSON, not UTF-8, nested too deeply, or not an object."""


class NullValue(BadEvent):
    """A record without a value (a tombstone)."""


class EmptyValue(BadEvent):
    """A value of zero bytes."""


class TooLarge(BadEvent):
    """A value above `events.message_bytes_max`."""


class InvalidField(BadEvent):
    """A field is missing, of another type, or out of its range."""


class TimeOutOfRange(BadEvent):
    """A time further ahead of the record's own than `events.future_s_max`; of the present, where that has none."""


class WrongKey(BadEvent):
    """The record's key is not the id in its value: it may lie in another partition than the rest of its user."""


class Record(Protocol):
    """What the scorer needs of a consumed record; `confluent_kafka.Message` is one."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> list[tuple[str, bytes | None]] | None: ...
    def timestamp(self) -> tuple[int, int]: ...


def reason(error: BadEvent) -> str:
    """The kind of a refusal, for metrics: `wrong_key`, `malformed`, … or the stage of a refusal of no special kind."""
    return reason_of(type(error).__name__, error.stage)


def reason_of(kind: str, stage: str) -> str:
    """The same from the name of its class (with or without its module) and its stage."""
    kind = kind.rpartition(".")[2]
    return stage if kind == BadEvent.__name__ else re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()
