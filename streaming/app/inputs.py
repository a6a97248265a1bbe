"""Records of any input topic → events, each stream by its own decoder; what is none, and why."""

from __future__ import annotations

from collections.abc import Sequence

from streaming.app.decoding import StreamDecoder
from streaming.app.folder import App
from streaming.app.topics import TopicNames
from streaming.config import Events
from streaming.events.batch import EventBatch, Refusals, merged
from streaming.events.record import Record

__all__ = ["InputDecoder"]


class InputDecoder:
    """The decoders of all input topics; not for several threads at once.

    Args:
        app: the application.
        limits: `[events]`.
        topics: how its topics are called.
    """

    def __init__(self, app: App, limits: Events, topics: TopicNames) -> None:
        self._decoders = {
            topic: StreamDecoder(app, stream, limits.message_bytes_max, limits.future_s_max)
            for topic, stream in topics.streams.items()
        }
        self._dimensions = frozenset(topics.dimensions)

    def of_dimensions(self, record: Record) -> bool:
        """Whether a record is one of a dimension topic."""
        return record.topic() in self._dimensions

    def decode(self, records: Sequence[Record], *, replayed: bool = False) -> tuple[EventBatch, Refusals]:
        """The events of records in the order given; see `StreamDecoder.decode`."""
        topics = {record.topic() for record in records}
        if len(topics) == 1:
            return self._decoders[topics.pop()].decode(records, replayed=replayed)
        parts: list[tuple[EventBatch, list[int]]] = []
        refused: Refusals = []
        places: dict[int, int] = {}  # of the records that are events, among them
        decoded = []
        for topic in sorted(topics):
            of_topic = [record for record in records if record.topic() == topic]
            events, bad = self._decoders[topic].decode(of_topic, replayed=replayed)
            refused += bad
            decoded.append(events)
        good = {id(record) for events in decoded for record in events.records}
        for record in records:
            if id(record) in good:
                places[id(record)] = len(places)
        for events in decoded:
            parts.append((events, [places[id(record)] for record in events.records]))
        order = {id(record): number for number, record in enumerate(records)}
        refused.sort(key=lambda refusal: order[id(refusal[0])])
        return merged(parts), refused
