"""Commands that make an application's history: from an archive of its events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batch.cli.options import Force, console, say, when_forced

if TYPE_CHECKING:
    from batch.backfill.archive import ArchiveRecord

__all__ = ["backfill"]


def backfill(
    *,
    application: Annotated[
        Path,
        typer.Option("--app", help="The application: a folder with tables.sql, features.sql, events.sql, app.toml."),
    ],
    archives: Annotated[
        list[str] | None,
        typer.Option(
            "--from", help="STREAM=PATH: its events, JSON lines or parquet, a file or a folder of them; repeatable."
        ),
    ] = None,
    topics: Annotated[
        list[str] | None,
        typer.Option("--from-topic", help="A stream whose topic is read from its beginning; repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Data folder to write: a folder per table, and refused.jsonl.")],
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Of the scorer: [kafka] of --from-topic, limits of [events].")
    ] = None,
    force: Force = False,
) -> None:
    """Make an application's tables of an archive of its events, by events.sql: training sees what serving saw."""
    from batch.backfill.archive import records_of_files, records_of_topic
    from batch.backfill.tables import DEFAULTS, REFUSED, Limits
    from batch.backfill.tables import backfill as make_tables
    from streaming.app.folder import load_app
    from streaming.app.topics import TopicNames
    from streaming.config import load
    from streaming.errors import BadInput
    from streaming.ops import log

    pairs = [_pair(text) for text in archives or ()]
    wanted = topics or []
    if not pairs and not wanted:
        raise typer.BadParameter("is needed, or --from-topic: there is nothing to read", param_hint="--from")
    app = load_app(application)
    streams = {stream.name: stream for stream in app.streams}
    for name in [*(name for name, _ in pairs), *wanted]:
        if name not in streams:
            raise BadInput(f"unknown stream {name}; {application} has {', '.join(streams)}")
    both = {name for name, _ in pairs} & set(wanted)
    if both:
        raise BadInput(f"stream {min(both)}: take --from or --from-topic, not both")
    read: dict[str, Iterable[Sequence[ArchiveRecord]]] = {}
    for name, stream in streams.items():
        paths = [path for other, path in pairs if other == name]
        if paths:
            read[name] = records_of_files(stream, paths)
    limits = DEFAULTS
    if wanted or config is not None:
        log.to_stderr()
        settings = load(config)
        limits = Limits(settings.events.message_bytes_max, settings.events.future_s_max)
        called = {stream.name: topic for topic, stream in TopicNames.of(app, settings.kafka.topics).streams.items()}
        for name in wanted:
            read[name] = records_of_topic(called[name], settings)
    done = make_tables(app, read, out, limits, inputs=[path for _, path in pairs], force=when_forced(force))
    for name, count in done.records.items():
        reasons = ", ".join(f"{why} {found:,}" for why, found in sorted(done.refused[name].items()))
        say(f"{name}: {count:,} records" + (f", refused: {reasons}" if reasons else ""))
    for name, count in done.rows.items():
        say(f"{name}: {count:,} rows" + ("" if count else "; no stream that was read has any"))
    if any(done.refused.values()):
        console.print(f"{out / REFUSED}: each refused record, with its place and the reason")


def _pair(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise typer.BadParameter(f"{text!r} is not STREAM=PATH", param_hint="--from")
    return name, Path(path)
