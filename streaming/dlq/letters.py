"""`jd-intent-score dlq`: what is in the dead-letter topic, and why.

Beside dead letters it holds the markers of `streaming.dlq.replay`: which of them were sent back to their topics.
"""

from __future__ import annotations

import dataclasses
import re
import threading
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
from confluent_kafka import KafkaException

from streaming.app.topics import TopicNames
from streaming.config import Config
from streaming.errors import ConfigError
from streaming.events.dead_letter import ERRORS, FINGERPRINT, TIMESTAMP, TRUNCATED, VALUE_SHA256, origin_headers
from streaming.events.record import Record, reason_of
from streaming.events.scores import Headers
from streaming.kafka.connection import Connection
from streaming.kafka.login import Login
from streaming.kafka.reader import CommittedReader
from streaming.kafka.rights import check_topics, named, of_letters
from streaming.ops.log import place

__all__ = [
    "MARKER",
    "PATIENCE_S",
    "Letter",
    "LetterFilter",
    "Name",
    "Replayed",
    "find_letters",
    "parse_offsets",
    "parse_places",
    "parse_since",
    "read_letters",
]

PATIENCE_S = 60.0  # for the broker, and for transactions that are open at the topic's end

Place = tuple[str, int, int]
Name = tuple[str, int, int, str]

MARKER = "jd_intent.replayed"
"""Header of a marker: how many names its value holds, as JSON: [[topic, partition, offset, fingerprint], …]."""


@dataclass(frozen=True)
class Letter:
    """A dead letter.

    Attributes:
        place: in the dead-letter topic.
        origin: where the record was; none: its headers do not say.
        written_ms: when it became a dead letter; `timestamp_ms`: the record's own time.
        reason: as `jd_intent_dead_letters_total` calls it; `message`: in words.
        cut: what is missing of the record; "": nothing.
        value_sha256: of the whole value, where it is cut and the topic took that; else "".
        headers: the record's own.
        replayed_ms: when the record was sent back to its topic; 0: it was not.
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
    fingerprint: str
    value_sha256: str = ""
    replayed_ms: int = 0

    @property
    def name(self) -> Name | None:
        """What it is called in markers: its origin, and which record was there; the same in all letters of a record."""
        return (*self.origin, self.fingerprint) if self.origin else None

    def told(self, whole: bool = False) -> dict[str, Any]:
        """For people and programs; `whole`: with key, value and headers."""
        fields: dict[str, Any] = {
            "place": place(*self.place),
            "written": _iso(self.written_ms),
            "origin": place(*self.origin) if self.origin else None,
            "reason": self.reason,
            "message": self.message,
            "cut": self.cut,
            "replayed": _iso(self.replayed_ms) if self.replayed_ms else None,
        }
        if whole:
            fields |= {
                "stage": self.stage,
                "timestamp": _iso(self.timestamp_ms),
                "key": _text(self.key),
                "value": _text(self.value),
                "value_sha256": self.value_sha256 or None,
                "headers": [[name, _text(value)] for name, value in self.headers],
            }
        return fields


@dataclass(frozen=True)
class Replayed:
    """A marker: the records of these letters were sent back to their topics.

    Attributes:
        written_ms: when.
        names: of the letters.
    """

    written_ms: int
    names: Collection[Name]


@dataclass(frozen=True)
class LetterFilter:
    """Which dead letters; empty: all.

    Attributes:
        reasons: see `Letter.reason`.
        topics, partitions, offsets (first and last): of the origin.
        since_ms: written then or later, epoch ms.
        places: in the dead-letter topic.
    """

    reasons: Collection[str] = ()
    topics: Collection[str] = ()
    partitions: Collection[int] = ()
    offsets: tuple[int, int] | None = None
    since_ms: int = 0
    places: Collection[Place] = ()

    @property
    def everything(self) -> bool:
        """Whether nothing is chosen, which takes all."""
        chosen = (self.reasons, self.topics, self.partitions, self.offsets, self.since_ms, self.places)
        return not any(chosen)

    def takes(self, letter: Letter) -> bool:
        topic, partition, offset = letter.origin or ("", -1, -1)
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (not self.topics or topic in self.topics)
            and (not self.partitions or partition in self.partitions)
            and (self.offsets is None or self.offsets[0] <= offset <= self.offsets[1])
            and letter.written_ms >= self.since_ms
            and (not self.places or letter.place in self.places)
        )


def parse_since(text: str, now: datetime) -> int:
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


def parse_offsets(text: str) -> tuple[int, int]:
    """`17` or `17-20`.

    Raises:
        ConfigError: it is neither, or the last one comes before the first.
    """
    match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", text)
    if match is None:
        raise ConfigError(f"--offsets {text!r} is neither an offset nor a first and a last one, like 17-20")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise ConfigError(f"--offsets {text}: the first one comes first, like {last}-{first}")
    return first, last


def find_letters(config: Config, topics: TopicNames, wanted: LetterFilter, limit: int) -> tuple[list[Letter], int]:
    """The newest dead letters, oldest first; and how many there are in all.

    Raises:
        ConfigError: the topic does not exist.
        BrokerUnavailable: no answer for `PATIENCE_S`.
    """
    newest: deque[Letter] = deque(maxlen=limit)
    replayed: dict[Name, int] = {}
    count = 0
    for letter in read_letters(config, topics):
        if isinstance(letter, Replayed):
            replayed |= dict.fromkeys(letter.names, letter.written_ms)
        elif wanted.takes(letter):
            count += 1
            newest.append(letter)
    # A marker may lie in another partition than its letters, and be read before them.
    return [
        dataclasses.replace(letter, replayed_ms=replayed.get(letter.name, 0) if letter.name else 0) for letter in newest
    ], count


def read_letters(config: Config, topics: TopicNames) -> Iterator[Letter | Replayed]:
    """All that is there in partition order, up to the topic's present end; transactions open there are waited for.

    Raises:
        ConfigError: the topic does not exist, or Kafka refuses the login.
        NotAllowed: it may not be read.
        BrokerUnavailable: no answer for `PATIENCE_S`.
    """
    kafka = config.kafka.model_copy(update={"give_up_after_s": PATIENCE_S})
    topic = topics.dead_letters
    connection = Connection(threading.Event(), login=Login(kafka))
    try:
        with named(kafka, of_letters(topics)):
            check_topics(kafka, of_letters(topics), connection, keys=topics.keys)
            for records in CommittedReader(kafka, connection, topic, PATIENCE_S).to_end():
                yield from map(_letter, records)
    except KafkaException as error:
        raise ConfigError(f"Kafka refuses {topic!r}: {error.args[0].str()}") from error


def _letter(record: Record) -> Letter | Replayed:
    written_ms = record.timestamp()[1]
    own, why = origin_headers(record)
    if not why and any(name == MARKER for name, _ in own):
        names = msgspec.json.decode(record.value() or b"", type=list[Name])
        return Replayed(written_ms, names)
    try:
        origin = (why[f"{ERRORS}topic"], int(why[f"{ERRORS}partition"]), int(why[f"{ERRORS}offset"]))
    except (KeyError, ValueError):
        origin = None
    cut = ", ".join(
        f"{name.removeprefix(TRUNCATED)} {size}" for name, size in why.items() if name.startswith(TRUNCATED)
    )
    stage = why.get(f"{ERRORS}stage", "")
    return Letter(
        place=(record.topic(), record.partition(), record.offset()),
        origin=origin,
        written_ms=written_ms,
        timestamp_ms=int(why[TIMESTAMP]) if why.get(TIMESTAMP, "").isdigit() else written_ms,
        stage=stage,
        reason=reason_of(why.get(f"{ERRORS}exception.class.name", ""), stage),
        message=why.get(f"{ERRORS}exception.message", ""),
        cut=cut,
        key=record.key(),
        value=record.value(),
        headers=own,
        fingerprint=why.get(FINGERPRINT, ""),
        value_sha256=why.get(VALUE_SHA256, ""),
    )


def _place(text: str) -> Place:
    """What `streaming.ops.log.place` wrote.

    Raises:
        ConfigError: it did not write this.
    """
    match = re.fullmatch(r"(.+)\[(\d+)\]@(\d+)", text)
    if match is None:
        raise ConfigError(f"{text!r} is no place: write it as topic[partition]@offset")
    return match[1], int(match[2]), int(match[3])


def parse_places(texts: Collection[str]) -> set[Place]:
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
