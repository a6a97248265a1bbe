"""What the fields of an application's scores are, and which dimension tables say more of them."""

from __future__ import annotations

from dataclasses import dataclass

from streaming.app.folder import App, names_in
from streaming.app.scores import score_roles
from streaming.app.settings import MODEL_VERSION, PROBABILITY
from streaming.engine.types import Type
from streaming.errors import ConfigError

__all__ = ["Join", "ScoreFields", "score_fields"]

_DECLARED = frozenset({Type.STRING, Type.BOOL, Type.SMALLINT, Type.INT})  # a bigint is a time or an amount, mostly


@dataclass(frozen=True)
class Join:
    """A dimension table whose row says more of a field.

    Attributes:
        field: of the score; its value is the row's key.
        table: in tables.sql.
        key: the table's column of it.
        columns: what it says in texts, small whole numbers and truths.
    """

    field: str
    table: str
    key: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class ScoreFields:
    """The fields of a score's JSON by what they are.

    Attributes:
        users: whose event it was.
        items: what the user may want; maybe none.
        probability: of the label.
        version: the model's; None: it is not in a score.
        request: names the request; None: nothing does.
        time: the event's, epoch milliseconds; None: it is not in a score.
        joins: what dimension tables say of users and items.
    """

    users: tuple[str, ...]
    items: tuple[str, ...]
    probability: str
    version: str | None
    request: str | None
    time: str | None
    joins: tuple[Join, ...]

    @property
    def pair(self) -> tuple[str, ...]:
        """What is ranked: users and items; the request where a score tells neither."""
        return (*self.users, *self.items) or ((self.request,) if self.request else ())


def score_fields(app: App) -> ScoreFields:
    """What [scores.fields], events.sql and the query say of the application's scores.

    Raises:
        ConfigError: a score has no probability, or does not say what it is of.
    """
    given = app.settings.scores.fields
    field_of = {column: field for field, column in reversed(given.items())}
    if PROBABILITY not in field_of:
        raise ConfigError(
            f"{app.folder / 'app.toml'}: [scores.fields] has no {PROBABILITY}: there is nothing to rank by"
        )
    roles = score_roles(app)
    users, items = (tuple(field_of[column] for column in columns) for columns in (roles.users, roles.items))
    fields = ScoreFields(
        users,
        items,
        field_of[PROBABILITY],
        field_of.get(MODEL_VERSION),
        field_of.get(app.settings.request.id),
        next((field for field, column in given.items() if column in _times(app)), None),
        _joins(app, {given[field]: field for field in (*users, *items)}),
    )
    if not fields.pair:
        raise ConfigError(f"{app.folder / 'app.toml'}: [scores.fields] says neither who nor what a score is of")
    return fields


def _times(app: App) -> set[str]:
    """The columns of the main table that hold the event's time as milliseconds."""
    kinds = {column.name: column.type for column in app.tables.columns[app.main]}
    made = {
        column
        for stream in app.scored
        for insert in stream.inserts
        if insert.table == app.main
        for column, expr in insert.columns
        if names_in(expr) == {stream.event_time}
    }
    return {column for column in made if kinds[column] in (Type.TIMESTAMP, Type.BIGINT)}


def _joins(app: App, fields: dict[str, str]) -> tuple[Join, ...]:
    """Dimension tables that the query looks up by a user or an item.

    Args:
        fields: column of the main table → field of the score.
    """
    filled = {insert.table for stream in app.dimensions for insert in stream.inserts}
    found: dict[str, Join] = {}
    for read in app.query.contract.reads:
        if read.table in found or read.table not in filled or len(read.columns) != 1:
            continue
        if len(read.request) != 1 or read.request[0] not in fields:
            continue
        times = app.times(read.table)
        columns = tuple(
            column.name
            for column in app.tables.columns[read.table]
            if column.type in _DECLARED and column.name not in (*read.columns, *times)
        )
        if columns:
            found[read.table] = Join(fields[read.request[0]], read.table, read.columns[0], columns)
    return tuple(found.values())
