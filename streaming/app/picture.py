"""An application as a picture in text: events → tables → windows → features → label and scores."""

from __future__ import annotations

from collections.abc import Iterator

from streaming.app.folder import App
from streaming.app.settings import Label
from streaming.app.streams import Stream

__all__ = ["picture"]

WORD_BYTES = 8  # of a value in a table; a text is a number there
ENTRY_BYTES = 16  # of a row in an index: the next older one, and its time
SLOTS = 2  # of the hash table, for each key: it doubles when it is full


def picture(app: App) -> str:
    """The picture, several lines; warnings last."""
    lines = [f"application {app.settings.name} (digest {app.digest[:12]}, time zone {app.settings.time_zone})"]
    lines += ["", "events → tables"]
    for stream in app.streams:
        lines += _stream(app, stream)
    lines += ["", "tables"]
    for table in app.query.tables:
        asked = ", the query's main table: its rows are the requests" if table.name == app.main else ""
        held = f"{WORD_BYTES * len(table.columns)} bytes a row, and each different text once"
        lines.append(f"  {table.name}: {len(table.columns)} columns, {held}{asked}")
    plan = app.query.plan.splitlines()
    lines += ["", "indexes"]
    shown = [line.removeprefix("index: ") for line in plan if line.startswith("index: ")]
    lines += [f"  {line}; {_cost(line)}" for line in shown]
    lines += ["", "windows and joins"]
    lines += [f"  {line}" for line in plan if not line.startswith(("main table", "index: ", "instructions"))]
    fields = app.encoder_fields
    used = len({field.column for field in fields})
    lines += [
        "",
        f"features: {used} of the query's {len(app.query.columns)} columns, as {len(fields)} fields of the model",
    ]
    types = dict(app.query.columns)
    lines += [
        f"  {field.name}: {field.kind}{f' {field.place}' if field.place else ''} of a {types[field.column]}"
        f"{'' if field.name == field.column else f', {field.column}'}"
        for field in fields
    ]
    lines += ["", f"label: {_label(app.settings.label)}"]
    scores = ", ".join(f"{name} = {value}" for name, value in app.settings.scores.fields.items())
    lines.append(f"scores: topic {app.settings.scores.topic}: {scores}")
    lines += [f"warning: {warning}" for warning in app.warnings]
    return "\n".join(lines)


def _stream(app: App, stream: Stream) -> Iterator[str]:
    key = "no key" if stream.key is None else f"key {stream.key}"
    read = "scored" if stream.scored else "read by partition" if stream.partitioned else "read whole by every scorer"
    yield f"  {stream.name}: topic {stream.topic}, {key}, event time {stream.event_time}, {read}"
    for column in stream.columns:
        limits = "" if column.length_max is None else f"({column.length_max})"
        yield f"    │ {column.name} {column.type}{limits}{'' if column.nullable else ' NOT NULL'}"
    for check in stream.checks:
        yield f"    │ {f'{check.name}: ' if check.name else ''}CHECK ({check.text})"
    for insert in stream.inserts:
        last = insert is stream.inserts[-1]
        some = "" if insert.where is None else ", some of them"
        filled = f"{len(insert.columns)} of {len(app.tables.columns[insert.table])} columns"
        yield f"    {'└' if last else '├'}─► {insert.table} ({filled}{some})"


def _label(label: Label) -> str:
    ways = []
    if label.column is not None:
        ways.append(f"column {label.column} of the query")
    if label.joined is not None:
        ways.append(f"column {label.joined.column} of {label.joined.table}")
    if label.later_event is not None:
        later = label.later_event
        ways.append(
            f"a row of {later.table} with {later.condition} of the same {', '.join(later.key)} in {later.horizon}"
        )
    return "; where that is NULL throughout, ".join(ways)


def _cost(index: str) -> str:
    """What an index of the embedded engine takes; arrays grow by doubling, so up to twice as much.

    Args:
        index: as the plan shows it: `table (key a|b, ts c), …`.
    """
    columns = index.partition("(key ")[2].partition(")")[0].partition(", ts ")[0]
    key_bytes = WORD_BYTES * (len(columns.split("|")) + 1 + 1 + SLOTS)
    return f"{ENTRY_BYTES} bytes a row and {key_bytes} a key"
