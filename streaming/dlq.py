"""`jd-intent-score dlq`: what is in the dead-letter topic, and why."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from streaming.config import Config
from streaming.deadletter import ERRORS, TIMESTAMP, TRUNCATED, told
from streaming.errors import ConfigError
from streaming.event import Record, reason_of
from streaming.log import place
from streaming.reader import CommittedReader, Waiting
from streaming.score import Headers

__all__ = ["Filter", "Letter", "find", "places", "read", "since"]

PATIENCE_S = 60.0  # for the broker, and for transactions that are open at the topic's end

Place = tuple[str, int, int]


@dataclass(frozen=True)
class Letter:
    """A dead letter.

    Attributes:
        place: in the dead-letter topic.
        origin: where the record was; none: its headers do not say.
        written_ms: when it became a dead letter; `timestamp_ms`: the record's own time.
        reason: as `jd_intent_dead_letters_total` calls it; `message`: in words.
        cut: what is missing of the record; "": nothing.
        headers: the record's own.
    """

    place: Place
    origin: Place | None
    written_ms: int
    timestamp_ms: int
    stage: str
    reason: str
    message: str
    cut: str
    key: bytes | None
    value: bytes | None
    headers: Headers

    def told(self, whole: bool = False) -> dict[str, Any]:
        """For people and programs; `whole`: with key, value and headers."""
        fields: dict[str, Any] = {
            "place": place(*self.place),
            "written": _iso(self.written_ms),
            "origin": place(*self.origin) if self.origin else None,
            "reason": self.reason,
            "message": self.message,
            "cut": self.cut,
        }
        if whole:
            fields |= {
                "stage": self.stage, "timestamp": _iso(self.timestamp_ms), "key": _text(self.key),
                "value": _text(self.value), "headers": [[name, _text(value)] for name, value in self.headers],
            }  # fmt: skip
        return fields


@dataclass(frozen=True)
class Filter:
    """Which dead letters; empty: all."""

    reasons: Collection[str] = ()
    topics: Collection[str] = ()
    since_ms: int = 0
    places: Collection[Place] = ()

    def takes(self, letter: Letter) -> bool:
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (not self.topics or (letter.origin is not None and letter.origin[0] in self.topics))
            and letter.written_ms >= self.since_ms
            and (not self.places or letter.place in self.places)
        )


def since(text: str, now: datetime) -> int:
    """`2h`, `30m`, `7d` ago, or a time in ISO 8601 (without a zone: UTC), as epoch milliseconds.

    Raises:
        ConfigError: it is neither.
    """
    if match := re.fullmatch(r"(\d{1,6})([smhd])", text):
        unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2]]
        return int((now - timedelta(**{unit: int(match[1])})).timestamp() * 1000)
    try:
        moment = datetime.fromisoformat(text.removesuffix("Z"))
    except ValueError:
        raise ConfigError(
            f"--since {text!r} is neither a time like 2026-01-31T12:00 nor an age like 30m, 2h, 7d"
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp() * 1000)


def find(config: Config, wanted: Filter, limit: int) -> tuple[list[Letter], int]:
    """The newest dead letters, oldest first; and how many there are in all.

    Raises:
        ConfigError: the topic does not exist.
        BrokerUnavailable: no answer for `PATIENCE_S`.
    """
    newest: deque[Letter] = deque(maxlen=limit)
    count = 0
    for letter in read(config):
        if wanted.takes(letter):
            count += 1
            newest.append(letter)
    return list(newest), count


def read(config: Config) -> Iterator[Letter]:
    """All dead letters in partition order, up to the topic's present end; transactions open there are waited for.

    Raises:
        ConfigError: the topic does not exist.
        BrokerUnavailable: no answer for `PATIENCE_S`.
    """
    kafka = config.kafka.model_copy(update={"give_up_after_s": PATIENCE_S})
    for records in CommittedReader(kafka, Waiting(threading.Event()), kafka.topics.dead_letters, PATIENCE_S).to_end():
        yield from map(_letter, records)


def _letter(record: Record) -> Letter:
    written_ms = record.timestamp()[1]
    own, why = told(record)
    try:
        origin = (why[f"{ERRORS}topic"], int(why[f"{ERRORS}partition"]), int(why[f"{ERRORS}offset"]))
    except (KeyError, ValueError):
        origin = None
    cut = ", ".join(
        f"{name.removeprefix(TRUNCATED)} {size}" for name, size in why.items() if name.startswith(TRUNCATED)
    )
    stage = why.get(f"{ERRORS}stage", "")
    return Letter(
        place=(record.topic(), record.partition(), record.offset()), origin=origin, written_ms=written_ms,
        timestamp_ms=int(why[TIMESTAMP]) if why.get(TIMESTAMP, "").isdigit() else written_ms,
        stage=stage, reason=reason_of(why.get(f"{ERRORS}exception.class.name", ""), stage),
        message=why.get(f"{ERRORS}exception.message", ""), cut=cut,
        key=record.key(), value=record.value(), headers=own,
    )  # fmt: skip


def _place(text: str) -> Place:
    """What `streaming.log.place` wrote.

    Raises:
        ConfigError: it did not write this.
    """
    match = re.fullmatch(r"(.+)\[(\d+)\]@(\d+)", text)
    if match is None:
        raise ConfigError(f"{text!r} is no place: write it as topic[partition]@offset")
    return match[1], int(match[2]), int(match[3])


def places(texts: Collection[str]) -> set[Place]:
    """Places in the dead-letter topic, as `list` shows them.

    Raises:
        ConfigError: one is no place.
    """
    return {_place(text) for text in texts}


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, timezone.utc).isoformat(timespec="milliseconds")


def _text(part: bytes | None) -> str | None:
    """UTF-8 as it is; other bytes as \\x.. escapes."""
    return None if part is None else part.decode("utf-8", "backslashreplace")
