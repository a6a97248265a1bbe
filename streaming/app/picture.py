"""An application as a picture in text: events → tables → windows → features → label and scores."""

from __future__ import annotations

from collections.abc import Iterator

from streaming.app.folder import App
from streaming.app.settings import Label
from streaming.app.streams import Stream

__all__ = ["picture"]

_WIDTH = 110


def picture(app: App) -> str:
    """The picture, several lines; warnings last."""
    lines = [f"application {app.settings.name} (digest {app.digest[:12]}, time zone {app.settings.time_zone})"]
    lines += ["", "events → tables"]
    for stream in app.streams:
        lines += _stream(app, stream)
    lines += ["", "tables"]
    for table in app.query.tables:
        asked = ", the query's main table: its rows are the requests" if table.name == app.main else ""
        lines.append(f"  {table.name}: {len(table.columns)} columns{asked}")
    plan = app.query.plan.splitlines()
    lines += ["", "indexes"]
    lines += [f"  {line.removeprefix('index: ')}" for line in plan if line.startswith("index: ")]
    lines += ["", "windows and joins"]
    lines += [f"  {line}" for line in plan if not line.startswith(("main table", "index: ", "instructions"))]
    features = app.features
    lines += ["", f"features: {len(features)} of the query's {len(app.query.columns)} columns"]
    kinds = dict(app.query.columns)
    lines += _wrapped([f"{name} {kinds[name]}" for name in features])
    lines += ["", f"label: {_label(app.settings.label)}"]
    fields = ", ".join(f"{name} = {value}" for name, value in app.settings.scores.fields.items())
    lines.append(f"scores: topic {app.settings.scores.topic}: {fields}")
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


def _wrapped(words: list[str]) -> list[str]:
    """The words, with commas between them, on lines of at most `_WIDTH` characters where they fit."""
    lines = [" "]
    for i, word in enumerate(words):
        shown = word + ("," if i < len(words) - 1 else "")
        if len(lines[-1]) + len(shown) + 1 > _WIDTH and lines[-1].strip():
            lines.append(" ")
        lines[-1] += f" {shown}"
    return lines
