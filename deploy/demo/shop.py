"""The application that the demo runs."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from batch.backfill.archive import ArchiveRecord
from batch.replay import Message
from streaming.app.decoding import StreamDecoder
from streaming.app.folder import App, load_app
from streaming.app.topics import TopicNames
from streaming.errors import ConfigError
from streaming.events.scores import PROBABILITY
from streaming.shipped_files import app_folder

__all__ = ["Shop"]


@dataclass(frozen=True)
class Shop:
    """An application, and where its scores say what the demo has to know.

    Attributes:
        folder: of the application.
        request_id, probability: fields of a score.
    """

    folder: Path
    app: App
    topics: TopicNames
    request_id: str
    probability: str

    @classmethod
    def of(cls, name: str) -> Shop:
        """The application of a folder.

        Raises:
            ConfigError: it cannot run, or its scores do not name their requests.
        """
        folder = app_folder(name).resolve()
        app = load_app(folder)
        fields = {source: field for field, source in app.settings.scores.fields.items()}
        if app.settings.request.id not in fields:
            raise ConfigError(
                f"{folder / 'app.toml'}: no field of [scores.fields] is {app.settings.request.id}, which names a "
                "request: the demo cannot tell its scores apart"
            )
        return cls(folder, app, TopicNames.of(app, {}), fields[app.settings.request.id], fields[PROBABILITY])

    def request_row(self, message: Message) -> dict[str, object]:
        """The request that an event asks, as `predict` takes it."""
        decoder = StreamDecoder(self.app, self.topics.streams[message.topic], len(message.value), 300)
        events, _ = decoder.decode([ArchiveRecord(message.topic, 0, message.key, message.value)])
        rows = events.rows[self.app.main]
        columns = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in rows.columns]
        (row,) = pa.Table.from_arrays(columns, names=rows.column_names).to_pylist()
        return {name: str(value) if isinstance(value, datetime.date) else value for name, value in row.items()}
