"""Streams of records → the tables' files, in the layout that `extract` reads; and what no table got, with the reason.

    OUT/<folder of the table>/<table>.parquet     rows by time, then stream, then record
    OUT/refused.jsonl                             a line per refused record: place, stream, reason, message

A table that got no row has no file. The rules are the scorer's own (`streaming.app.decoding`), so a table holds what
serving would have held, and training sees what serving saw.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from batch.backfill.archive import ArchiveRecord
from batch.backfill.ordering import SortedRows
from streaming.app.decoding import StreamDecoder
from streaming.app.folder import App
from streaming.engine.storage.rows import schema_of
from streaming.errors import BadInput
from streaming.events.record import NullValue, reason
from streaming.files.output_folder import Say, replacing

__all__ = ["DEFAULTS", "REFUSED", "Backfilled", "Limits", "backfill"]

REFUSED = "refused.jsonl"


class Limits(msgspec.Struct, frozen=True):
    """Of records: `[events]` of the scorer's configuration, and its defaults."""

    message_bytes_max: int = 65_536
    future_s_max: int = 300


DEFAULTS = Limits()


class Backfilled(msgspec.Struct, frozen=True):
    """What a backfill did.

    Attributes:
        records: read, by stream.
        refused: by stream, how many for each reason.
        rows: written, by table; 0 of those that got none.
    """

    records: dict[str, int]
    refused: dict[str, dict[str, int]]
    rows: dict[str, int]


def backfill(
    app: App,
    archives: Mapping[str, Iterable[Sequence[ArchiveRecord]]],
    out: Path,
    limits: Limits = DEFAULTS,
    *,
    inputs: Sequence[Path] = (),
    force: Say | None = None,
) -> Backfilled:
    """Writes the tables that an archive of events makes.

    Args:
        archives: by stream, its records in order, in batches.
        out: a folder that is new or empty, or holds an older backfill.
        limits: of records.
        inputs: files and folders of the archives: `out` must not touch them.
        force: see `streaming.files.output_folder.replacing`.

    Raises:
        BadInput: a stream that the application has not; all records of a stream are refused; see the archives, too.
        OutputRefused: `out` holds something else, or touches an input.
    """
    order = {stream.name: place for place, stream in enumerate(app.streams)}
    for name in archives:
        if name not in order:
            raise BadInput(f"unknown stream {name}; {app.folder} has {', '.join(order)}")
    with (
        replacing(out, "history", inputs=[app.folder, *inputs], force=force) as fresh,
        tempfile.TemporaryDirectory(dir=fresh.parent, prefix="runs-") as runs,  # on the same disk: it takes as much
    ):
        made = _Tables(app, Path(runs))
        with (fresh / REFUSED).open("wb") as refused:
            for name in sorted(archives, key=order.__getitem__):
                for line in made.decoded(order[name], archives[name], limits):
                    refused.write(line)
        made.write(fresh)
    return Backfilled(dict(made.records), {name: dict(found) for name, found in made.refused.items()}, made.rows())


class _Tables:
    def __init__(self, app: App, runs: Path) -> None:
        self._app = app
        self._tables: dict[str, SortedRows] = {}
        for name, columns in app.tables.columns.items():
            (runs / name).mkdir()
            self._tables[name] = SortedRows(runs / name, schema_of(columns))
        self.records: Counter[str] = Counter()
        self.refused: dict[str, Counter[str]] = {}

    def decoded(self, place: int, batches: Iterable[Sequence[ArchiveRecord]], limits: Limits) -> Iterator[bytes]:
        """Takes a stream's records; gives the lines of those that are refused."""
        stream = self._app.streams[place]
        decoder = StreamDecoder(self._app, stream, limits.message_bytes_max, limits.future_s_max)
        refused = self.refused.setdefault(stream.name, Counter())
        first = ""
        self.records[stream.name] += 0
        for batch in batches:
            self.records[stream.name] += len(batch)
            events, bad = decoder.decode(batch, replayed=True)
            numbers = np.fromiter((record.offset() for record in events.records), np.int64, len(events))
            for table, rows in events.rows.items():
                of = events.events_of[table]
                self._tables[table].add(rows, events.times[of], place, numbers[of])
            kept = NullValue("decode", "a tombstone: what it deletes stays in history")
            bad += [(events.records[number], kept) for number, *_ in events.deletes]
            for record, why in bad:
                kind = reason(why)
                refused[kind] += 1
                first = first or f"{record.topic()}: {why}"
                told = {"place": record.topic(), "stream": stream.name, "reason": kind, "message": str(why)}
                yield msgspec.json.encode(told) + b"\n"
        if first and refused.total() == self.records[stream.name]:
            raise BadInput(f"{stream.name}: each of its {refused.total():,} records is refused: {first}")

    def rows(self) -> dict[str, int]:
        """How many each table has, that a stream can fill."""
        filled = {insert.table for stream in self._app.streams for insert in stream.inserts}
        return {name: table.rows for name, table in self._tables.items() if name in filled}

    def write(self, out: Path) -> None:
        """Writes the tables that have rows."""
        for name, table in self._tables.items():
            if table.rows:
                folder = out / self._app.settings.history.folders.get(name, name)
                folder.mkdir(parents=True, exist_ok=True)
                table.write(folder / f"{name}.parquet")
