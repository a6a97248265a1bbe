"""The engine: statements, tables and deployments, and who may see which rows.

One thread at a time may use an engine: rows, indexes and the workspace of the kernels are shared and not locked.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.engine.deployment import ttl
from streaming.engine.deployment.answer_shape import Shape, shape
from streaming.engine.deployment.explain import explain
from streaming.engine.deployment.long_windows import check_long_windows
from streaming.engine.errors import BadRow, UnsupportedSQL, point
from streaming.engine.kernels.arrow_results import Assembler
from streaming.engine.kernels.instructions import Op
from streaming.engine.plan.nodes import Base
from streaming.engine.plan.nodes import Column as ColumnNode
from streaming.engine.plan.select import Query, plan
from streaming.engine.program.compiler import emit
from streaming.engine.program.offline import as_of
from streaming.engine.program.runner import Deployment, Runner, wall_clock
from streaming.engine.sql import syntax as s
from streaming.engine.sql.parse import parse, parse_select, statement_text
from streaming.engine.statements import outfile as files
from streaming.engine.statements.define import declare, new_table, values, whole
from streaming.engine.statements.file_reach import Folders
from streaming.engine.statements.load_data import load
from streaming.engine.storage.catalogue import DeploymentInfo, TableInfo, describe
from streaming.engine.storage.duplicates import absent
from streaming.engine.storage.expiry import collect_strings, expired, expires, remove
from streaming.engine.storage.rows import encode, schema_of
from streaming.engine.storage.snapshot import Capture, Restore
from streaming.engine.storage.strings import Pool
from streaming.engine.storage.table import FREE_FROM, Column, Table, check_times
from streaming.engine.types import Type
from streaming.files.tables import BadFile, load_options, outfile_options

__all__ = ["Engine", "Mark", "TableStats"]

Int64 = npt.NDArray[np.int64]

# Strings of requests that may stay in the pool between calls: the same ones come again and again.
_PASSING = 1 << 16


@dataclass(frozen=True, eq=False)
class Mark:
    """A moment in an engine's life: how many rows each table had, of those that are there still."""

    counts: dict[str, int]


@dataclass(frozen=True)
class TableStats:
    """Size of a table: `rows`, and `bytes` allocated for rows and indexes."""

    rows: int
    bytes: int


class Engine:
    """OpenMLDB's online feature store in one process.

    Args:
        paths: prefixes of the paths in LOAD DATA INFILE and INTO OUTFILE, and the folders that stand for them.
        clock: the time by which rows live, in epoch milliseconds.
    """

    def __init__(self, paths: Mapping[str, str] | None = None, clock: Callable[[], int] = wall_clock) -> None:
        self._paths = dict(paths or {})
        self._folders: Folders | None = None  # none: as far as this process's user can reach
        self._clock = clock
        self._pool = Pool()
        self._databases: set[str] = set()
        self._database = ""
        self._tables: dict[tuple[str, str], Table] = {}
        self._deployments: dict[tuple[str, str], Deployment] = {}
        self._runner = Runner(self._pool, clock)
        self.pinned = 0  # while above 0, no row moves and no string gets another code
        self._marks: weakref.WeakSet[Mark] = weakref.WeakSet()
        self._dropped = 0  # words of rows that left since strings were last collected
        self._strings = 0  # how many strings there were after that
        self._lasting: int | None = None  # strings that stay, while the pool holds some of requests, too

    # -- statements ------------------------------------------------------------------------------------------------

    def execute(self, script: str) -> None:
        """Runs the statements of a script, in order; a SELECT among them is planned (and so checked), not answered.

        Raises:
            UnsupportedSQL: a statement is wrong or outside the dialect. Those before it have run.
            BadRow: an INSERT or a file has a row that its table refuses.
        """
        statements = parse(script)
        self._forget()
        for statement in statements:
            self._statement(statement, script)
        self._make_room(self._tables.values())

    def _statement(self, statement: s.Statement, script: str) -> None:
        if isinstance(statement, s.CreateDatabase):
            if statement.name in self._databases and not statement.if_not_exists:
                raise point(script, statement.at, f"database {statement.name} exists already")
            self._databases.add(statement.name)
        elif isinstance(statement, s.Use):
            if statement.name not in self._databases:
                raise point(script, statement.at, f"unknown database {statement.name}")
            self._database = statement.name
        elif isinstance(statement, s.CreateTable):
            self._create_table(statement, script)
        elif isinstance(statement, s.CreateIndex):
            table = self._table(statement.table, script, statement.at)
            declare(table, statement.index, script)
        elif isinstance(statement, s.Insert):
            self._insert_values(statement, script)
        elif isinstance(statement, s.Deploy):
            self._deploy(statement, script)
        elif isinstance(statement, s.Drop):
            self._drop(statement, script)
        elif isinstance(statement, s.LoadData):
            self._load(statement, script)
        elif isinstance(statement, s.Outfile):
            self._write(statement, script)
        elif isinstance(statement, s.Select):
            self._plan(statement, script)
        # SET: one process has no execution modes, and every job is synchronous

    def confine(self, folders: Iterable[Path]) -> None:
        """From now on statements touch only files below `folders`, for whoever may run statements but not more."""
        self._folders = Folders(folders)

    def reach(self, statement: s.LoadData | s.Outfile) -> str:
        """The path of the file, folder or pattern that a statement touches: all of them ask here.

        Raises:
            OutOfReach: it lies outside of the folders of `confine`.
        """
        path = files.resolve(statement.path, self._paths)
        if self._folders is None:
            return path
        return self._folders.to_write(path) if isinstance(statement, s.Outfile) else self._folders.to_read(path)

    def _find(self, name: tuple[str, ...]) -> Table | None:
        database, table = name if len(name) == 2 else (self._database, name[-1])
        return self._tables.get((database, table))

    def _table(self, name: tuple[str, ...], script: str, at: int) -> Table:
        table = self._find(name)
        if table is None:
            raise point(script, at, f"unknown table {'.'.join(name)}")
        return table

    def _create_table(self, statement: s.CreateTable, script: str) -> None:
        if self._find(statement.name) is not None:
            if statement.if_not_exists:
                return
            raise point(script, statement.at, f"table {'.'.join(statement.name)} exists already")
        database = statement.name[0] if len(statement.name) == 2 else self._database
        if database and database not in self._databases:
            raise point(script, statement.at, f"unknown database {database}")
        table = new_table(statement, database, script)
        self._tables[database, table.name] = table

    def _insert_values(self, statement: s.Insert, script: str) -> None:
        table = self._table(statement.table, script, statement.at)
        rows = values(statement, table, script, self._pool)
        block = encode(table.name, table.columns, rows, self._pool)
        table.append(absent(table, block) if statement.ignore else block)

    def _drop(self, statement: s.Drop, script: str) -> None:
        name = statement.name[-1]
        if statement.kind == "table":
            table = self._find(statement.name)
            if table is not None:
                used = [d.name for d in self._deployments.values() if table in d.program.tables or table is d.table]
                if used:
                    raise point(script, statement.at, f"table {name} is used by deployment {used[0]}")
                del self._tables[table.database, table.name]
                self._dropped += table.count * table.width
            found = table is not None
        elif statement.kind == "deployment":
            database = statement.name[0] if len(statement.name) == 2 else self._database
            found = self._deployments.pop((database, name), None) is not None
        elif statement.kind == "database":
            found = name in self._databases
            if any(database == name for database, _ in self._tables):
                raise point(script, statement.at, f"database {name} still has tables")
            self._databases.discard(name)
        else:
            raise point(script, statement.at, "unsupported: DROP INDEX")
        if not found and not statement.if_exists:
            raise point(script, statement.at, f"unknown {statement.kind} {'.'.join(statement.name)}")

    def _load(self, statement: s.LoadData, script: str) -> None:
        place = self.reach(statement)
        table = self._table(statement.table, script, statement.at)
        try:
            options = load_options(statement.options)
        except BadFile as error:
            raise BadRow(f"LOAD DATA INTO TABLE {table.name}: {error}") from None
        if options.mode == "error_if_exists" and table.count and "mode" in statement.options:
            raise point(script, statement.at, f"table {table.name} is not empty (mode='error_if_exists')")
        self._dropped += load(table, place, options, self._pool)

    def _write(self, statement: s.Outfile, script: str) -> None:
        path = self.reach(statement)
        try:
            outfile_options(statement.options)  # before the query, which may take long
            answer = self._query(statement.select, script)
            files.write(answer, path, statement.options)
        except BadFile as error:
            raise BadRow(f"INTO OUTFILE '{statement.path}': {error}") from None

    # -- plans -----------------------------------------------------------------------------------------------------

    def _plan(self, select: s.Select, script: str) -> Query:
        return plan(select, script, self._database, self._find, self._pool)

    def _compile(self, name: str, query: Query, strict: bool, sql: str = "") -> Deployment:
        nodes = [output.node for output in query.outputs]
        if query.where is not None:
            nodes.append(query.where)
        program = emit(nodes, strict)
        assembler = Assembler([o.name for o in query.outputs], [o.node.type for o in query.outputs])
        no_limits = np.empty((0, len(program.indexes)), np.int64)
        registers = np.array([register & 0xFFFFF for register in program.outputs], np.int64)
        main = query.main or Base(Table("", "", ()))  # without FROM, no column of a request is read
        times = {g.own[g.time] for g in program.groups if g.time is not None}
        columns = tuple(sorted(t.position for t in times if isinstance(t, ColumnNode) and t.base is main))
        where = query.where is not None
        read = {int(column) for op, _, column in program.code[:, :3] if op == Op.LOAD}
        texts = {c for c, column in enumerate(main.table.columns) if column.type == Type.STRING}
        return Deployment(
            self._database,
            name,
            sql,
            query,
            program,
            main.table,
            assembler,
            registers,
            columns,
            where,
            [],
            no_limits,
            frozenset(texts - read),
        )

    def _deploy(self, statement: s.Deploy, script: str) -> None:
        if (self._database, statement.name) in self._deployments:
            if statement.if_not_exists:
                return
            raise point(script, statement.at, f"deployment {statement.name} exists already")
        query = self._plan(statement.select, script)
        check_long_windows(statement, script)
        deployment = self._compile(statement.name, query, strict=False, sql=statement_text(script, statement.at))
        try:
            ttls = ttl.derived(deployment.program, statement.options)
        except ValueError as error:
            raise point(script, statement.at, str(error)) from None
        for rows, limit in zip(deployment.program.indexes, ttls, strict=True):
            existing = rows.table.indexes.get((rows.key, rows.ts))
            if existing is not None and not existing.derived:
                continue  # the script said how long its rows live
            longer = limit if existing is None else ttl.merged(existing.ttl, limit)
            if existing is None or longer != existing.ttl:
                whole(rows.table, rows.key, rows.ts, script, statement.at)
            made = rows.table.index(rows.key, rows.ts)
            made.ttl, made.derived = longer, True
            made.version += 1
        deployment.indexes = [rows.table.index(rows.key, rows.ts) for rows in deployment.program.indexes]
        self._deployments[self._database, statement.name] = deployment

    def _deployment(self, name: str) -> Deployment:
        """The deployment `name` (of the database in use, or the only one of that name) or `db.name`."""
        database, _, bare = name.rpartition(".")
        found = self._deployments.get((database or self._database, bare))
        if found is None and not database:
            named = [deployment for deployment in self._deployments.values() if deployment.name == bare]
            found = named[0] if len(named) == 1 else None
        if found is None:
            raise KeyError(f"unknown deployment {name}")
        return found

    def _named(self, table: str) -> Table:
        found = self._find(tuple(table.split(".")))
        if found is None:
            raise BadRow(f"unknown table {table}")
        return found

    def schema(self, deployment: str) -> pa.Schema:
        """The columns that a deployment answers with."""
        return self._deployment(deployment).assembler.schema

    def request_schema(self, deployment: str) -> pa.Schema:
        """The columns of a deployment's request rows."""
        return schema_of(self._deployment(deployment).table.columns)

    def shape(self, deployment: str) -> Shape:
        """Which rows a deployment reads, and what its answers always show."""
        return shape(self._deployment(deployment).query)

    def table_schema(self, table: str) -> pa.Schema:
        """The columns of a table."""
        return schema_of(self._named(table).columns)

    def explain(self, sql: str) -> str:
        """What a SELECT, or the SELECT of a DEPLOY, would do: windows, joins, indexes, and what they share."""
        found = [statement for statement in parse(sql) if isinstance(statement, (s.Deploy, s.Select))]
        if not found:
            raise point(sql, 0, "nothing to explain: no SELECT and no DEPLOY")
        self._forget()
        mark, plans = self._pool.count, []
        try:
            for statement in found:
                deploy = statement if isinstance(statement, s.Deploy) else None
                query = self._plan(statement.select if isinstance(statement, s.Deploy) else statement, sql)
                program = emit([output.node for output in query.outputs], strict=False)
                plans.append(explain(query, program, ttl.derived(program, deploy.options if deploy else {})))
        finally:
            self._pool.truncate(mark)
        return "\n\n".join(plans)

    def databases(self) -> list[str]:
        """The databases, sorted."""
        return sorted(self._databases)

    def tables(self, database: str) -> list[TableInfo]:
        """The tables of a database, in the order in which they were made."""
        return [describe(table) for table in self._tables.values() if table.database == database]

    def deployments(self, database: str) -> list[DeploymentInfo]:
        """The deployments of a database, in the order in which they were made."""
        return [
            DeploymentInfo(
                d.database,
                d.name,
                d.sql,
                d.table.columns,
                tuple((output.name, output.node.type) for output in d.query.outputs),
                tuple(sorted({(t.database, t.name) for t in (d.table, *d.program.tables)})),
            )
            for d in self._deployments.values()
            if d.database == database
        ]

    def stats(self) -> dict[str, TableStats]:
        """Rows and bytes of every table, by name (`db.name`, or `name` outside a database)."""
        return {table.full_name: TableStats(table.count, table.nbytes) for table in self._tables.values()}

    def strings(self) -> TableStats:
        """How many texts tables and scripts hold, each once, and the bytes allocated for texts."""
        return TableStats(self._pool.count if self._lasting is None else self._lasting, self._pool.nbytes)

    # -- rows ------------------------------------------------------------------------------------------------------

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]] | pa.Table) -> None:
        """Adds rows to a table; all of them, or none.

        Args:
            table: `name` or `db.name`.
            rows: dicts by column name (what is left out is NULL or its default), or an Arrow table with every column.

        Raises:
            BadRow: names table, row number and column of what is wrong.
        """
        found = self._named(table)
        self._forget()
        found.append(encode(found.name, found.columns, rows, self._pool))
        self._make_room([found])

    def mark(self) -> Mark:
        """This moment, for `rollback`. As long as the mark is held, every row stays that was alive then."""
        mark = Mark({table.full_name: table.count for table in self._tables.values()})
        self._marks.add(mark)
        return mark

    def rollback(self, mark: Mark) -> None:
        """Forgets every row inserted since `mark`: answers are what they were then."""
        for table in self._tables.values():
            count = mark.counts.get(table.full_name, 0)
            self._dropped += max(0, table.count - count) * table.width
            table.truncate(count)

    # -- memory ----------------------------------------------------------------------------------------------------

    def free(self) -> int:
        """Gives back the memory of every row and string that no request can see any more; returns the rows freed.

        Inserts do it by themselves when a quarter of a table's rows, or half of the strings, may be freed. Offline,
        nothing expires: a table loses rows only after a deployment reads it, and no `query` may read it from then on.
        """
        self._forget()
        if self.pinned:
            return 0
        freed = sum(self._free_rows(table, 1) for table in self._tables.values())
        self._collect()
        return freed

    def _make_room(self, tables: Iterable[Table]) -> None:
        if self.pinned:
            return
        for table in tables:
            if table.count >= table.free_at:
                self._free_rows(table, table.count // 4)
        # many words have left, beside those that are there: each may have been the last one to hold its string
        grown = self._pool.count > 2 * self._strings + FREE_FROM
        if grown and self._dropped > sum(table.count * table.width for table in self._tables.values()) // 2:
            self._collect()

    def _free_rows(self, table: Table, least: int) -> int:
        """Frees the rows of a table that are past their time to live, if they are so many; returns how many."""
        freed = 0
        online = any(rows.table is table for d in self._deployments.values() for rows in d.program.indexes)
        if online and table.count and expires(table):
            name = table.full_name
            marks = [(mark, mark.counts.get(name, 0)) for mark in self._marks]
            gone = expired(table, self._clock(), [count for _, count in marks])
            if least <= int(gone.sum()):
                for mark, count in marks:
                    if count:
                        mark.counts[name] = count - int(gone[:count].sum())
                before = table.count
                remove(table, gone)
                freed = before - table.count
                self._dropped += freed * table.width
        table.free_at = table.count + max(table.count // 2, FREE_FROM)
        return freed

    def _collect(self) -> None:
        constants = [(d.program.constants, d.program.constant_texts) for d in self._deployments.values()]
        collect_strings(self._pool, list(self._tables.values()), constants)
        self._dropped, self._strings = 0, self._pool.count

    def capture(self, mark: Mark) -> Capture:
        """The rows of `mark`, to be read bit by bit while inserts go on; see `Capture`."""
        self._forget()
        return Capture(self, [(table.full_name, table) for table in self._tables.values()], self._pool, mark)

    def restore(self) -> Restore:
        """Takes the rows of a capture; see `Restore`."""
        self._forget()
        return Restore([(table.full_name, table) for table in self._tables.values()], self._pool)

    # -- answers ---------------------------------------------------------------------------------------------------

    def request(self, deployment: str, rows: Sequence[Mapping[str, Any]] | pa.Table) -> pa.Table:
        """Answers request rows, each by itself, over what is in the tables now.

        Returns:
            A row per request row, in order (without those that the deployment's WHERE drops). Request rows are not
            inserted, and do not see each other.

        Raises:
            KeyError: no such deployment.
            BadRow: a value of the wrong type, or a time that is NULL or negative.
        """
        found = self._deployment(deployment)
        if self._lasting is None:
            self._lasting = self._pool.count
        elif self._pool.count - self._lasting > _PASSING:
            self._pool.truncate(self._lasting)
        return self._runner.answer(found, self._requests(found, rows), found.no_limits)

    def _forget(self) -> None:
        """Drops the strings that only requests brought, before strings come that stay."""
        if self._lasting is not None:
            self._pool.truncate(self._lasting)
            self._lasting = None

    def _requests(
        self, deployment: Deployment, rows: Sequence[Mapping[str, Any]] | pa.Table, packed: Int64 | None = None
    ) -> Int64:
        """The words of request rows, which may be known already, their times checked."""
        table = deployment.table
        if not table.columns:
            return np.zeros((rows.num_rows if isinstance(rows, pa.Table) else len(rows), 0), np.int64)
        what = f"request of {deployment.name}"
        if packed is None:
            packed = encode(what, table.columns, rows, self._pool, deployment.unread)
        check_times(what, table.columns, packed, deployment.time_columns, "a window's time")
        return packed

    def replay(
        self,
        deployment: str,
        requests: pa.Table | Sequence[Mapping[str, Any]],
        inserts: Mapping[str, pa.Table | Sequence[Mapping[str, Any]]],
        request_at: npt.ArrayLike,
        insert_at: Mapping[str, npt.ArrayLike],
    ) -> pa.Table:
        """Answers requests as if inserts and requests came one by one, in order of their positions.

        Args:
            requests: n request rows.
            inserts: rows by table.
            request_at: int64[n]: request i sees what was there before the call, and every row of `inserts` whose
                position is less than request_at[i].
            insert_at: the positions of each table's rows.

        Returns:
            A row per request, in order. All rows of `inserts` are in their tables afterwards; requests are not.

        Raises:
            BadRow: nothing was inserted then.
            ValueError: lengths that differ, or a deployment with a WHERE.
        """
        found = self._deployment(deployment)
        if found.where:
            raise ValueError(f"{deployment} has a WHERE: its answers cannot be told apart by position")
        self._forget()
        at = np.asarray(request_at, np.int64)
        blocks: list[tuple[Table, Int64, Int64]] = []
        packed: Int64 | None = None
        for name, rows in inserts.items():
            table = self._named(name)
            block = encode(table.name, table.columns, rows, self._pool)
            if rows is requests and table is found.table:
                packed = block
            positions = np.asarray(insert_at[name], np.int64)
            if len(positions) != len(block):
                raise ValueError(f"{len(positions)} positions for {len(block)} rows of {name}")
            if len(positions) and (np.diff(positions) < 0).any():
                order = np.argsort(positions, kind="stable")
                positions, block = positions[order], block[order]
            blocks.append((table, block, positions))
        mark, texts = self.mark(), self._pool.count
        packed = self._requests(found, requests, packed)
        if len(packed) != len(at):
            raise ValueError(f"{len(at)} positions for {len(packed)} requests")
        try:
            limits = np.empty((len(at), len(found.indexes)), np.int64)
            before = {id(table): table.count for table, _, _ in blocks}
            for table, block, _ in blocks:
                table.append(block, link=False)
            for i, index in enumerate(found.indexes):
                limits[:, i] = index.table.count
                for table, _, positions in blocks:
                    if table is index.table:
                        limits[:, i] = before[id(table)] + np.searchsorted(positions, at, "left")
            order = np.argsort(at, kind="stable")
            answer = self._runner.answer(found, packed[order], limits[order])
            for table, _, _ in blocks:
                table.link()
        except BaseException:
            self.rollback(mark)
            raise
        finally:
            self._pool.truncate(texts)
        self._make_room([table for table, _, _ in blocks])
        if (np.diff(order) < 0).any():
            answer = answer.take(pa.array(np.argsort(order, kind="stable")))
        return answer

    def query(self, sql: str) -> pa.Table:
        """Answers a SELECT offline: a row per row of its main table, as of that row's own time.

        A row sees, of its own table, the rows before it in time (of equal times: inserted before it), and of the other
        tables of its windows those up to its time; joins see all rows. NULL join keys match nothing, as in OpenMLDB's
        batch engine.
        """
        return self._query(parse_select(sql), sql)

    def _query(self, select: s.Select, script: str) -> pa.Table:
        self._forget()
        query = self._plan(select, script)
        if query.online:
            what, at = query.online[0]
            raise point(script, at, f"unsupported: offline, {what}")
        if query.main is None:  # no FROM: one row
            one = Table("", "", [Column("", Type.BOOL)])
            one.append(np.zeros((1, one.width), np.int64))
            query = dataclasses.replace(query, main=Base(one))
        mark = self._pool.count
        deployment = self._compile("query", query, strict=True)
        if any(group.time is None for group in deployment.program.groups):
            at = next((window.at for _, window in select.windows if window.order is None), select.at)
            raise point(script, at, "unsupported: offline, a window without ORDER BY")
        table = deployment.table
        for source in [table, *deployment.program.tables, *(rows.table for rows in deployment.program.indexes)]:
            if source.freed:
                raise UnsupportedSQL(
                    f"{source.name}: {source.freed} rows whose time to live was over are gone, and offline nothing "
                    "expires: query an engine without the deployment that let them go"
                )
        try:
            check_times(table.name, table.columns, table.rows[: table.count], deployment.times, "a window's time")
            order, limits = as_of(deployment)
            answer = self._runner.answer(deployment, table.rows, limits, order)
        finally:
            self._pool.truncate(mark)
        if (np.diff(order) < 0).any():
            answer = answer.take(pa.array(np.argsort(order, kind="stable")))
        if query.limit is not None:
            answer = answer.slice(0, query.limit)
        return answer
