"""The event that a score was made of, found by the id that the score carries, as the request row that it asked."""

from __future__ import annotations

import datetime
import math
import re
import threading
import time
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
from confluent_kafka import KafkaException

from streaming.app.folder import App
from streaming.app.inputs import InputDecoder
from streaming.app.topics import TopicNames
from streaming.board.rows import Place
from streaming.config import Config
from streaming.errors import ScorerError, Unavailable
from streaming.events.record import Record
from streaming.events.scores import PROBABILITY, event_place, score_json
from streaming.kafka.connection import Connection
from streaming.kafka.login import Login
from streaming.kafka.reader import TopicReader
from streaming.ops.log import place as placed

__all__ = ["Asked", "EventGone", "EventReader", "origin_of"]

PATIENCE_S = 5.0
READ_S = 3.0  # for one record of a topic that has it


class EventGone(ScorerError):
    """A score or its event cannot be read any more: the message says why."""


@dataclass(frozen=True)
class Asked:
    """A request that was scored.

    Attributes:
        place: of its event.
        row: its row of the main table, as `POST /predict` takes it.
        event: the event's JSON, as text.
    """

    place: str
    row: dict[str, Any]
    event: str


class EventReader:
    """Reads single records; any thread may call, one at a time is served.

    Args:
        config: `[kafka]` and `[events]`.
        app: whose events they are.
        topics: how its topics are called.
    """

    def __init__(self, config: Config, app: App, topics: TopicNames) -> None:
        self._kafka = config.kafka.model_copy(update={"give_up_after_s": PATIENCE_S})
        self._app, self._topics = app, topics
        self._field_of = {column: field for field, column in reversed(app.settings.scores.fields.items())}
        self._decoder = InputDecoder(app, config.events, topics)
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self._reader: TopicReader | None = None

    def close(self) -> None:
        """Reads no more."""
        self._stop.set()
        with self._turn:
            self._forget()

    def event_of(self, score: Place) -> Asked:
        """The request of a score.

        Raises:
            EventGone: retention has taken it, the record is none of the scorer's, or another one lies in its place.
            Unavailable: Kafka does not answer.
        """
        with self._turn:
            scores = self._read((self._topics.scores, score.partition), score.offset, 1)
            if not scores:
                raise EventGone(f"the score is not in topic {self._topics.scores} any more")
            said = _said(scores[0])
            told = said.get(self._field_of[PROBABILITY])
            if not isinstance(told, int | float) or not math.isclose(told, score.probability, rel_tol=1e-6):
                raise EventGone(f"where the score was lies another: topic {self._topics.scores} was made anew")
            asked = self._asked(*origin_of(scores[0]), 1)
        if not asked:
            raise EventGone("the event is not in its topic any more, or is no request")
        column = self._app.settings.request.id
        if column in self._field_of and str(asked[0].row[column]) != str(said.get(self._field_of[column])):
            raise EventGone("where the event was lies another: its topic was made anew")
        return asked[0]

    def events_near(self, score: Place, count: int) -> list[Asked]:
        """The request of a score, and those that lie behind its event, `count` records at most; see `event_of`."""
        with self._turn:
            scores = self._read((self._topics.scores, score.partition), score.offset, 1)
            return self._asked(*origin_of(scores[0]), count) if scores else []

    def _asked(self, topic: str, partition: int, offset: int, count: int) -> list[Asked]:
        if topic not in self._topics.scored:
            raise EventGone(f"the event came from topic {topic}, which this application does not read")
        records = self._read((topic, partition), offset, count)
        events, _ = self._decoder.decode(records, replayed=True)
        rows = events.rows.get(self._app.main)
        if rows is None:
            return []
        columns = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in rows.columns]
        found = pa.Table.from_arrays(columns, names=rows.column_names).to_pylist()
        return [
            Asked(
                placed(record.topic(), record.partition(), record.offset()),
                {name: str(value) if isinstance(value, datetime.date) else value for name, value in row.items()},
                (record.value() or b"").decode("utf-8", "replace"),
            )
            for number, row in zip(events.events_of[self._app.main].tolist(), found, strict=True)
            for record in [events.records[number]]
        ]

    def _read(self, partition: tuple[str, int], offset: int, count: int) -> list[Record]:
        """Up to `count` records from an offset on; none where that one is not there."""
        try:
            return self._read_anew(partition, offset, count)
        except KafkaException as error:
            self._forget()
            raise Unavailable(f"Kafka: {error.args[0].str()}") from error
        except Unavailable:
            self._forget()
            raise

    def _read_anew(self, partition: tuple[str, int], offset: int, count: int) -> list[Record]:
        if self._reader is None:
            connection = Connection(self._stop, login=Login(self._kafka))
            self._reader = TopicReader(self._kafka, connection, "read_committed")
        low, high = self._reader.watermarks(partition)
        if not low <= offset < high:
            return []
        self._reader.assign({partition: offset})
        found: list[Record] = []
        until = time.monotonic() + READ_S
        while len(found) < count and partition not in self._reader.ends and time.monotonic() < until:
            found += [
                record
                for record in self._reader.read(count - len(found), 0.05)
                if (record.topic(), record.partition()) == partition and record.offset() >= offset
            ]
        if not found and partition not in self._reader.ends:
            raise Unavailable(f"Kafka does not give {placed(*partition, offset)}")
        return found if found and found[0].offset() == offset else []

    def _forget(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _said(score: Record) -> dict[str, Any]:
    """The fields of a score."""
    try:
        said = msgspec.json.decode(score_json(score) or b"")
    except msgspec.DecodeError:
        return {}
    return said if isinstance(said, dict) else {}


def origin_of(score: Record) -> tuple[str, int, int]:
    """Where the event of a score lies, as CloudEvents' id in the score says.

    Raises:
        EventGone: the scorer did not write it, or without an id.
    """
    match = re.fullmatch(r"(.+)\[(\d+)\]@(\d+)", event_place(score))
    if match is None:
        raise EventGone(
            "the score does not say which event it is of: it was not written by this scorer, or with "
            'kafka.cloudevents = "none"'
        )
    return match[1], int(match[2]), int(match[3])
