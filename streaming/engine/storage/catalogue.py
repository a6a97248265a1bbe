"""What an engine holds, described for those who ask from outside: databases, tables, indexes, deployments."""

from __future__ import annotations

from dataclasses import dataclass

from streaming.engine.storage.table import Column, Table
from streaming.engine.types import Type

__all__ = ["DeploymentInfo", "IndexInfo", "TableInfo", "describe"]


@dataclass(frozen=True)
class IndexInfo:
    """An index.

    Attributes:
        key: its columns.
        ts: the column it is ordered by; None: by insertion.
        ttl_type: absolute, latest, absorlat or absandlat.
        ttl_ms, ttl_rows: the limits; 0: none.
    """

    key: tuple[str, ...]
    ts: str | None
    ttl_type: str
    ttl_ms: int
    ttl_rows: int


@dataclass(frozen=True)
class TableInfo:
    """A table; its indexes are those declared, then those that deployments made.

    Attributes:
        full_name: its name in `Engine.stats`.
    """

    database: str
    name: str
    full_name: str
    columns: tuple[Column, ...]
    indexes: tuple[IndexInfo, ...]


@dataclass(frozen=True)
class DeploymentInfo:
    """A deployment.

    Attributes:
        sql: its DEPLOY statement as it was written.
        request: the columns of a request row.
        answer: name and type of the columns that it answers with.
        tables: (database, table) of all that it reads, sorted.
    """

    database: str
    name: str
    sql: str
    request: tuple[Column, ...]
    answer: tuple[tuple[str, Type], ...]
    tables: tuple[tuple[str, str], ...]


def describe(table: Table) -> TableInfo:
    """The description of a table."""
    names = [column.name for column in table.columns]
    indexes = []
    for key, ts in dict.fromkeys([*table.declared, *table.indexes]):
        made = table.indexes.get((tuple(sorted(key)), ts))
        ms, rows, both = (0, 0, False) if made is None else made.ttl
        kind = ("absandlat" if both else "absorlat") if ms and rows else "latest" if rows else "absolute"
        info = IndexInfo(tuple(names[c] for c in key), None if ts < 0 else names[ts], kind, ms, rows)
        if info not in indexes:
            indexes.append(info)
    return TableInfo(table.database, table.name, table.full_name, table.columns, tuple(indexes))
