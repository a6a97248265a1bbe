"""The engine: one object for what its rooms do, and the strings that only requests bring.

One thread at a time may use an engine: rows, indexes and the workspace of the kernels are shared and not locked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.engine.deployment import ttl
from streaming.engine.deployment.contract import Contract, contract_of
from streaming.engine.deployment.deployments import Deployments
from streaming.engine.deployment.explain import explain
from streaming.engine.errors import error_at
from streaming.engine.plan.portable import check_names
from streaming.engine.plan.select import Query, plan
from streaming.engine.program.compiled_query import request_words
from streaming.engine.program.compiler import compile_program
from streaming.engine.program.offline import OfflineAnswer, Progress, answer_offline
from streaming.engine.program.replay import Insertion, answer_replay, in_order_of_position
from streaming.engine.program.runner import Runner, wall_clock
from streaming.engine.sql import syntax
from streaming.engine.sql.parse import parse, parse_select
from streaming.engine.statements.execute import StatementRunner
from streaming.engine.storage.catalogue import Catalogue, DeploymentInfo, TableInfo
from streaming.engine.storage.retention import Mark, Retention
from streaming.engine.storage.rows import encode, schema_of
from streaming.engine.storage.snapshot import Capture, Restore
from streaming.engine.storage.strings import StringPool
from streaming.engine.types import NULLS_PER_WORD, Type

__all__ = ["Engine", "Mark", "TableStats"]

Int64 = npt.NDArray[np.int64]

# Strings of requests that may stay in the pool between calls: the same ones come again and again.
_REQUEST_STRINGS_MAX = 1 << 16


@dataclass(frozen=True)
class TableStats:
    """Size of a table.

    Attributes:
        rows: how many rows it has.
        bytes: what is allocated for rows and indexes.
    """

    rows: int
    bytes: int


class Engine:
    """OpenMLDB's online feature store in one process.

    Args:
        paths: prefixes of the paths in LOAD DATA INFILE and INTO OUTFILE, and the folders that stand for them.
        clock: the time by which rows live, in epoch milliseconds.
        portable: whether tables, deployments and plans refuse what OpenMLDB's compiler does not take, though the engine
            would answer it: for scripts that a cluster shall run.
        progress: told while a SELECT is answered offline: rows of its main table that are done, and all of them.
    """

    def __init__(
        self,
        paths: Mapping[str, str] | None = None,
        clock: Callable[[], int] = wall_clock,
        *,
        portable: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self._portable = portable
        self._progress = progress
        self._pool = StringPool()
        self._lasting: int | None = None  # strings that stay, while the pool holds some of requests, too
        self._catalogue = Catalogue()
        self._deployments = Deployments(self._catalogue, self._pool, portable=portable)
        self._runner = Runner(self._pool, clock)
        self._retention = Retention(
            self._catalogue, self._pool, clock, self._deployments.have_index_of, self._deployments.constants
        )
        self._statements = StatementRunner(
            self._catalogue, self._deployments, self._pool, self._retention, self._answer_offline, paths or {}
        )

    # -- statements ------------------------------------------------------------------------------------------------

    def execute(self, script: str) -> None:
        """Runs the statements of a script, in order; a SELECT among them is planned (and so checked), not answered.

        Raises:
            UnsupportedSQL: a statement is wrong or outside the dialect. Those before it have run.
            BadRow: an INSERT or a file has a row that its table refuses.
        """
        statements = parse(script)
        self._forget_request_strings()
        for statement in statements:
            if self._portable and isinstance(statement, syntax.CreateTable):
                check_names(statement, script)
            self._statements.run(statement, script)
        self._retention.make_room(self._catalogue.tables.values())

    def confine(self, folders: Iterable[Path]) -> None:
        """From now on statements touch only files below `folders`, for whoever may run statements but not more."""
        self._statements.confine(folders)

    def reach(self, statement: syntax.LoadData | syntax.Outfile) -> str:
        """The path of the file, folder or pattern that a statement touches.

        Raises:
            OutOfReach: it lies outside of the folders of `confine`.
        """
        return self._statements.reach(statement)

    def explain(self, sql: str) -> str:
        """What a SELECT, or the SELECT of a DEPLOY, would do: windows, joins, indexes, and what they share."""
        found = [statement for statement in parse(sql) if isinstance(statement, (syntax.Deploy, syntax.Select))]
        if not found:
            raise error_at(sql, 0, "nothing to explain: no SELECT and no DEPLOY")
        self._forget_request_strings()
        texts, plans = self._pool.count, []
        try:
            for statement in found:
                deploy = statement if isinstance(statement, syntax.Deploy) else None
                select = statement.select if isinstance(statement, syntax.Deploy) else statement
                query = self._plan(select, sql, portable=self._portable)
                program = compile_program([output.node for output in query.outputs], strict=False)
                plans.append(explain(query, program, ttl.derive_ttls(program, deploy.options if deploy else {})))
        finally:
            self._pool.truncate(texts)
        return "\n\n".join(plans)

    def _plan(self, select: syntax.Select, script: str, *, portable: bool = False) -> Query:
        catalogue = self._catalogue
        return plan(select, script, catalogue.database, catalogue.find, self._pool, portable=portable)

    # -- what there is ---------------------------------------------------------------------------------------------

    def schema(self, deployment: str) -> pa.Schema:
        """The columns that a deployment answers with."""
        return self._deployments.find(deployment).compiled.assembler.schema

    def request_schema(self, deployment: str) -> pa.Schema:
        """The columns of a deployment's request rows."""
        return schema_of(self._deployments.find(deployment).compiled.table.columns)

    def contract(self, deployment: str) -> Contract:
        """Which rows a deployment reads, and what its answers always show."""
        return contract_of(self._deployments.find(deployment).compiled.query)

    def table_schema(self, table: str) -> pa.Schema:
        """The columns of a table."""
        return schema_of(self._catalogue.of_call(table).columns)

    def databases(self) -> list[str]:
        """The databases, sorted."""
        return sorted(self._catalogue.databases)

    def tables(self, database: str) -> list[TableInfo]:
        """The tables of a database, in the order in which they were made."""
        return self._catalogue.described(database)

    def deployments(self, database: str) -> list[DeploymentInfo]:
        """The deployments of a database, in the order in which they were made."""
        return self._deployments.described(database)

    def stats(self) -> dict[str, TableStats]:
        """Rows and bytes of every table, by name (`db.name`, or `name` outside a database)."""
        return {table.full_name: TableStats(table.count, table.nbytes) for table in self._catalogue.tables.values()}

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
        found = self._catalogue.of_call(table)
        self._forget_request_strings()
        found.append(encode(found.name, found.columns, rows, self._pool))
        self._retention.make_room([found])

    def delete(self, table: str, column: str, values: Sequence[str | int]) -> int:
        """Deletes the rows in which a column has one of these values, for good: `rollback` does not bring them back.

        Args:
            column: of texts or whole numbers.

        Returns:
            How many rows there were.

        Raises:
            RuntimeError: a capture is open.
        """
        found = self._catalogue.of_call(table)
        self._forget_request_strings()
        place = found.positions[column]
        texts = found.columns[place].type == Type.STRING
        words = [self._pool.code(str(value)) if texts else int(value) for value in values]
        rows = found.words(0, found.count)
        null = (rows[:, len(found.columns) + place // NULLS_PER_WORD] >> (place % NULLS_PER_WORD)) & 1
        gone = np.isin(rows[:, place], np.array(words, np.int64)) & (null == 0)
        count = int(gone.sum())
        if count:
            self._retention.delete(found, gone)
        return count

    def mark(self) -> Mark:
        """This moment, for `rollback`. As long as the mark is held, every row stays that was alive then."""
        return self._retention.mark()

    def rollback(self, mark: Mark) -> None:
        """Forgets every row inserted since `mark`: answers are what they were then."""
        self._retention.rollback(mark)

    def free(self) -> int:
        """Gives back the memory of every row and string that no request can see any more; returns the rows freed.

        Inserts do it by themselves when a quarter of a table's rows, or half of the strings, may be freed. Offline,
        nothing expires: a table loses rows only after a deployment reads it, and no `query` may read it from then on.
        While a capture is open, nothing is freed.
        """
        self._forget_request_strings()
        return self._retention.free()

    def capture(self, mark: Mark) -> Capture:
        """The rows of `mark`, to be read bit by bit while inserts go on; see `Capture`. Until it is closed, nothing is
        freed."""
        self._forget_request_strings()
        self._retention.pin()
        return Capture(list(self._catalogue.tables.values()), self._pool, mark.counts, self._retention.unpin)

    @property
    def captures(self) -> int:
        """How many captures are open."""
        return self._retention.pinned

    def restore(self) -> Restore:
        """Takes the rows of a capture; see `Restore`."""
        self._forget_request_strings()
        return Restore(list(self._catalogue.tables.values()), self._pool)

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
        compiled = self._deployments.find(deployment).compiled
        if self._lasting is None:
            self._lasting = self._pool.count
        elif self._pool.count - self._lasting > _REQUEST_STRINGS_MAX:
            self._pool.truncate(self._lasting)
        return self._runner.answer(compiled, request_words(compiled, rows, self._pool), compiled.no_limits)

    def _forget_request_strings(self) -> None:
        """Drops the strings that only requests brought, before strings come that stay."""
        if self._lasting is not None:
            self._pool.truncate(self._lasting)
            self._lasting = None

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
        compiled = self._deployments.find(deployment).compiled
        if compiled.has_where:
            raise ValueError(f"{deployment} has a WHERE: its answers cannot be told apart by position")
        self._forget_request_strings()
        at = np.asarray(request_at, np.int64)
        insertions: list[Insertion] = []
        known: Int64 | None = None
        for name, rows in inserts.items():
            table = self._catalogue.of_call(name)
            words = encode(table.name, table.columns, rows, self._pool)
            if rows is requests and table is compiled.table:
                known = words
            insertions.append(in_order_of_position(name, table, words, insert_at[name]))
        mark, texts = self._retention.mark(), self._pool.count
        asked = request_words(compiled, requests, self._pool, known)
        if len(asked) != len(at):
            raise ValueError(f"{len(at)} positions for {len(asked)} requests")
        try:
            answer = answer_replay(compiled, asked, at, insertions, self._runner)
        except BaseException:
            self.rollback(mark)
            raise
        finally:
            self._pool.truncate(texts)
        self._retention.make_room([insertion.table for insertion in insertions])
        return answer

    def query(self, sql: str) -> pa.Table:
        """Answers a SELECT offline: a row per row of its main table, as of that row's own time.

        A row sees, of its own table, the rows before it in time (of equal times: inserted before it), and of the other
        tables of its windows those up to its time; joins see all rows. NULL join keys match nothing, as in OpenMLDB's
        batch engine.
        """
        return self._answer_offline(parse_select(sql), sql).table()

    def _answer_offline(self, select: syntax.Select, script: str) -> OfflineAnswer:
        self._forget_request_strings()
        return answer_offline(self._plan(select, script), select, script, self._pool, self._runner, self._progress)
