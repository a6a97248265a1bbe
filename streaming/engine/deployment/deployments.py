"""DEPLOY: a query compiled for requests, its indexes made, found by name from then on."""

from __future__ import annotations

from dataclasses import dataclass

from streaming.engine.deployment import ttl
from streaming.engine.deployment.long_windows import check_long_windows
from streaming.engine.errors import error_at
from streaming.engine.plan.select import plan
from streaming.engine.program.compiled_query import CompiledQuery, compile_query
from streaming.engine.sql import syntax
from streaming.engine.sql.parse import statement_text
from streaming.engine.storage.catalogue import Catalogue, DeploymentInfo
from streaming.engine.storage.retention import Constants, require_all_rows
from streaming.engine.storage.strings import StringPool
from streaming.engine.storage.table import Table

__all__ = ["Deployment", "Deployments"]


@dataclass(frozen=True)
class Deployment:
    """A deployment.

    Attributes:
        database, name: where it is found.
        sql: its DEPLOY statement as it was written.
        compiled: its query.
    """

    database: str
    name: str
    sql: str
    compiled: CompiledQuery

    @property
    def tables(self) -> list[Table]:
        """The table of its requests, and those that it reads."""
        return [self.compiled.table, *self.compiled.program.tables]


class Deployments:
    """The deployments of an engine.

    Args:
        catalogue: the tables that they may read.
        pool: the strings of these.
        portable: whether to refuse what OpenMLDB's compiler does not take.
    """

    def __init__(self, catalogue: Catalogue, pool: StringPool, *, portable: bool = False) -> None:
        self._portable = portable
        self._catalogue = catalogue
        self._pool = pool
        self._by_name: dict[tuple[str, str], Deployment] = {}

    def deploy(self, statement: syntax.Deploy, script: str) -> None:
        """Runs a DEPLOY: makes the deployment, and the indexes that it lacks.

        Raises:
            UnsupportedSQL: it is there already, or its query cannot be run.
        """
        database = self._catalogue.database
        if (database, statement.name) in self._by_name:
            if statement.if_not_exists:
                return
            raise error_at(script, statement.at, f"deployment {statement.name} exists already")
        query = plan(statement.select, script, database, self._catalogue.find, self._pool, portable=self._portable)
        compiled = compile_query(statement.name, query, strict=False)
        check_long_windows(statement, {compiled.table, *compiled.program.tables}, script)
        sql = statement_text(script, statement.at)
        try:
            ttls = ttl.derive_ttls(compiled.program, statement.options)
            declared = ttl.derive_ttls(compiled.program, statement.options, declared=True)
        except ValueError as error:
            raise error_at(script, statement.at, str(error)) from None
        keeps_declared = str(statement.options.get("skip_index_check", "")).lower() == "true"
        for use, limit, more in zip(compiled.program.indexes, ttls, declared, strict=True):
            existing = use.table.indexes.get((use.key, use.ts))
            derived = existing is None or existing.derived
            if not derived and keeps_declared:
                continue
            longer = limit if existing is None else ttl.merge_ttls(existing.ttl, limit if derived else more)
            if existing is None or longer != existing.ttl:
                require_all_rows(use.table, use.key, use.ts, script, statement.at)
            made = use.table.index(use.key, use.ts)
            made.ttl, made.derived = longer, derived
            made.version += 1
        compiled.indexes = [use.table.index(use.key, use.ts) for use in compiled.program.indexes]
        self._by_name[database, statement.name] = Deployment(database, statement.name, sql, compiled)

    def drop(self, name: tuple[str, ...]) -> bool:
        """Forgets a deployment, `name` or `database.name`; whether there was one."""
        return self._by_name.pop(self._catalogue.place(name), None) is not None

    def find(self, name: str) -> Deployment:
        """The deployment `name` (of the database in use, or the only one of that name) or `database.name`.

        Raises:
            KeyError: there is none.
        """
        database, _, bare = name.rpartition(".")
        found = self._by_name.get((database or self._catalogue.database, bare))
        if found is None and not database:
            named = [deployment for deployment in self._by_name.values() if deployment.name == bare]
            found = named[0] if len(named) == 1 else None
        if found is None:
            raise KeyError(f"unknown deployment {name}")
        return found

    def that_use(self, table: Table) -> list[str]:
        """The names of the deployments that read a table, or whose requests are like its rows."""
        return [deployment.name for deployment in self._by_name.values() if table in deployment.tables]

    def have_index_of(self, table: Table) -> bool:
        """Whether a deployment finds rows of a table."""
        return any(use.table is table for d in self._by_name.values() for use in d.compiled.program.indexes)

    def constants(self) -> list[Constants]:
        """The constants of every deployment's program."""
        programs = [deployment.compiled.program for deployment in self._by_name.values()]
        return [(program.constants, program.constant_texts) for program in programs]

    def described(self, database: str) -> list[DeploymentInfo]:
        """The deployments of a database, in the order in which they were made."""
        return [
            DeploymentInfo(
                d.database,
                d.name,
                d.sql,
                d.compiled.table.columns,
                tuple((output.name, output.node.type) for output in d.compiled.query.outputs),
                tuple(sorted({(table.database, table.name) for table in d.tables})),
            )
            for d in self._by_name.values()
            if d.database == database
        ]
