"""A record that cannot be scored → a dead letter: its bytes as they came, and headers that say where and why.

The headers are Kafka Connect's (`__connect.errors.*`), so that its tools read them, and some of our own; the record's
stay in front of them. A record that is larger than the dead-letter topic takes is cut, down to what names it, and one
whose headers no client can read goes without them; either says so: it must not stop the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import xxhash

from streaming.errors import BadEvent, ConfigError
from streaming.events.record import Record
from streaming.events.scores import Headers

__all__ = [
    "ERRORS",
    "FINGERPRINT",
    "GROUP",
    "TIMESTAMP",
    "TRUNCATED",
    "VALUE_SHA256",
    "check_room",
    "dead_letter",
    "fingerprint",
    "origin_headers",
]

ERRORS = "__connect.errors."
TIMESTAMP = "jd_intent.timestamp"
"""Header: the record's own time, epoch milliseconds; a dead letter's is when it became one."""
GROUP = "jd_intent.group"
"""Header: the consumer group that has refused the record."""
FINGERPRINT = "jd_intent.fingerprint"
"""Header: the record's `fingerprint`."""
TRUNCATED = "jd_intent.truncated."
"""Headers: how much there was of what is cut."""
VALUE_SHA256 = "jd_intent.value_sha256"
"""Header: of the whole value, where it is cut: its owner can tell which one it was."""
UNREADABLE = "jd_intent.unreadable.headers"

SPARED = (
    UNREADABLE,
    f"{ERRORS}exception.message",
    TIMESTAMP,
    VALUE_SHA256,
    f"{ERRORS}stage",
    f"{ERRORS}exception.class.name",
)
"""What a letter does without where the topic takes too little, in this order: texts are shortened first. The others
name the record, for `streaming.kafka.refused_records`, or say that it is cut, for `streaming.dlq.letters`."""

BATCH_BYTES = 61 + 40
"""What a record batch of one adds to key, value and headers: its header, and the varints of the record's own fields."""

MESSAGE_CHARS_MAX = 1000

KNOWN_AS = {"streaming.events.record": "streaming.event", "streaming.loop.poison.detection": "streaming.poison"}
"""Modules whose classes are published under an older name: who reads the topic has filters on it."""


def dead_letter(
    record: Record, error: BadEvent, bytes_max: int, group: str
) -> tuple[bytes | None, bytes | None, Headers]:
    """Key, value and headers for the dead-letter topic.

    Args:
        bytes_max: the largest record batch that the topic takes. Above it the value is cut, then the record's own
            headers are left out, then the key is cut, and last `SPARED`; headers `jd_intent.truncated.value_bytes`,
            `.headers`, `.key_bytes` carry what there was. `check_room` says whether it can do at all.
        group: the consumer group in whose name it is refused.

    Headers that cannot be read are left out; header `jd_intent.unreadable.headers` says why.
    """
    kind = type(error)
    name = f"{KNOWN_AS.get(kind.__module__, kind.__module__)}.{kind.__qualname__}"
    why: Headers = [
        (f"{ERRORS}topic", record.topic().encode()),
        (f"{ERRORS}partition", str(record.partition()).encode()),
        (f"{ERRORS}offset", str(record.offset()).encode()),
        (f"{ERRORS}stage", error.stage.encode()),
        (f"{ERRORS}exception.class.name", name.encode()),
        (f"{ERRORS}exception.message", str(error)[:MESSAGE_CHARS_MAX].encode("utf-8", "replace")),
        (TIMESTAMP, str(record.timestamp()[1]).encode()),
        (GROUP, group.encode()),
        (FINGERPRINT, fingerprint(record).encode()),
    ]
    key, value = record.key(), record.value()
    try:
        own = list(record.headers() or [])
    except (SystemError, ValueError) as unreadable:  # confluent's for a header whose name is not UTF-8
        own = []
        cause = unreadable.__cause__ or unreadable
        why.append((UNREADABLE, str(cause)[:MESSAGE_CHARS_MAX].encode("utf-8", "replace")))
    room = _room(bytes_max)
    if _length(key) + _length(value) + _size(own) + _size(why) <= room:
        return key, value, own + why
    cut: Headers = [(f"{TRUNCATED}value_bytes", str(_length(value)).encode())]
    half = max(room - _size(why) - _size(cut), 0) // 2
    if own and _length(key) + _size(own) > half:
        cut.append((f"{TRUNCATED}headers", str(len(own)).encode()))
        own = []
    if key is not None and len(key) > half:
        cut.append((f"{TRUNCATED}key_bytes", str(len(key)).encode()))
        key = key[:half]
    if value is not None:
        why.append((VALUE_SHA256, hashlib.sha256(value).hexdigest().encode()))
    why = _shortened(why, room - _length(key) - _size(own) - _size(cut))
    left = max(room - _length(key) - _size(own) - _size(cut) - _size(why), 0)
    if left >= _length(value):  # what else was cut has made room for it
        return key, value, own + [header for header in why if header[0] != VALUE_SHA256] + cut[1:]
    return key, None if value is None else value[:left], own + why + cut


def check_room(topic: str, inputs: Iterable[str], group: str, bytes_max: int) -> None:
    """Every record has a dead letter that its topic takes.

    Args:
        topic: of the dead letters.
        inputs: the topics that they come from.
        group, bytes_max: see `dead_letter`.

    Raises:
        ConfigError: not even what names the longest does fit.
    """
    most = 2**63 - 1
    needed: Headers = [
        (f"{ERRORS}topic", max((name.encode() for name in inputs), key=len)),
        (f"{ERRORS}partition", b"2147483647"),
        (f"{ERRORS}offset", str(most).encode()),
        (GROUP, group.encode()),
        (FINGERPRINT, b"f" * 16),
        *((f"{TRUNCATED}{part}", b"2147483647") for part in ("value_bytes", "headers", "key_bytes")),
    ]
    if (missing := _size(needed) - _room(bytes_max)) > 0:
        raise ConfigError(
            f"kafka.topics.dead_letters: {topic!r} takes records of at most {bytes_max} bytes; what a "
            f"dead letter says of its record needs {missing} more: raise its max.message.bytes"
        )


def _shortened(why: Headers, room: int) -> Headers:
    """So many of `SPARED` left out that the rest has room."""
    for name in SPARED:
        over = _size(why) - room
        if over <= 0:
            break
        text = dict(why).get(name) or b""
        keep = len(text) - over if name in (UNREADABLE, f"{ERRORS}exception.message") else 0
        why = [(n, text[:keep] if n == name else v) for n, v in why if n != name or keep > 0]
    return why


def fingerprint(record: Record) -> str:
    """Tells a record from another that has its place in a topic that was made anew: xxh3-64 of time, key and value."""
    digest = xxhash.xxh3_64(str(record.timestamp()[1]).encode())
    for part in (record.key(), record.value()):
        digest.update(b"\0" if part is None else str(len(part)).encode() + b":" + part)
    return digest.hexdigest()


def origin_headers(letter: Record) -> tuple[Headers, dict[str, str]]:
    """A dead letter's headers: those of the record, and by name those that `dead_letter` has put behind them.

    Another program's record may have none of them, or headers that cannot be read.
    """
    try:
        headers: list[tuple[str, Any]] = list(letter.headers() or [])
    except (SystemError, ValueError):
        return [], {}
    # Among the record's own may be another program's of the same names.
    begins = max((n for n, (name, _) in enumerate(headers) if name == f"{ERRORS}topic"), default=len(headers))
    return headers[:begins], {name: (value or b"").decode(errors="replace") for name, value in headers[begins:]}


def _length(part: bytes | None) -> int:
    return 0 if part is None else len(part)


def _size(headers: Headers) -> int:
    # Of each its name and its value, with a varint each: more than 63 bytes need two of its own, more than 8,191 three.
    return sum(len(name.encode()) + _length(value) + 6 for name, value in headers)


def _room(bytes_max: int) -> int:
    """For key, value and headers. Compression that a topic asks for makes what is random a little larger."""
    return bytes_max - BATCH_BYTES - 32 - bytes_max // 2048
