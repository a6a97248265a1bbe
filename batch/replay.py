"""A period of a world as Kafka messages: what its producers would have sent in it, and the history before it.

`ArchiveReplays` takes both from an archive of events, a file of JSON lines for each topic. A world that has tables only
brings replays of its own (`batch.world.replays`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from batch.backfill.archive import ArchiveRecord, records_of_files
from batch.backfill.tables import backfill
from streaming.app.decoding import StreamDecoder
from streaming.app.folder import App
from streaming.app.streams import Stream
from streaming.config import Events
from streaming.errors import BadInput

__all__ = ["EVENTS", "ArchiveReplays", "Message", "Replay", "Replays"]

EVENTS = "events"
"""The folder of a data folder that holds the archive: TOPIC.jsonl of each topic."""


@dataclass(frozen=True, slots=True)
class Message:
    """One record to produce.

    Attributes:
        time: the event's own, epoch ms.
        request_id: of a request: the id that its score will carry.
    """

    topic: str
    key: bytes
    value: bytes
    time: int
    request_id: str = ""


@dataclass(frozen=True)
class Replay:
    """The messages of a period.

    Attributes:
        dimensions: of the topics that every scorer reads whole; they are sent first.
        events: of the others, in the order of their times.
        spread: how many events were moved in time to tell them from an earlier one of their key.
    """

    dimensions: list[Message]
    events: list[Message]
    spread: int = 0

    @property
    def request_ids(self) -> list[str]:
        """Of the requests among the events, in their order."""
        return [event.request_id for event in self.events if event.request_id]

    @property
    def tied(self) -> frozenset[str]:
        """Of the requests that share their key's moment with another event: offline each sees the other, where
        serving sees what came before it."""
        moments = Counter((event.key, event.time) for event in self.events)
        return frozenset(
            event.request_id for event in self.events if event.request_id and moments[event.key, event.time] > 1
        )


_FOR_EVER = 1 << 62


class Replays(Protocol):
    """How a world is replayed."""

    def cut_history(self, data: Path, out: Path, before: int) -> dict[str, int]:
        """Writes what was known before `before` (epoch ms) to `out`, a folder of files for each table.

        Returns:
            Rows kept, by table.
        """

    def period(self, data: Path, start: int, end: int) -> Replay:
        """The messages of `start` ≤ time < `end` (epoch ms)."""

    def streamed_folder(self, data: Path, history: Path, replay: Replay, out: Path) -> None:
        """Writes a data folder that holds what the stream saw, and later events, which only labels see."""


class ArchiveReplays:
    """Replays of an archive of events.

    Args:
        app: whose events they are.
        archive: the folder of TOPIC.jsonl files.
    """

    def __init__(self, app: App, archive: Path) -> None:
        self._app, self._archive = app, archive
        if not any(self._file(stream).is_file() for stream in app.scored):
            names = ", ".join(self._file(stream).name for stream in app.scored)
            raise BadInput(f"{archive}: there is no {names}, the events that ask")

    def cut_history(self, data: Path, out: Path, before: int) -> dict[str, int]:
        def known(stream: Stream) -> Iterator[list[ArchiveRecord]]:
            for records, times in self._timed(stream):
                yield [record for record, time in zip(records, times.tolist(), strict=True) if time < before]

        return backfill(self._app, {stream.name: known(stream) for stream in self._streams()}, out).rows

    def period(self, data: Path, start: int, end: int) -> Replay:
        found: list[tuple[int, int, int, Message]] = []
        dimensions: list[Message] = []
        for place, stream in enumerate(self._streams()):
            if stream.scored or stream.partitioned:
                messages = self._messages(stream, start, end)
                found += [(message.time, place, number, message) for number, message in enumerate(messages)]
            else:  # a LAST JOIN takes the newest row, whenever the request was: offline it has all of them
                dimensions += self._messages(stream, start, _FOR_EVER)
        found.sort(key=lambda item: item[:3])
        return Replay(dimensions, [message for *_, message in found])

    def streamed_folder(self, data: Path, history: Path, replay: Replay, out: Path) -> None:
        backfill(self._app, {s.name: (records for records, _ in self._timed(s)) for s in self._streams()}, out)

    def _streams(self) -> list[Stream]:
        return [stream for stream in self._app.streams if self._file(stream).is_file()]

    def _file(self, stream: Stream) -> Path:
        return self._archive / f"{stream.topic}.jsonl"

    def _messages(self, stream: Stream, start: int, end: int) -> list[Message]:
        """The records of a period that are events."""
        app, found = self._app, []
        decoder = self._decoder(stream)
        for batch in records_of_files(stream, [self._file(stream)]):
            events, _ = decoder.decode(batch, replayed=True)
            ids = [""] * len(events)
            if app.main in events.rows:
                column = events.rows[app.main].column(app.settings.request.id).to_pylist()
                ids = [str(value) for value in column]
            for record, time, name in zip(events.records, events.times.tolist(), ids, strict=True):
                if start <= time < end:
                    found.append(Message(stream.topic, record.key() or b"", record.value() or b"", time, name))
        return found

    def _timed(self, stream: Stream) -> Iterator[tuple[list[ArchiveRecord], npt.NDArray[np.int64]]]:
        """The records that are events, with their times."""
        decoder = self._decoder(stream)
        for batch in records_of_files(stream, [self._file(stream)]):
            events, _ = decoder.decode(batch, replayed=True)
            by_place = {record.place: record for record in batch}
            yield [by_place[record.topic()] for record in events.records], events.times

    def _decoder(self, stream: Stream) -> StreamDecoder:
        limits = Events()
        return StreamDecoder(self._app, stream, limits.message_bytes_max, limits.future_s_max)
