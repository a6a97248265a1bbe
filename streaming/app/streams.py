"""events.sql, checked: streams with their constraints, and the tables that their records become rows of.

Every expression is planned here, so that what is wrong has its place in the file. What an INSERT does not name of its
table's columns is their default, or NULL; its items go to columns of their own names, or to those in its list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import pyarrow as pa

from streaming.app.contradictions import contradiction
from streaming.app.names import field_fault
from streaming.app.widths import whole_limits, widens
from streaming.app.wrong import AppFile, WrongApp
from streaming.engine import UnsupportedSQL
from streaming.engine.plan.scope import conjuncts
from streaming.engine.projection import Expression, Projection
from streaming.engine.sql import syntax
from streaming.engine.sql.parse_streams import parse_events
from streaming.engine.sql.stream_syntax import Check, CreateStream, InsertSelect, StreamColumn, StreamOption
from streaming.engine.storage.rows import schema_of
from streaming.engine.storage.table import Column
from streaming.engine.types import Type, is_integer, to_word

__all__ = ["TEXT_LENGTH_MAX", "Insert", "Stream", "TableColumns", "TimestampFormat", "read_streams", "spell_time"]

TEXT_LENGTH_MAX = 256
"""Characters of a text in a record whose column does not say VARCHAR(n)."""

TIMESTAMP_FORMATS = ("epoch_ms", "epoch_s", "iso-8601")
TimestampFormat = str
"""How a stream's records spell their timestamps: one of `epoch_ms` (the default), `epoch_s`, `iso-8601`."""

TableColumns = Mapping[str, Sequence[Column]]
"""Columns of each table, by its name."""


@dataclass(frozen=True)
class Insert:
    """What records of a stream become in one table.

    Attributes:
        table: its name.
        columns: the table's columns that the statement fills, each with its value, already of the column's type.
        where: which records become rows; None: all.
        at: the statement's offset in events.sql.
    """

    table: str
    columns: tuple[tuple[str, syntax.Expr], ...]
    where: syntax.Expr | None
    at: int


@dataclass(frozen=True)
class Stream:
    """The records of one topic.

    Attributes:
        name: the stream's.
        topic: where they come from.
        columns: the fields of their JSON.
        checks: what must not be false of them.
        key: the column whose text is the record's key; None: the key says nothing.
        event_time: the column of the event's time, a timestamp.
        request_id: the column with the name that the sender gave the request; None: there is none.
        partitioned: whether a dimension is read by partitions, as the events are, and not whole by every scorer.
        timestamp_format: how timestamps are spelled.
        deletes: where a record without a value deletes the rows of its key: of each table that the records go to, the
            column that holds the key; empty: such a record is refused.
        inserts: the tables that they go to.
        scored: whether they reach the main table: each is a request.
        at: the statement's offset in events.sql.
    """

    name: str
    topic: str
    columns: tuple[StreamColumn, ...]
    checks: tuple[Check, ...]
    key: str | None
    event_time: str
    request_id: str | None
    partitioned: bool
    timestamp_format: TimestampFormat
    deletes: Mapping[str, str]
    inserts: tuple[Insert, ...]
    scored: bool
    at: int

    @property
    def table_columns(self) -> tuple[Column, ...]:
        """The columns as the engine has them."""
        return tuple(Column(column.name, column.type) for column in self.columns)

    def column(self, name: str) -> StreamColumn:
        """A column by its name."""
        return next(column for column in self.columns if column.name == name)


def spell_time(epoch_ms: int, timestamp_format: TimestampFormat) -> int | str:
    """A time as the records of a stream have it; whole seconds where they count those."""
    if timestamp_format == "iso-8601":
        return datetime.fromtimestamp(epoch_ms / 1000, timezone.utc).isoformat(timespec="milliseconds")
    return epoch_ms // 1000 if timestamp_format == "epoch_s" else epoch_ms


def read_streams(file: AppFile, tables: TableColumns, main: str) -> tuple[Stream, ...]:
    """The streams of events.sql, in its order.

    Args:
        file: it.
        tables: what INSERT may fill.
        main: the table whose rows are the requests.

    Raises:
        WrongApp: names the place of what is wrong.
    """
    try:
        statements = parse_events(file.text)
    except UnsupportedSQL as error:
        raise file.sql_error(error) from None
    found: dict[str, CreateStream] = {}
    inserts: dict[str, list[InsertSelect]] = {}
    for statement in statements:
        if isinstance(statement, CreateStream):
            if statement.name in found:
                raise file.wrong(f"stream {statement.name} is there twice", statement.at)
            if statement.name in tables:
                raise file.wrong(f"stream {statement.name} has the name of a table: they would go round", statement.at)
            found[statement.name] = statement
            inserts[statement.name] = []
        elif statement.table[-1] in found:
            raise file.wrong(f"{statement.table[-1]} is a stream: records become rows of tables only", statement.at)
        else:
            inserts[_source(statement, file, found, tables)].append(statement)
    streams = tuple(_Reader(file, tables, main, statement).stream(inserts[name]) for name, statement in found.items())
    topics: dict[str, str] = {}
    for stream in streams:
        if topics.setdefault(stream.topic, stream.name) != stream.name:
            raise file.wrong(f"topic {stream.topic!r} is that of stream {topics[stream.topic]}, too", stream.at)
    if not any(stream.scored for stream in streams):
        raise WrongApp(file.path, 0, 0, f"no INSERT INTO {main}, the main table of the query: nothing asks")
    return streams


def _source(statement: InsertSelect, file: AppFile, streams: Mapping[str, CreateStream], tables: TableColumns) -> str:
    """The stream that an INSERT reads."""
    source = statement.select.source
    if source is None:
        raise file.wrong("INSERT … SELECT without FROM", statement.at)
    if not isinstance(source, syntax.TableRef):
        raise file.wrong("INSERT … SELECT reads one stream: no sub-query", source.at)
    name = source.name[-1]
    if source.alias is not None:
        raise file.wrong(f"an alias of stream {name}", source.at)
    if name not in streams or len(source.name) > 1:
        what = "is a table: rows come from streams only" if name in tables else "is no stream declared before"
        raise file.wrong(f"{'.'.join(source.name)} {what}", source.at)
    select = statement.select
    for is_there, what in (
        (bool(select.joins), "a join"),
        (bool(select.windows), "a window"),
        (select.limit is not None, "LIMIT"),
        (select.distinct, "SELECT DISTINCT"),
    ):
        if is_there:
            raise file.wrong(f"{what} in INSERT … SELECT: a record becomes a row by itself", select.at)
    return name


class _Reader:
    """Checks one stream and its inserts."""

    def __init__(self, file: AppFile, tables: TableColumns, main: str, statement: CreateStream) -> None:
        self.file = file
        self.tables = tables
        self.main = main
        self.statement = statement
        self.columns = {column.name: column for column in statement.columns}
        self.engine_columns = [Column(column.name, column.type) for column in statement.columns]

    def stream(self, statements: Sequence[InsertSelect]) -> Stream:
        name = self.statement.name
        self.check_columns()
        for check in self.statement.checks:
            self.check_condition(check)
        self.check_rules()
        options = _Options(self.file, self.statement)
        event_time = options.column("event_time", required=True)
        if event_time is None or self.columns[event_time].type != Type.TIMESTAMP:
            raise options.wrong("event_time", "is no timestamp")
        if self.columns[event_time].nullable:
            raise options.wrong("event_time", "may be NULL: declare it NOT NULL")
        if not statements:
            raise self.file.wrong(f"no INSERT reads stream {name}", self.statement.at)
        inserts = [self.insert(statement) for statement in statements]
        tables = [insert.table for insert in inserts]
        for insert in inserts:
            if tables.count(insert.table) > 1 and insert.table == self.main:
                raise self.file.wrong(f"two inserts of {name} into {insert.table}, the main table", inserts[-1].at)
        scored = self.main in tables
        key = options.column("key", required=scored or options.flag("partitioned"))
        if key is not None:
            if not (self.columns[key].type == Type.STRING or is_integer(self.columns[key].type)):
                raise options.wrong("key", f"is a {self.columns[key].type}: a key is a string or a whole number")
            if self.columns[key].nullable:
                raise options.wrong("key", "may be NULL: declare it NOT NULL")
        if scored and options.flag("partitioned"):
            raise options.wrong("partitioned", "says nothing of a stream that is scored: it is")
        request_id = options.column("request_id")
        if request_id is not None and not scored:
            raise options.wrong("request_id", f"of a stream that does not reach {self.main}, the main table")
        stream = Stream(
            name,
            options.text("topic", name),
            self.statement.columns,
            self.statement.checks,
            key,
            event_time,
            request_id,
            options.flag("partitioned"),
            options.choice("timestamp_format", TIMESTAMP_FORMATS),
            self.deletes(options, key, inserts, scored=scored),
            tuple(inserts),
            scored,
            self.statement.at,
        )
        options.choice("format", ("json",))
        return stream

    def deletes(
        self, options: _Options, key: str | None, inserts: Sequence[Insert], *, scored: bool
    ) -> Mapping[str, str]:
        """See `Stream.deletes`."""
        found: dict[str, str] = {}
        if options.choice("tombstone", ("refuse", "delete")) == "refuse":
            return found
        if scored or options.flag("partitioned"):
            raise options.wrong("tombstone", "of a stream that is not read whole by every scorer")
        if key is None:
            raise options.wrong("tombstone", "of a stream without a key")
        for insert in inserts:
            named = [name for name, expr in insert.columns if isinstance(expr, syntax.Name) and expr.parts[-1] == key]
            if not named:
                raise self.file.wrong(
                    f"no column of {insert.table} is {key}, whose rows a tombstone deletes", insert.at
                )
            found[insert.table] = named[0]
        return found

    def check_columns(self) -> None:
        seen: set[str] = set()
        for column in self.statement.columns:
            if column.name in seen:
                raise self.file.wrong(f"column {column.name} is there twice", column.at)
            if why := field_fault(column.name):
                raise self.file.wrong(why, column.at)
            seen.add(column.name)
            value = None if column.default is None else column.default.value
            if value is None:
                continue
            if column.type == Type.STRING:
                fits = isinstance(value, str)
            else:
                try:
                    to_word(column.type, value)
                    fits = column.type != Type.DATE
                except (TypeError, OverflowError):
                    fits = False
            if not fits:
                raise self.file.wrong(f"the default {value!r} of column {column.name} is no {column.type}", column.at)
        if not seen:
            raise self.file.wrong(f"stream {self.statement.name} has no columns", self.statement.at)

    def check_condition(self, check: Check) -> None:
        known = self.planned([check.condition])[0]
        if known.type != Type.BOOL or known.null:
            raise self.file.wrong(f"CHECK ({check.text}) is no condition but a {known.type}", check.condition.at)
        parts = conjuncts(check.condition)
        constant = [part for part, of in zip(parts, self.planned(parts), strict=True) if not of.columns]
        if constant and not all(self.constants(constant)):
            raise self.file.wrong(f"CHECK ({check.text}) is always false: it would refuse every record", check.at)

    def check_rules(self) -> None:
        """CHECKs that contradict one another, or a column's type."""
        check = contradiction(self.statement.columns, self.statement.checks, _limits, self.tried)
        if check is not None:
            raise self.file.wrong(f"CHECK ({check.text}) is always false: it would refuse every record", check.at)
        names: set[str] = set()
        for check in self.statement.checks:
            if check.name in names:
                raise self.file.wrong(f"two constraints of the name {check.name}", check.at)
            names |= {check.name} if check.name is not None else set()

    def insert(self, statement: InsertSelect) -> Insert:
        table = statement.table[-1]
        if table not in self.tables:
            raise self.file.wrong(f"unknown table {table}", statement.at)
        columns = {column.name: column for column in self.tables[table]}
        items = statement.select.items
        for item in items:
            if isinstance(item.expr, syntax.Star):
                raise self.file.wrong("`*` in INSERT … SELECT: name each column", item.at)
        names = list(statement.columns) or [item.text if item.alias is None else item.alias for item in items]
        if len(names) != len(items):
            raise self.file.wrong(f"{len(items)} values for {len(names)} columns of {table}", statement.at)
        filled: dict[str, syntax.Expr] = {}
        known = self.planned([item.expr for item in items])
        for name, item, of in zip(names, items, known, strict=True):
            if name not in columns:
                raise self.file.wrong(f"unknown column {name} of table {table}", item.at)
            if name in filled:
                raise self.file.wrong(f"column {name} of table {table} is filled twice", item.at)
            filled[name] = self.as_column(item, of, columns[name], table)
        for column in columns.values():
            if not column.nullable and column.name not in filled and column.default is None:
                raise self.file.wrong(f"column {table}.{column.name} is NOT NULL, and gets no value", statement.at)
        where = statement.select.where
        if where is not None:
            if table == self.main:
                raise self.file.wrong(f"WHERE of an insert into {table}, the main table: every record asks", where.at)
            if self.planned([where])[0].type != Type.BOOL:
                raise self.file.wrong("WHERE is no condition", where.at)
        return Insert(table, tuple(filled.items()), where, statement.at)

    def as_column(self, item: syntax.Item, known: Expression, column: Column, table: str) -> syntax.Expr:
        """An item as a column's type: itself, or cast where every value of its type has its like there."""
        if known.null and not column.nullable:
            raise self.file.wrong(f"column {table}.{column.name} is NOT NULL, and gets NULL", item.at)
        if known.type == column.type:
            return item.expr
        literal = item.expr if isinstance(item.expr, syntax.Literal) else None
        small = (
            literal is not None
            and isinstance(literal.value, int)
            and is_integer(known.type)
            and (column.type == Type.SMALLINT and abs(literal.value) < 1 << 15)
        )
        if not (known.null or small or widens(known.type, column.type)):
            what = f"column {table}.{column.name} is a {column.type}, its value a {known.type}"
            raise self.file.wrong(f"{what}: cast it, as {column.type}(…)", item.at)
        return syntax.Cast(item.expr, column.type, item.at)

    def planned(self, expressions: Sequence[syntax.Expr]) -> tuple[Expression, ...]:
        return self.projection(expressions).expressions

    def projection(self, expressions: Sequence[syntax.Expr]) -> Projection:
        try:
            return Projection(self.statement.name, self.engine_columns, expressions, self.file.text)
        except UnsupportedSQL as error:
            raise self.file.sql_error(error) from None

    def constants(self, expressions: Sequence[syntax.Expr]) -> list[object]:
        """The values of expressions that read no column."""
        return [values[0] for values in self.tried(expressions, "", [None])]

    def tried(self, expressions: Sequence[syntax.Expr], name: str, values: Sequence[object]) -> list[list[object]]:
        """What expressions are of records in which a column has these values, and all others are NULL."""
        schema = schema_of(self.engine_columns)
        rows = pa.RecordBatch.from_arrays(
            [pa.array(values, one.type) if one.name == name else pa.nulls(len(values), one.type) for one in schema],
            schema=schema,
        )
        return [found.to_pylist() for found in self.projection(expressions)(rows)]


class _Options:
    """WITH (…) of a stream."""

    NAMES = ("topic", "key", "event_time", "request_id", "format", "partitioned", "timestamp_format", "tombstone")

    def __init__(self, file: AppFile, statement: CreateStream) -> None:
        self.file = file
        self.statement = statement
        self.found: dict[str, StreamOption] = {option.name: option for option in statement.options}
        for option in statement.options:
            if option.name not in self.NAMES:
                known = ", ".join(self.NAMES)
                raise file.wrong(f"unknown option {option.name} of a stream; there are {known}", option.at)

    def wrong(self, option: str, what: str) -> WrongApp:
        """The error for the value of an option."""
        given = self.found.get(option)
        value = f" = {given.value!r}" if given is not None else ""
        return self.file.wrong(f"{option}{value} {what}", self.statement.at if given is None else given.at)

    def text(self, option: str, default: str = "") -> str:
        given = self.found.get(option)
        if given is None:
            return default
        if not isinstance(given.value, str) or not given.value:
            raise self.wrong(option, "is no text")
        return given.value

    def choice(self, option: str, choices: Sequence[str]) -> str:
        found = self.text(option, choices[0]).lower()
        if found not in choices:
            raise self.wrong(option, f"is none of {', '.join(choices)}")
        return found

    def flag(self, option: str) -> bool:
        given = self.found.get(option)
        if given is not None and not isinstance(given.value, bool):
            raise self.wrong(option, "is neither TRUE nor FALSE")
        return given is not None and bool(given.value)

    def column(self, option: str, required: bool = False) -> str | None:
        """The column of the stream that an option names."""
        name = self.text(option)
        if not name:
            if required:
                raise self.file.wrong(f"stream {self.statement.name} lacks the option {option}", self.statement.at)
            return None
        if name not in {column.name for column in self.statement.columns}:
            raise self.wrong(option, f"is no column of stream {self.statement.name}")
        return name


def _limits(column: StreamColumn) -> tuple[int, int]:
    """The least and the greatest number of a whole column, and length of a text one."""
    return whole_limits(column.type) if is_integer(column.type) else (0, column.length_max or TEXT_LENGTH_MAX)
