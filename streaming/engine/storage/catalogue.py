"""Databases and tables by name; and what an engine holds, described for those who ask from outside."""

from __future__ import annotations

from dataclasses import dataclass

from streaming.engine.errors import BadRow, error_at
from streaming.engine.storage.table import Column, Table
from streaming.engine.types import Type

__all__ = ["Catalogue", "DeploymentInfo", "IndexInfo", "TableInfo", "describe"]


class Catalogue:
    """The databases and tables of an engine.

    Attributes:
        databases: their names.
        database: the one in use, in which a table's name alone is looked up; '': none.
        tables: by (database, name), in the order in which they were made.
    """

    def __init__(self) -> None:
        self.databases: set[str] = set()
        self.database = ""
        self.tables: dict[tuple[str, str], Table] = {}

    def place(self, name: tuple[str, ...]) -> tuple[str, str]:
        """(database, name) of `name` or `database.name`, as a script writes it, whether it is there or not."""
        return (name[0], name[1]) if len(name) == 2 else (self.database, name[-1])

    def find(self, name: tuple[str, ...]) -> Table | None:
        """The table of a name; None where there is none."""
        database, table = name if len(name) == 2 else (self.database, name[-1])  # as `place`, in line: asked per insert
        return self.tables.get((database, table))

    def of_script(self, name: tuple[str, ...], script: str, at: int) -> Table:
        """The table of a name that stands at offset `at` of a script.

        Raises:
            UnsupportedSQL: there is none.
        """
        table = self.find(name)
        if table is None:
            raise error_at(script, at, f"unknown table {'.'.join(name)}")
        return table

    def of_call(self, name: str) -> Table:
        """The table `name` or `database.name`.

        Raises:
            BadRow: there is none.
        """
        table = self.find(tuple(name.split(".")))
        if table is None:
            raise BadRow(f"unknown table {name}")
        return table

    @property
    def words(self) -> int:
        """How many words the rows of all tables are."""
        return sum(table.count * table.width for table in self.tables.values())

    def described(self, database: str) -> list[TableInfo]:
        """The tables of a database, in the order in which they were made."""
        return [describe(table) for table in self.tables.values() if table.database == database]


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
        database, name: where it is found.
        columns: in order.
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
        database, name: where it is found.
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
