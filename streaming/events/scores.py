"""Scores → bytes: the JSON of the scores' topic, as CloudEvents in one of three forms (`kafka.cloudevents`), and back.

binary      the JSON is the value, what names the event is in headers (CloudEvents' Kafka binding 1.0, binary mode)
structured  the JSON is `data` in a value that has the rest, too, in its first keys; one header says so
none        the JSON alone, without headers: no record says which event it is of
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streaming.config import CloudEvents
from streaming.events.batch import EventBatch
from streaming.ops.log import place

__all__ = ["MODEL_VERSION", "PROBABILITY", "Headers", "Score", "ScoreEncoder", "event_place", "score_json"]

FEW = 64
"""Times of so many events are spelled by numpy; of more Arrow is quicker."""

PROBABILITY, MODEL_VERSION = "$probability", "$model_version"
"""What a field of a score may be but a column of the main table."""

Headers = list[tuple[str, bytes | None]]

STRUCTURED = b"application/cloudevents+json"
_OPENING = b'{"specversion":"1.0",'


class ScoreEncoder:
    """Makes the records of the scores' topic.

    Args:
        main: the table whose rows are the requests.
        fields: of a score's JSON, in order: a column of the main table, `PROBABILITY` or `MODEL_VERSION`. Timestamps
            are epoch milliseconds, dates YYYY-MM-DD.
        event_type: CloudEvents' `ce_type`.
        source: CloudEvents' `ce_source` without its last part, the topic that the event came from.
        form: of the records, see this module.
    """

    def __init__(
        self, main: str, fields: Mapping[str, str], event_type: str, source: str, form: CloudEvents = "binary"
    ) -> None:
        self._main, self._type, self._source, self._form = main, event_type, source, form
        self._columns = list(fields.values())
        # Attributes get names of their own: a field's may be no name of Python's.
        names = {f"f{number}": name for number, name in enumerate(fields)}
        self._kind = msgspec.defstruct("Score", [(name, Any) for name in names], rename=names, gc=False)
        self._encoder = msgspec.json.Encoder()
        self._constant: Headers = [
            ("content-type", b"application/json"),
            ("ce_specversion", b"1.0"),
            ("ce_type", event_type.encode()),
        ]

    def __call__(
        self, events: EventBatch, probabilities: npt.NDArray[np.float32], version: str
    ) -> list[tuple[bytes | None, bytes, Headers]]:
        """Key, value and headers of n scores. The key is the event's own.

        `ce_id` (in a structured value `id`) names the record as topic[partition]@offset: with `ce_source` it must name
        one event only, and request ids may repeat.

        Args:
            events: n requests.
            probabilities: float32 [n].
            version: the version directory that Triton served the model from.
        """
        requests, count = events.rows[self._main], len(events)
        columns: list[Sequence[Any]] = []
        for column in self._columns:
            if column == PROBABILITY:
                columns.append(probabilities.tolist())
            elif column == MODEL_VERSION:
                columns.append([version] * count)
            else:
                columns.append(_plain(requests.column(column)))
        # One call for all: JSON has no line break in it, so a line is a value.
        scores = [self._kind(*fields) for fields in zip(*columns, strict=True)]
        values = self._encoder.encode_lines(scores).split(b"\n")
        if self._form == "none":
            return [(record.key(), value, []) for value, record in zip(values, events.records, strict=False)]
        moments = _rfc3339(events.times)
        if self._form == "structured":
            return self._structured(events, values, moments)
        sources = {topic: ("ce_source", f"{self._source}/{topic}".encode()) for topic in _topics(events)}
        return [
            (
                record.key(),
                value,
                [
                    *self._constant,
                    sources[record.topic()],
                    ("ce_id", place(record.topic(), record.partition(), record.offset()).encode()),
                    ("ce_time", moment),
                ],
            )
            for value, moment, record in zip(values, moments, events.records, strict=False)
        ]

    def _structured(
        self, events: EventBatch, values: Sequence[bytes], moments: Sequence[bytes]
    ) -> list[tuple[bytes | None, bytes, Headers]]:
        """The same in structured mode. A topic's name has nothing that JSON escapes."""
        openings = {}
        for topic in _topics(events):
            constant = {"type": self._type, "source": f"{self._source}/{topic}", "datacontenttype": "application/json"}
            openings[topic] = _OPENING + self._encoder.encode(constant)[1:-1]
        headers: Headers = [("content-type", STRUCTURED)]
        return [
            (
                record.key(),
                b'%s,"id":"%s","time":"%s","data":%s}'
                % (
                    openings[record.topic()],
                    place(record.topic(), record.partition(), record.offset()).encode(),
                    moment,
                    value,
                ),
                headers,
            )
            for value, moment, record in zip(values, moments, events.records, strict=False)
        ]


class Score(Protocol):
    """A consumed record of the scores' topic."""

    def value(self) -> Any: ...
    def headers(self) -> Any: ...


class _Structured(msgspec.Struct):
    id: str
    data: msgspec.Raw


_structured = msgspec.json.Decoder(_Structured)


def score_json(record: Score) -> bytes | None:
    """The JSON of a score, in whichever form it was written; None: the record has no value."""
    value: bytes | None = record.value()
    # The value is looked at first: a million scores are read without their headers.
    if value is None or not value.startswith(_OPENING) or not _is_structured(_headers(record)):
        return value
    try:
        return bytes(_structured.decode(value).data)
    except msgspec.DecodeError:  # another program's
        return value


def event_place(record: Score) -> str:
    """Which event a score is of (`topic[partition]@offset`), in whichever form it was written; "": it does not say."""
    headers = _headers(record)
    if not _is_structured(headers):
        return (headers.get("ce_id") or b"").decode(errors="replace")
    try:
        return _structured.decode(record.value() or b"").id
    except msgspec.DecodeError:  # another program's
        return ""


def _headers(record: Score) -> dict[str, bytes | None]:
    try:
        return dict(record.headers() or [])
    except (SystemError, ValueError):  # another program's
        return {}


def _is_structured(headers: Mapping[str, bytes | None]) -> bool:
    return (headers.get("content-type") or b"").startswith(STRUCTURED)


def _rfc3339(times: npt.NDArray[np.int64]) -> list[bytes]:
    """Epoch milliseconds as YYYY-MM-DDTHH:MM:SS.mmmZ."""
    if len(times) <= FEW:
        return [b"%sZ" % text for text in np.datetime_as_string(times.view("datetime64[ms]")).astype("S").tolist()]
    text = pa.array(times, pa.timestamp("ms")).cast(pa.string())
    moments = pc.binary_join_element_wise(pc.replace_substring(text, " ", "T"), "Z", "").cast(pa.binary())
    texts: list[bytes] = moments.to_pylist()
    return texts


def _topics(events: EventBatch) -> set[str]:
    return {record.topic() for record in events.records}


def _plain(column: pa.ChunkedArray) -> list[Any]:
    """As JSON has it: msgspec spells a date itself."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    values: list[Any] = column.to_pylist()
    return values
