"""Runs the statements of a script, one by one: each goes to the module or room that does it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from streaming.engine.deployment.deployments import Deployments
from streaming.engine.errors import BadRow, error_at
from streaming.engine.plan.select import plan
from streaming.engine.program.offline import OfflineAnswer
from streaming.engine.sql import syntax
from streaming.engine.statements import outfile
from streaming.engine.statements.create_tables import add_index, new_table
from streaming.engine.statements.file_reach import AllowedFolders
from streaming.engine.statements.insert_values import rows_of
from streaming.engine.statements.load_data import load
from streaming.engine.storage.catalogue import Catalogue
from streaming.engine.storage.duplicates import without_duplicates
from streaming.engine.storage.retention import Retention
from streaming.engine.storage.rows import encode
from streaming.engine.storage.strings import StringPool
from streaming.files.tables import BadFile, load_options, outfile_options

__all__ = ["StatementRunner"]


class StatementRunner:
    """Runs statements on the tables and deployments of an engine.

    Args:
        catalogue: the tables.
        deployments: the deployments.
        pool: the strings.
        retention: told of the rows that leave.
        query: answers a SELECT offline: of its tree and the script that this is from.
        paths: prefixes of the paths in LOAD DATA INFILE and INTO OUTFILE, and the folders that stand for them.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        deployments: Deployments,
        pool: StringPool,
        retention: Retention,
        query: Callable[[syntax.Select, str], OfflineAnswer],
        paths: Mapping[str, str],
    ) -> None:
        self._catalogue = catalogue
        self._deployments = deployments
        self._pool = pool
        self._retention = retention
        self._query = query
        self._paths = dict(paths)
        self._folders: AllowedFolders | None = None  # none: as far as this process's user can reach

    def run(self, statement: syntax.Statement, script: str) -> None:
        """Runs one statement; a SELECT is planned (and so checked), not answered.

        Args:
            statement: its tree.
            script: the text that it is from, for messages.

        Raises:
            UnsupportedSQL: it is wrong or outside the dialect.
            BadRow: an INSERT or a file has a row that its table refuses.
        """
        catalogue = self._catalogue
        if isinstance(statement, syntax.CreateDatabase):
            if statement.name in catalogue.databases and not statement.if_not_exists:
                raise error_at(script, statement.at, f"database {statement.name} exists already")
            catalogue.databases.add(statement.name)
        elif isinstance(statement, syntax.Use):
            if statement.name not in catalogue.databases:
                raise error_at(script, statement.at, f"unknown database {statement.name}")
            catalogue.database = statement.name
        elif isinstance(statement, syntax.CreateTable):
            self._create_table(statement, script)
        elif isinstance(statement, syntax.CreateIndex):
            table = catalogue.of_script(statement.table, script, statement.at)
            add_index(table, statement.index, script)
        elif isinstance(statement, syntax.Insert):
            self._insert(statement, script)
        elif isinstance(statement, syntax.Deploy):
            self._deployments.deploy(statement, script)
        elif isinstance(statement, syntax.Drop):
            self._drop(statement, script)
        elif isinstance(statement, syntax.LoadData):
            self._load(statement, script)
        elif isinstance(statement, syntax.Outfile):
            self._write(statement, script)
        elif isinstance(statement, syntax.Select):
            plan(statement, script, catalogue.database, catalogue.find, self._pool)
        # SET: one process has no execution modes, and every job is synchronous

    def confine(self, folders: Iterable[Path]) -> None:
        """From now on statements touch only files below `folders`."""
        self._folders = AllowedFolders(folders)

    def reach(self, statement: syntax.LoadData | syntax.Outfile) -> str:
        """The path of the file, folder or pattern that a statement touches: all of them ask here.

        Raises:
            OutOfReach: it lies outside of the folders of `confine`.
        """
        path = outfile.resolve(statement.path, self._paths)
        if self._folders is None:
            return path
        writes = isinstance(statement, syntax.Outfile)
        return self._folders.to_write(path) if writes else self._folders.to_read(path)

    def _create_table(self, statement: syntax.CreateTable, script: str) -> None:
        catalogue = self._catalogue
        if catalogue.find(statement.name) is not None:
            if statement.if_not_exists:
                return
            raise error_at(script, statement.at, f"table {'.'.join(statement.name)} exists already")
        database, _ = catalogue.place(statement.name)
        if database and database not in catalogue.databases:
            raise error_at(script, statement.at, f"unknown database {database}")
        table = new_table(statement, database, script)
        catalogue.tables[database, table.name] = table

    def _insert(self, statement: syntax.Insert, script: str) -> None:
        table = self._catalogue.of_script(statement.table, script, statement.at)
        rows = rows_of(statement, table, script)
        words = encode(table.name, table.columns, rows, self._pool)
        table.append(without_duplicates(table, words) if statement.ignore else words)

    def _drop(self, statement: syntax.Drop, script: str) -> None:
        catalogue, name = self._catalogue, statement.name[-1]
        if statement.kind == "table":
            table = catalogue.find(statement.name)
            if table is not None:
                users = self._deployments.that_use(table)
                if users:
                    raise error_at(script, statement.at, f"table {name} is used by deployment {users[0]}")
                del catalogue.tables[table.database, table.name]
                self._retention.note_gone(table.count * table.width)
            found = table is not None
        elif statement.kind == "deployment":
            found = self._deployments.drop(statement.name)
        elif statement.kind == "database":
            found = name in catalogue.databases
            if any(database == name for database, _ in catalogue.tables):
                raise error_at(script, statement.at, f"database {name} still has tables")
            catalogue.databases.discard(name)
        else:
            raise error_at(script, statement.at, "unsupported: DROP INDEX")
        if not found and not statement.if_exists:
            raise error_at(script, statement.at, f"unknown {statement.kind} {'.'.join(statement.name)}")

    def _load(self, statement: syntax.LoadData, script: str) -> None:
        path = self.reach(statement)
        table = self._catalogue.of_script(statement.table, script, statement.at)
        try:
            options = load_options(statement.options)
        except BadFile as error:
            raise BadRow(f"LOAD DATA INTO TABLE {table.name}: {error}") from None
        if options.mode == "error_if_exists" and table.count and "mode" in statement.options:
            raise error_at(script, statement.at, f"table {table.name} is not empty (mode='error_if_exists')")
        self._retention.note_gone(load(table, path, options, self._pool))

    def _write(self, statement: syntax.Outfile, script: str) -> None:
        path = self.reach(statement)
        try:
            outfile_options(statement.options)  # before the query, which may take long
            answer = self._query(statement.select, script)
            outfile.write(answer, path, statement.options)
        except BadFile as error:
            raise BadRow(f"INTO OUTFILE '{statement.path}': {error}") from None
