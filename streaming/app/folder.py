"""An application's folder → one `App`, all of it checked.

`tables.sql` makes the tables, `features.sql` is the query over them, `events.sql` says what comes in and what becomes
of it, `app.toml` what SQL does not say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import msgspec

from streaming.app.digest import FILES, digest_of
from streaming.app.encoder_fields import encoder_fields
from streaming.app.features import FeatureQuery, Tables, deploy, read_tables
from streaming.app.labels import check_settings, feature_columns
from streaming.app.names import topic_fault
from streaming.app.settings import EncoderField, Settings, key_place, read_settings
from streaming.app.streams import Stream, read_streams
from streaming.app.wrong import AppFile, WrongApp
from streaming.engine.sql import syntax
from streaming.engine.sql.names import quoted
from streaming.engine.sql.tokens import tokens_of
from streaming.engine.storage.table import Column
from streaming.engine.types import Type

__all__ = ["FILES", "App", "load_app", "names_in"]


@dataclass(frozen=True)
class App:
    """An application.

    Attributes:
        folder: where it was read from.
        settings: app.toml.
        tables: tables.sql.
        query: features.sql; `query.contract.main` is the table whose rows are the requests.
        streams: events.sql, in its order.
        sources: the text of each file, by its name.
        warnings: what works, but may not be meant; each on one line.
        digest: names what the folder's files say: equal files, equal digests; 64 hexadecimal digits.
    """

    folder: Path
    settings: Settings
    tables: Tables
    query: FeatureQuery
    streams: tuple[Stream, ...]
    sources: MappingProxyType[str, str]
    warnings: tuple[str, ...]
    digest: str

    @property
    def main(self) -> str:
        """The table whose rows are the requests."""
        return self.query.contract.main

    @property
    def scored(self) -> tuple[Stream, ...]:
        """The streams whose records are requests."""
        return tuple(stream for stream in self.streams if stream.scored)

    @property
    def partitioned(self) -> tuple[Stream, ...]:
        """The streams that are no requests, and are read by partition as the scored ones are."""
        return tuple(stream for stream in self.streams if stream.partitioned)

    @property
    def dimensions(self) -> tuple[Stream, ...]:
        """The streams whose records are only looked up: every scorer reads them whole."""
        return tuple(stream for stream in self.streams if not (stream.scored or stream.partitioned))

    @property
    def dead_letters(self) -> str:
        """The topic of what cannot be scored."""
        return self.settings.dead_letters or f"{self.scored[0].topic}.dlq"

    @property
    def features(self) -> tuple[str, ...]:
        """The columns of the query that can be inputs of the model."""
        return feature_columns(self.settings, self.query)

    @property
    def encoder_fields(self) -> tuple[EncoderField, ...]:
        """The fields of the model's input, in order, each with its name and kind; its width is their number."""
        return encoder_fields(self.settings, self.query, self.event_time)

    @property
    def request_time(self) -> str | None:
        """The column of the main table that is the time of a request; None: there is none that tells."""
        return _request_time(self.tables, self.query, self.streams)

    @property
    def event_time(self) -> str | None:
        """The column of the query that repeats the time of the request; None: it answers none."""
        return _event_time(self.tables, self.query, self.streams)

    def echo(self, column: str) -> str | None:
        """The first column of the query that repeats a column of the main table; None: it answers none."""
        return next((output for output, echoed in self.query.contract.echoes if echoed == column), None)

    def deployed_as(self, database: str = "", deployment: str = "") -> App:
        """The same application in another database, or with another name of the DEPLOY.

        Args:
            database: in the place of the one that tables.sql names; '': that one.
            deployment: '': the one of app.toml.

        Raises:
            WrongApp: features.sql names the database of tables.sql.
        """
        if database in ("", self.tables.database) and deployment in ("", self.settings.deployment.name):
            return self
        sources = dict(self.sources)
        if database and database != self.tables.database:
            sources["tables.sql"] = _in_database(sources["tables.sql"], self.tables.database, database)
        files = {name: AppFile(self.folder / name, text) for name, text in sources.items()}
        return _checked(self.folder, files, deployment, self.digest)

    def stream_of(self, topic: str) -> Stream | None:
        """The stream of a topic; None: the topic is not the application's."""
        return next((stream for stream in self.streams if stream.topic == topic), None)

    def required(self, table: str) -> tuple[Column, ...]:
        """The columns of a table that take no NULL: by NOT NULL, or since the query orders rows by them."""
        times = dict(self.query.contract.times).get(table, ())
        return tuple(c for c in self.tables.columns[table] if not c.nullable or c.name in times)

    def times(self, table: str) -> tuple[str, ...]:
        """The columns of a table that the query orders rows by: no negative number may stand in them."""
        return dict(self.query.contract.times).get(table, ())


def load_app(folder: Path) -> App:
    """Reads and checks an application.

    Raises:
        WrongApp: the first thing that is wrong, with its file, line and column.
    """
    if not folder.is_dir():
        raise WrongApp(folder, 0, 0, "there is no such folder")
    return _checked(folder, {name: AppFile(folder / name) for name in FILES})


def _checked(folder: Path, files: Mapping[str, AppFile], deployment: str = "", digest: str = "") -> App:
    """The application of some files.

    Args:
        deployment: its name; '': as app.toml says.
        digest: of the files as they were before the database was another; '': of these.
    """
    settings = read_settings(files["app.toml"])
    if deployment:
        named = msgspec.structs.replace(settings.deployment, name=deployment)
        settings = msgspec.structs.replace(settings, deployment=named)
    engine, tables = read_tables(files["tables.sql"])
    query = deploy(engine, tables, files["features.sql"], settings.deployment, files["app.toml"])
    if query.contract.main not in tables.columns:
        raise WrongApp(folder / "features.sql", 0, 0, "the query has no main table")
    streams = read_streams(files["events.sql"], tables.columns, query.contract.main)
    time = _event_time(tables, query, streams)
    check_settings(files["app.toml"], settings, tables, query, files["features.sql"], time)
    _check_topics(files["app.toml"], settings, streams, files["events.sql"])
    _check_request_ids(files["events.sql"], settings, streams, query.contract.main)
    sources = MappingProxyType({name: file.text for name, file in files.items()})
    warnings = tuple(_warnings(settings, tables, query, streams))
    return App(folder, settings, tables, query, streams, sources, warnings, digest or digest_of(sources))


def _in_database(text: str, old: str, new: str) -> str:
    """tables.sql with the name of its database replaced wherever it stands; in front of it where it names none."""
    name = quoted(new)
    if not old:
        return f"CREATE DATABASE IF NOT EXISTS {name}; USE {name}; {text}"
    tokens = tokens_of(text)
    places = []
    for at, token in enumerate(tokens):
        before = [other.lower for other in tokens[max(0, at - 5) : at]]
        made = before[-1:] == ["use"] or before[-2:] == ["create", "database"]
        made = made or before == ["create", "database", "if", "not", "exists"]
        qualifies = tokens[min(at + 1, len(tokens) - 1)].text == "."
        if (made or qualifies) and token.text.strip("`") == old:
            places.append(token)
    for token in reversed(places):
        text = text[: token.at] + name + text[token.at + len(token.text) :]
    return text


def _request_time(tables: Tables, query: FeatureQuery, streams: tuple[Stream, ...]) -> str | None:
    """A time that the query orders rows of the main table by; else one that a stream fills with its event's time."""
    main = query.contract.main
    kinds = {column.name: column.type for column in tables.columns[main]}
    times = list(dict(query.contract.times).get(main, ()))
    for stream in streams:
        for insert in stream.inserts:
            if insert.table == main:
                for name, expr in insert.columns:
                    if isinstance(expr, syntax.Name) and expr.parts[-1] == stream.event_time:
                        times.append(name)
    return next((name for name in times if kinds[name] == Type.TIMESTAMP), None)


def _event_time(tables: Tables, query: FeatureQuery, streams: tuple[Stream, ...]) -> str | None:
    column = _request_time(tables, query, streams)
    return next((output for output, echoed in query.contract.echoes if echoed == column), None)


def _check_topics(file: AppFile, settings: Settings, streams: tuple[Stream, ...], events: AppFile) -> None:
    """Scores and dead letters must not come in again; Kafka must take the names."""
    topics = [stream.topic for stream in streams]
    for place, stream in enumerate(streams):
        if why := topic_fault(stream.topic, topics[:place]):
            raise events.wrong(why, stream.at)
    at = key_place(file.text, "scores", "topic")
    if settings.scores.topic in topics:
        raise file.wrong(f"the scores' topic {settings.scores.topic!r} is a stream's: they would go round", at)
    if why := topic_fault(settings.scores.topic, topics):
        raise file.wrong(why, at)
    scored = next(stream for stream in streams if stream.scored)
    dead_letters = settings.dead_letters or f"{scored.topic}.dlq"
    if settings.dead_letters:
        at = key_place(file.text, "", "dead_letters")
    if dead_letters in {*topics, settings.scores.topic}:
        raise file.wrong(f"topic {dead_letters} takes the dead letters of {scored.topic}", at)
    if why := topic_fault(dead_letters, [*topics, settings.scores.topic]):
        raise file.wrong(why, at) if settings.dead_letters else events.wrong(f"dead letters: {why}", scored.at)


def _check_request_ids(file: AppFile, settings: Settings, streams: tuple[Stream, ...], main: str) -> None:
    """Every scored stream names its requests, by its own `request_id` where it has one."""
    for stream in streams:
        for insert in stream.inserts:
            if insert.table != main:
                continue
            made = dict(insert.columns).get(settings.request.id)
            if made is None:
                what = f"no value for {main}.{settings.request.id}, which [request] of app.toml says names a request"
                raise file.wrong(what, insert.at)
            if stream.request_id is not None and stream.request_id not in names_in(made):
                what = f"{main}.{settings.request.id} is not made of {stream.request_id}, the stream's request_id"
                raise file.wrong(what, insert.at)


def names_in(expr: object) -> set[str]:
    """The columns that an expression reads."""
    if isinstance(expr, syntax.Name):
        return {expr.parts[-1]}
    if isinstance(expr, tuple):
        return {name for part in expr for name in names_in(part)}
    fields = getattr(expr, "__dataclass_fields__", {})
    return {name for field in fields for name in names_in(getattr(expr, field))}


def _warnings(settings: Settings, tables: Tables, query: FeatureQuery, streams: tuple[Stream, ...]) -> list[str]:
    main = query.contract.main
    filled = {insert.table for stream in streams for insert in stream.inserts}
    found = [
        f"table {table} gets rows from no stream: only from history" for table in tables.columns if table not in filled
    ]
    if settings.request.id not in {echoed for _, echoed in query.contract.echoes}:
        what = f"the query does not answer {main}.{settings.request.id}, which names a request"
        found.append(f"{what}: its features cannot be labelled, nor compared with others")
    if _request_time(tables, query, streams) is None:
        found.append(f"no timestamp of {main} is the time of a request: its features cannot be labelled, nor split")
    partitioned = {insert.table: stream for stream in streams if stream.partitioned for insert in stream.inserts}
    scored = [stream for stream in streams if stream.scored]
    keys = {
        name
        for stream in scored
        for insert in stream.inserts
        if insert.table == main
        for name in _keys(stream, insert.columns)
    }
    for read in query.contract.reads:
        of_events = read.table in {insert.table for stream in scored for insert in stream.inserts}
        if (of_events or read.table in partitioned) and not set(read.request) & keys:
            by = ", ".join(read.columns)
            found.append(
                f"{read.table} is read by {by}, which does not hold the key of its records: with several partitions a "
                "scorer sees its own partitions' rows only"
            )
    return found


def _keys(stream: Stream, columns: tuple[tuple[str, syntax.Expr], ...]) -> list[str]:
    """The columns of the main table that tell a record's partition: made of the stream's key."""
    return [name for name, expr in columns if stream.key is not None and stream.key in names_in(expr)]
