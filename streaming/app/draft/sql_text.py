"""Guesses as SQL: tables.sql, events.sql, features.sql."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from streaming.app.draft.guesses import Guess
from streaming.app.draft.names import Names
from streaming.app.features import FEATURES_MAX
from streaming.engine.sql.names import quoted

__all__ = ["Features", "events_sql", "features_of", "request_column", "tables_sql"]

DISTINCT_COUNTS = 4  # columns of which the draft counts distinct values
DISTINCT_OF_ROWS = 5  # a value of such a column is seen so many times
_SAFE = re.compile(r"[\w .:/+@-]{0,64}")


@dataclass(frozen=True)
class Features:
    """features.sql.

    Attributes:
        text: it.
        names: what it answers, in order.
    """

    text: str
    names: tuple[str, ...]


def request_column(main: Guess) -> str:
    """The column of the main table that names a request."""
    if main.request_id is not None:
        return main.request_id.name
    names = Names()
    for column in main.columns:
        names.take(column.name)
    return names.take("request_id")


def tables_sql(guesses: Sequence[Guess], database: str) -> str:
    """A table per stream, with its columns."""
    lines = [
        "-- Drafted from samples: names and types are yours to change, with events.sql.",
        f"CREATE DATABASE IF NOT EXISTS {quoted(database)};",
        f"USE {quoted(database)};",
    ]
    for guess in guesses:
        columns = []
        if guess.scored and guess.request_id is None:
            columns.append(f"    {quoted(request_column(guess))} string NOT NULL")
        columns += [
            f"    {quoted(column.name)} {column.table_type}{' NOT NULL' if column.required else ''}"
            for column in guess.columns
        ]
        lines += ["", f"CREATE TABLE {quoted(guess.table)} (", ",\n".join(columns), ");"]
    return "\n".join(lines) + "\n"


def events_sql(guesses: Sequence[Guess]) -> str:
    """The streams, and what becomes of their records."""
    lines = ["-- What comes in, and the rows that become of it. Drafted from samples."]
    for guess in guesses:
        lines += ["", *_stream(guess, guesses[0]), "", *_insert(guess)]
    return "\n".join(lines) + "\n"


def _stream(guess: Guess, main: Guess) -> Iterator[str]:
    yield f"-- {_told(guess.sample.file.name)}: {guess.sample.rows:,} rows" + (
        "; each is scored" if guess.scored else ""
    )
    yield f"CREATE TABLE {quoted(guess.name)} ("
    for column in guess.columns:
        yield f"    {quoted(column.field.name)} {column.type}{' NOT NULL' if column.required else ''},"
    for column in guess.columns:
        few = column.field.few
        some = column.table_type == "string" and few is not None and len(few) * 2 <= column.field.present
        if some and few and all(_SAFE.fullmatch(text) for text in few):
            texts = ", ".join(f"'{text}'" for text in sorted(few))
            yield f"    -- to refuse other texts than these {len(few)}, take the mark away:"
            yield f"    -- CHECK ({quoted(column.field.name)} IN ({texts})),"
    for name, why in guess.left_out:
        yield f"    -- left out: {_told(name)}, {why}"
    yield ") WITH ("
    yield f"    topic = '{guess.topic}',"
    if guess.key is not None:
        yield f"    key = '{guess.key.field.name}',"
    else:
        yield "    -- key = '…', where the records' key is the text of a column"
    if guess.request_id is not None:
        yield f"    request_id = '{guess.request_id.field.name}',"
    if guess.join is not None and guess.join[0] is main.key and guess.key is guess.join[1]:
        yield f"    -- with as many partitions as {main.topic} it need not be read whole by every scorer:"
        yield "    -- partitioned = true,"
    yield f"    event_time = '{guess.time.field.name}',"
    yield f"    timestamp_format = '{guess.timestamp_format}'"
    yield ");"


def _insert(guess: Guess) -> Iterator[str]:
    yield f"INSERT INTO {quoted(guess.table)}"
    items = []
    if guess.scored and guess.request_id is None and guess.key is not None:
        key = quoted(guess.key.field.name)
        key = key if guess.key.table_type == "string" else f"string({key})"
        time = quoted(guess.time.field.name)
        items.append(f"    concat({key}, '_', string(bigint({time}))) AS {quoted(request_column(guess))}")
    for column in guess.columns:
        field, name = quoted(column.field.name), quoted(column.name)
        items.append(f"    {field}" if field == name else f"    {field} AS {name}")
    yield "SELECT\n" + ",\n".join(items)
    yield f"FROM {quoted(guess.name)};"


def features_of(guesses: Sequence[Guess]) -> Features:
    """A first query: the request, how often its key came before, and the latest row of what shares a key with it."""
    main, others = guesses[0], guesses[1:]
    if main.key is None:  # the scored stream has one
        raise ValueError(main.name)
    names = Names()
    table = quoted(main.table)
    items: list[tuple[str, str]] = []  # expression, name
    if main.request_id is None:
        items.append((f"{table}.{quoted(request_column(main))}", names.take(request_column(main))))
    items += [(f"{table}.{quoted(column.name)}", names.take(column.name)) for column in main.columns]
    counted = [
        column
        for column in main.columns
        if column.is_key_type
        and column not in (main.key, main.request_id)
        and 1 < column.field.distinct <= main.sample.rows / DISTINCT_OF_ROWS
    ]
    counted.sort(key=lambda column: column.table_type != "string")
    more: list[tuple[str, str]] = []
    for span in ("1h", "1d"):
        more.append((f"count({table}.{quoted(main.key.name)}) OVER last_{span}", f"events_{span}"))
        more += [
            (f"distinct_count({table}.{quoted(column.name)}) OVER last_{span}", f"{column.name}_values_{span}")
            for column in counted[:DISTINCT_COUNTS]
        ]
    joins = []
    for other in others:
        if other.join is None:
            continue
        left, right = other.join
        looked_up = quoted(other.table)
        time = f"{looked_up}.{quoted(other.time.name)}"
        joins.append(
            f"LAST JOIN {looked_up} ORDER BY {time}\n"
            f"    ON {table}.{quoted(left.name)} = {looked_up}.{quoted(right.name)}"
            f" AND {time} <= {table}.{quoted(main.time.name)}"
        )
        more += [
            (f"{looked_up}.{quoted(column.name)}", f"{other.name}_{column.name}")
            for column in other.columns
            if column not in (right, other.time)
        ]
    items += [(expression, names.take(name)) for expression, name in more]
    left_out = len(items) - FEATURES_MAX
    items = items[:FEATURES_MAX] if left_out <= 0 else [*items[: FEATURES_MAX - 2], *_counts(items)]
    return Features(_features_text(main, items, joins, others, max(left_out, 0)), tuple(name for _, name in items))


def _counts(items: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The counts of events: they stay where much is left out, as the windows need them."""
    return [item for item in items if item[0].startswith("count(")]


def _features_text(
    main: Guess, items: Sequence[tuple[str, str]], joins: Sequence[str], others: Sequence[Guess], left_out: int
) -> str:
    table = quoted(main.table)
    partition = f"PARTITION BY {table}.{quoted(main.key.name if main.key is not None else '')}"
    window = f"{partition} ORDER BY {table}.{quoted(main.time.name)} ROWS_RANGE BETWEEN"
    lines = [
        "-- A first feature query: a row of it is a request's features, as of the request's own time.",
        "-- No later row may be looked up: it would not be there yet when the request comes in.",
    ]
    if left_out:
        lines.append(f"-- {left_out} more columns are left out: a query has {FEATURES_MAX} at most.")
    lines += [
        f"-- {other.table} shares no key with {main.table}: it is not looked up."
        for other in others
        if other.join is None
    ]
    lines += ["SELECT", ",\n".join(f"    {expression} AS {quoted(name)}" for expression, name in items)]
    lines += [f"FROM {table}", *joins, "WINDOW"]
    lines.append(f"    last_1h AS ({window} 1h PRECEDING AND CURRENT ROW),")
    lines.append(f"    last_1d AS ({window} 1d PRECEDING AND CURRENT ROW);")
    return "\n".join(lines) + "\n"


def _told(text: str) -> str:
    """Any text on a line of comment."""
    short = text if len(text) <= 60 else f"{text[:57]}…"
    return short if short.isprintable() else ascii(short)
