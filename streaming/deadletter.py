"""A record that cannot be scored → a dead letter: its bytes as they came, and headers that say where and why.

The headers are Kafka Connect's (`__connect.errors.*`), so that its tools read them, and some of our own; the record's
stay in front of them. A record that is larger than the dead-letter topic takes is cut, and one whose headers no client
can read goes without them; either says so: it must not stop the rest.
"""

from __future__ import annotations

from typing import Any

import xxhash

from streaming.errors import BadEvent
from streaming.event import Record
from streaming.score import Headers

__all__ = ["ERRORS", "FINGERPRINT", "GROUP", "TIMESTAMP", "TRUNCATED", "dead_letter", "fingerprint", "told"]

ERRORS = "__connect.errors."
TIMESTAMP = "jd_intent.timestamp"
"""Header: the record's own time, epoch milliseconds; a dead letter's is when it became one."""
GROUP = "jd_intent.group"
"""Header: the consumer group that has refused the record."""
FINGERPRINT = "jd_intent.fingerprint"
"""Header: the record's `fingerprint`."""
TRUNCATED = "jd_intent.truncated."

RECORD_OVERHEAD_BYTES = 512
"""What a record batch of one adds to keys, values and headers: 61 bytes of batch header, varints per field."""

MESSAGE_CHARS_MAX = 1000


def dead_letter(
    record: Record, error: BadEvent, bytes_max: int, group: str
) -> tuple[bytes | None, bytes | None, Headers]:
    """Key, value and headers for the dead-letter topic.

    Args:
        bytes_max: the largest record batch that the topic takes. Above it the value is cut, then the record's own
            headers are left out, then the key is cut; headers `jd_intent.truncated.value_bytes`, `.headers`,
            `.key_bytes` carry what there was.
        group: the consumer group in whose name it is refused.

    Headers that cannot be read are left out; header `jd_intent.unreadable.headers` says why.
    """
    kind = type(error)
    why: Headers = [
        (f"{ERRORS}topic", record.topic().encode()),
        (f"{ERRORS}partition", str(record.partition()).encode()),
        (f"{ERRORS}offset", str(record.offset()).encode()),
        (f"{ERRORS}stage", error.stage.encode()),
        (f"{ERRORS}exception.class.name", f"{kind.__module__}.{kind.__qualname__}".encode()),
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
        why.append(("jd_intent.unreadable.headers", str(cause)[:MESSAGE_CHARS_MAX].encode("utf-8", "replace")))
    room = bytes_max - RECORD_OVERHEAD_BYTES - _size(why)
    if _length(key) + _length(value) + _size(own) <= room:
        return key, value, own + why
    cut: Headers = [(f"{TRUNCATED}value_bytes", str(_length(value)).encode())]
    if _length(key) + _size(own) > room // 2:
        cut.append((f"{TRUNCATED}headers", str(len(own)).encode()))
        own = []
    if key is not None and len(key) > room // 2:
        cut.append((f"{TRUNCATED}key_bytes", str(len(key)).encode()))
        key = key[: room // 2]
    left = room - _length(key) - _size(own) - _size(cut)
    return key, None if value is None else value[: max(left, 0)], own + why + cut


def fingerprint(record: Record) -> str:
    """Tells a record from another that has its place in a topic that was made anew: xxh3-64 of time, key and value."""
    digest = xxhash.xxh3_64(str(record.timestamp()[1]).encode())
    for part in (record.key(), record.value()):
        digest.update(b"\0" if part is None else str(len(part)).encode() + b":" + part)
    return digest.hexdigest()


def told(letter: Record) -> tuple[Headers, dict[str, str]]:
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
    # each header: its name, its value, and two varints
    return sum(len(name.encode()) + _length(value) + 10 for name, value in headers)
