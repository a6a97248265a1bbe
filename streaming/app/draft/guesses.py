"""What fields may be: columns and their types, a stream's key and time, which stream is scored, what joins what.

All rows count for a type: a column takes every value that was seen. Names decide only where values leave a choice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from streaming.app.draft.names import Names, can_be_named, identifier
from streaming.app.draft.samples import Field, Sample
from streaming.errors import BadInput
from streaming.events.record import TIME_MS_MAX

__all__ = ["Column", "Guess", "guessed"]

_TIME_NAME = re.compile(
    r"time|date|moment|stamp|when|since|changed|created|updated|(^|_)(ts|at)(_|$)|[a-z](At|Ts)$", re.I
)
_BEST_TIMES = ("event_time", "eventtime", "timestamp", "ts", "time", "at", "moment", "event_ts")
_ID_NAME = re.compile(r"(^|_)(id|key|no|num|number|code|uuid|ip|sku|pan)$|[a-z](Id|ID|Key|No)$", re.I)
_ACTOR_NAME = re.compile(
    r"user|customer|client|account|card|member|visitor|person|buyer|shopper|player|device|(^|_)ip$", re.I
)
_REQUEST_NAME = re.compile(r"request|event|click|transaction|txn|tx|order|message|uuid|(^|_)id$|[a-z]Id$", re.I)
# From 2000 to 2100, in the unit.
_SECONDS = (946_684_800, 4_102_444_800)
_FORMATS = {"epoch_ms": "ms", "epoch_s": "s", "iso-8601": "iso"}
_BIG, _SMALL = 1 << 63, 1 << 31
_LARGE = 100_000  # numbers of this size are not the same by chance


@dataclass
class Column:
    """A field as a column of a stream, and of its table.

    Attributes:
        field: what was seen.
        name: of the table's column.
        type: in events.sql, as `varchar(16)`.
        required: NOT NULL.
        unit: of a time, `ms`, `s`, `iso`, or `any`: parquet's own; '': it is no timestamp.
    """

    field: Field
    name: str
    type: str
    required: bool
    unit: str = ""

    @property
    def table_type(self) -> str:
        """In tables.sql."""
        return "string" if self.type.startswith("varchar") else self.type

    @property
    def is_key_type(self) -> bool:
        return self.table_type in ("string", "int", "bigint")


@dataclass
class Guess:
    """A sample as a stream.

    Attributes:
        sample: the file.
        name: the stream's.
        topic: the topic's.
        table: of its table.
        columns: of both.
        left_out: names of fields that have no type, each with the reason.
        time: the event's time.
        timestamp_format: of the stream's times.
        key: of its records; None: unknown.
        request_id: of the scored stream, the sender's own name of the request; None: there is none.
        join: of a dimension, the column of the scored table and its own, by which it is looked up.
        scored: whether it is the scored one.
    """

    sample: Sample
    name: str
    topic: str
    table: str
    columns: list[Column]
    left_out: list[tuple[str, str]]
    time: Column
    timestamp_format: str
    key: Column | None = None
    request_id: Column | None = None
    join: tuple[Column, Column] | None = None
    scored: bool = False


def guessed(samples: Sequence[Sample], scored: str | None = None) -> list[Guess]:
    """The streams, the scored one first.

    Args:
        scored: the name of the scored one; None: the file with the most rows.

    Raises:
        BadInput: two files of one name, none of name `scored`; no field of a file can be its events' time, or of the
            scored one the key.
    """
    stems = [sample.name for sample in samples]
    for sample in samples:
        if stems.count(sample.name) > 1:
            raise BadInput(f"{sample.file}: {stems.count(sample.name)} files of the name {sample.name}: one per topic")
        if sample.name.endswith(".dlq") and sample.name[:-4] in stems:
            raise BadInput(f"{sample.file}: the dead letters of {sample.name[:-4]} are no sample of a topic")
    if scored is not None and scored not in stems:
        raise BadInput(f"--scored {scored}: there is no such file; there are {', '.join(stems)}")
    names = Names()
    topics = Names()
    found = [_guess(sample, names, topics) for sample in samples]
    main = max(found, key=lambda one: one.sample.rows)
    main = next((one for one in found if one.sample.name == scored), main)
    main.scored = True
    others = [one for one in found if one is not main]
    main.key = _scored_key(main, others)
    main.request_id = _request_id(main)
    for other in others:
        _join(main, other)
    return [main, *others]


def _guess(sample: Sample, names: Names, topics: Names) -> Guess:
    stem = names.take(identifier(sample.name, "stream"))
    topic = re.sub(r"[^A-Za-z0-9._-]+", "-", sample.name).strip(".") or stem
    times = [one for one in sample.fields if sample.required(one) and can_be_named(one.name) and _units(one)]
    if not times:
        what = f"no field is a time in each of its {sample.rows:,} rows (epoch s or ms of 2000 to 2100, or ISO-8601)"
        raise BadInput(f"{sample.file}: {what}: events need one")
    time = max(times, key=_time_score)
    unit = next(iter(_units(time)))
    columns: list[Column] = []
    left_out: list[tuple[str, str]] = []
    of_table = Names()
    for one in sample.fields:
        kind = ("timestamp", unit) if one is time else _type(one, unit)
        if not can_be_named(one.name):
            kind = ("", "its name has quotes, backslashes or control characters")
        if not kind[0]:
            left_out.append((one.name, kind[1]))
            continue
        name = of_table.take(identifier(one.name, "field"))
        columns.append(Column(one, name, kind[0], sample.required(one), kind[1]))
    event_time = next(column for column in columns if column.field is time)
    form = next((form for form, short in _FORMATS.items() if short == unit), "epoch_ms")
    return Guess(sample, stem, topics.take(topic), f"{stem}_rows", columns, left_out, event_time, form)


def _units(one: Field) -> tuple[str, ...]:
    """The units in which all values of a field are times: one at most, '' first where its name says none."""
    kinds = one.first.keys()
    if kinds == {"moment"}:
        return ("any",) if _within(one, 1, TIME_MS_MAX) else ()
    if kinds == {"text"}:
        return ("iso",) if one.all_moments else ()
    if kinds == {"int"}:
        if _within(one, *_SECONDS):
            return ("s",)
        if _within(one, _SECONDS[0] * 1000, _SECONDS[1] * 1000):
            return ("ms",)
    return ()


def _within(one: Field, least: int, greatest: int) -> bool:
    return one.least is not None and one.greatest is not None and least <= one.least and one.greatest <= greatest


def _time_score(one: Field) -> tuple[bool, int, bool, int]:
    """A time of the event's own: its name says time, and it differs from row to row."""
    word = one.name.lower()
    best = len(_BEST_TIMES) - _BEST_TIMES.index(word) if word in _BEST_TIMES else 0
    return _TIME_NAME.search(one.name) is not None, best, "moment" in one.first or "text" in one.first, one.distinct


def _type(one: Field, unit: str) -> tuple[str, str]:
    """The type of a column, with the unit of a time; '' and the reason where it has none.

    Args:
        unit: of the stream's times: another unit's are whole numbers or texts.
    """
    kinds = one.first.keys()
    if not kinds:
        return "", "it is null in every row"
    if "other" in kinds:
        return "", f"a list, an object or the like (row {one.first['other']}): OpenMLDB has no type for it"
    own = _units(one)
    named = _TIME_NAME.search(one.name) is not None or kinds != {"int"}
    if own and named and (own[0] in (unit, "any") or unit == "any" == own[0]):
        return "timestamp", own[0]
    if kinds == {"moment"}:
        return "", "times before 1970"
    if kinds == {"bool"}:
        return "bool", ""
    if kinds == {"int"}:
        if one.least is None or one.greatest is None or one.least < -_BIG or one.greatest >= _BIG:
            return "", "whole numbers of more than 64 bits"
        wide = _ID_NAME.search(one.name) is not None or one.least < -_SMALL or one.greatest >= _SMALL
        return ("bigint" if wide else "int"), ""
    if kinds <= {"int", "float"}:
        return "double", ""
    if kinds == {"text"}:
        if one.all_dates:
            return "date", ""
        return f"varchar({_length(one.length)})", ""
    rows = ", ".join(f"{kind} in row {row}" for kind, row in one.first.items())
    return "", f"values of several types ({rows})"


def _length(seen: int) -> int:
    """Room for texts that are twice as long as those that were seen."""
    length = 16
    while length < 2 * seen:
        length *= 2
    return length


def _scored_key(main: Guess, others: Sequence[Guess]) -> Column:
    """Whose events they are: what has several events, has a name of such things, and is known elsewhere, too."""
    elsewhere = {column.field.name.lower() for other in others for column in other.columns}
    candidates = [one for one in main.columns if one.required and one.is_key_type]
    if not candidates:
        what = "no text and no whole number is in each of its rows: none can be the key of the scored events"
        raise BadInput(f"{main.sample.file}: {what}")

    def score(column: Column) -> float:
        name, field = column.field.name, column.field
        points = 9.0 if field.is_key else 0.0
        points += 4 * (_ACTOR_NAME.search(name) is not None) + 3 * (_ID_NAME.search(name) is not None)
        points += name.lower() in elsewhere
        points -= 6 * (field.unique and main.sample.rows > 2) + 2 * (field.distinct < 3)
        return points

    best = max(candidates, key=score)
    _widen(best)
    return best


def _request_id(main: Guess) -> Column | None:
    """The sender's own name of a request: another one in each row."""
    found = [
        column
        for column in main.columns
        if column is not main.key
        and column.required
        and column.is_key_type
        and column.field.unique
        and main.sample.rows > 1
        and _REQUEST_NAME.search(column.field.name) is not None
    ]
    return max(found, key=lambda column: _ID_NAME.search(column.field.name) is not None) if found else None


def _join(main: Guess, other: Guess) -> None:
    """The column that a dimension shares with the scored events, which is its key, too.

    It has the same name, or is the `id` of cards for card_id; else most of its values, which are no small numbers, are
    those of a column of the scored events.
    """
    pairs = [
        (left, right)
        for left in main.columns
        for right in other.columns
        if left.is_key_type and right.is_key_type and (left.table_type == "string") == (right.table_type == "string")
    ]
    named = [(left, right) for left, right in pairs if _same_name(main, left, other, right)]
    same = named or [(left, right) for left, right in pairs if _same_values(left.field, right.field)]
    keys = [column for column in other.columns if column.required and column.is_key_type]
    if same:
        best = max(same, key=lambda pair: _likeness(main, *pair))
        other.join = best
        for column in best:
            _widen(column)
    of_records = next((column for column in keys if column.field.is_key), None)
    if of_records is not None:
        other.key = of_records
    elif other.join is not None and other.join[1].required:
        other.key = other.join[1]
    else:
        ids = [column for column in keys if _ID_NAME.search(column.field.name) and column.field.unique]
        other.key = ids[0] if ids and other.sample.rows > 1 else None


def _same_name(main: Guess, left: Column, other: Guess, right: Column) -> bool:
    of_left, of_right = left.field.name.lower(), right.field.name.lower()
    stem = other.name.lower()
    if of_left == of_right:
        return left is main.key or _ID_NAME.search(of_right) is not None
    return of_right in ("id", "key", "no") and of_left in {
        f"{stem}_id",
        f"{stem.rstrip('s')}_id",
        f"{stem.rstrip('s')}id",
    }


def _same_values(left: Field, right: Field) -> bool:
    large = right.greatest is None or right.greatest >= _LARGE
    common = len(left.seen & right.seen)
    return large and common >= 10 and 2 * common >= min(left.distinct, right.distinct)


def _likeness(main: Guess, left: Column, right: Column) -> tuple[bool, bool, float, bool, int]:
    """How likely it is that two columns name the same things, to be compared: a record's key is one, and which of the
    values are on both sides tells more than how many there are."""
    common = len(left.field.seen & right.field.seen)
    share = common / max(1, min(left.field.distinct, right.field.distinct))
    sure = right.required and (left is main.key or right.field.is_key)
    return right.required, sure, round(share, 1), right.field.unique, right.field.distinct


def _widen(column: Column) -> None:
    """Keys that must equal one another are of one type."""
    if column.type == "int":
        column.type = "bigint"
