"""A cluster of OpenMLDB in the test's process: the embedded engine, behind the SDK's fake router (`rigs.fake_router`).

It outlives the SDK's process, and can be hung, taken down, or made to forget rows as a cluster does while a tablet is
away.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Client as Dial
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

import pyarrow as pa

from rigs.fake_router import NAME, Columns, ServerError, connection, fake_native, name_of, words_of
from streaming.app.folder import App
from streaming.engine.sql.names import quoted
from streaming.store.openmldb.sdk_process import Sdk, SdkRefused

ADDRESS = "FAKE_OPENMLDB"
"""Environment variable with the socket of a `Cluster`."""


CATALOGUE_S = 0.2


class Remote:
    """A `Cluster`, from the SDK's process."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket: Connection | None = None
        self._catalogue: dict[tuple[Any, ...], tuple[float, Any]] = {}

    def connect(self, password: str) -> None:
        try:
            self._socket = Dial(self._address, "AF_UNIX")
        except OSError as error:
            raise ServerError(-1, "no such server") from error
        self._ask("connect", password)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in ("columns", "indexed_times", "request_columns"):
            return lambda *arguments: self._known(name, *arguments)
        return lambda *arguments: self._ask(name, *arguments)

    def _known(self, name: str, *arguments: Any) -> Any:
        """The client holds the catalogue itself, and hears of changes a moment later."""
        key = (name, *arguments)
        told_at, value = self._catalogue.get(key, (0.0, None))
        if time.monotonic() - told_at > CATALOGUE_S:
            value = self._ask(name, *arguments)
            self._catalogue[key] = time.monotonic(), value
        return value

    def _ask(self, name: str, *arguments: Any) -> Any:
        try:
            if self._socket is None:  # the router finds its servers again by itself
                self._socket = Dial(self._address, "AF_UNIX")
            self._socket.send((name, arguments))
            kind, value = self._socket.recv()
        except (EOFError, OSError) as error:
            self._socket = None
            raise ServerError(1500, "[E112]Not connected to HOST:PORT yet") from error
        if kind == "error":
            raise ServerError(*value)
        return value


def cluster_sdk() -> Sdk:
    """`Options.sdk` of tests: an SDK whose router talks to the `Cluster` at $FAKE_OPENMLDB."""
    return Sdk(lambda **keywords: connection(Remote(os.environ[ADDRESS]), **keywords), fake_native())


def no_sdk() -> Sdk:
    """`Options.sdk` where the SDK is not installed."""
    raise SdkRefused("OpenMLDB's SDK does not load: no")


@dataclass
class Faults:
    """What goes wrong, as long as it is set.

    Attributes:
        down: nobody connects, every call fails at once, for as long as a failover takes (C8).
        inserts: the next inserts of a table fail after this many rows are in.
        forgetful: the next calls answer NULL for what cannot be NULL, as a tablet does that has not all rows.
        hung: calls wait until it is cleared.
        unalive: what SHOW TABLE STATUS counts: dead replicas, whatever is served (C3).
        dead: partitions whose leader died and has no successor yet: their rows are refused, and answers to their keys
            have NULL where nothing can be NULL (C4).
        unseen_indexes: the next DEPLOYs fail, as no tablet has heard of their indexes yet (C6).
        password: that whoever connects must know (C7); None: any will do, as the server's default is.
        hangs_up: a nameserver with authentication on refuses a password by ending the connection, without a word (C7).
    """

    down: bool = False
    inserts: dict[str, list[int]] = field(default_factory=dict)
    forgetful: int = 0
    hung: threading.Event | None = None
    unalive: int = 0
    dead: frozenset[int] = frozenset()
    unseen_indexes: int = 0
    password: str | None = None
    hangs_up: bool = False


@dataclass(frozen=True)
class Pace:
    """How long a real server takes (C10), seconds: for a call of the deployment, for each request in it, for each row
    that a connection inserts. Connections do not wait for each other."""

    call_s: float = 0.0
    request_s: float = 0.0
    row_s: float = 0.0

    def wait(self, name: str, arguments: tuple[Any, ...]) -> None:
        """As the server would."""
        if name == "call":
            time.sleep(self.call_s + self.request_s * len(arguments[2]))
        elif name == "insert":
            time.sleep(self.row_s * len(arguments[2]))


REAL_PACE = Pace(call_s=0.010, request_s=1 / 5500, row_s=1 / 1800)
"""Two tablets on two cores: one request 9 to 13 ms, calls of 500 4,600 to 6,900 requests/s, 1,300 to 2,450 rows/s."""


class Cluster:
    """The embedded engine behind a socket, as a cluster of OpenMLDB would answer.

    Attributes:
        calls: of each call of a deployment the rows asked; of each insert (table, rows given, rows new).
    """

    def __init__(self, folder: Path) -> None:
        from streaming.engine import Engine

        self.engine = Engine()
        self.faults = Faults()
        self.pace = Pace()
        self.calls: list[int] = []
        self.inserts: list[tuple[str, int, int]] = []
        self.address = str(folder / "openmldb.sock")
        self.databases: list[str] = []
        self.tables: dict[tuple[str, str], str] = {}
        self.deployments: dict[tuple[str, str], str] = {}
        self._there: dict[str, dict[tuple[Any, ...], None]] = {}  # in the order in which they came
        self._turn = threading.Lock()
        self._stale: set[Connection] = set()
        self._listener = Listener(self.address, "AF_UNIX", backlog=8)
        self._sockets: list[Connection] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def clear(self) -> None:
        """Empty tables, no faults, nothing noted."""
        for database, table in self.tables:
            self.engine._catalogue.tables[database, table].truncate(0)
        self._there.clear()
        self.faults, self.pace = Faults(), Pace()
        self.calls.clear()
        self.inserts.clear()

    def wipe(self) -> None:
        """A new cluster, with the old connections."""
        self.engine = type(self.engine)()
        for made in (self.databases, self.tables, self.deployments):
            made.clear()
        self.clear()

    def close(self) -> None:
        self._listener.close()
        self.disconnect()

    def lose_sight(self) -> None:
        """A tablet was away for 17 s: clients of now find no table any more, whatever comes (C5); new ones do."""
        self._stale.update(self._sockets)

    def fail_over(self, lost: int) -> None:
        """A tablet dies that had not told its replicas of its last rows: of each table so many are gone (C17)."""
        with self._turn:
            for database, table in self.tables:
                there = self._there.get(table, {})
                for row in list(there)[-lost:]:
                    del there[row]
                self.engine._catalogue.tables[database, table].truncate(len(there))

    def disconnect(self) -> None:
        """Every connection is lost."""
        for made in self._sockets:
            with contextlib.suppress(OSError):
                made.close()
        self._sockets.clear()

    def rows(self, table: str) -> int:
        """How many rows a table has."""
        return len(self._there.get(table, ()))

    # ── what the native router asks ──────────────────────────────────────────────────────────────────────────────────

    def connect(self, password: str) -> None:
        if self.faults.down:
            raise ServerError(-1, "fail to init zk handler with hosts HOST:PORT")
        if self.faults.password not in (None, password):
            hung_up = "request error. [E1014]Got EOF of Socket{id=2 fd=7} [R1][E112]Not connected to HOST:PORT yet"
            raise ServerError(-1, hung_up if self.faults.hangs_up else "wrong password!")

    def execute(self, database: str, sql: str) -> tuple[Columns, list[tuple[Any, ...]]] | None:
        statement = sql.strip().rstrip(";")
        assert ";" not in statement, f"more than one statement: {sql}"
        words = words_of(statement)
        head = " ".join(words[:2]).upper()
        names: Columns = [("name", "string")]
        text: Columns = [("!%$FORMAT_STRING_KEY", "string")]
        if words[0].upper() == "SET":
            return [], []
        if head == "SHOW DATABASES":
            return names, [(name,) for name in self.databases]
        if head in ("SHOW TABLES", "SHOW DEPLOYMENTS") and not database:  # C1, with FROM too
            raise ServerError(2000, "please enter database first")
        if head == "SHOW TABLES":
            return names, [(name,) for where, name in self.tables if where == database]
        if head == "SHOW DEPLOYMENTS":  # C2: FROM is not looked at
            return [("DB", "string"), ("Deployment", "string")], [k for k in self.deployments if k[0] == database]
        if head == "SHOW DEPLOYMENT":
            where, _, name = words[2].rpartition(".")
            return text, [(self._shown(where or self._used(database), name),)]
        if " ".join(words[:3]).upper() == "SHOW CREATE TABLE":
            if not database:
                raise ServerError(2000, "")  # C1: it says no more
            return [("Table", "string"), ("Create Table", "string")], [(words[3], self._created(database, words[3]))]
        if " ".join(words[:3]).upper() == "SHOW TABLE STATUS":
            row = ("11", "t", "d", "memory", "0", "0", "0", "8", str(self.faults.unalive), "2", *["NULL"] * 3, "")
            kinds = [(f"c{i}", "string") for i in range(len(row))]
            return kinds, [(row[0], name, where, *row[3:]) for where, name in self.tables]
        if found := re.fullmatch(rf"(?is)select count\(\*\) from {NAME}", statement):
            count = self.rows(name_of(found[1]))
            return [("count(*)", "int64")], [(count,)] if count else []  # C15
        return self._change(database, statement, words, head)

    def columns(self, database: str, table: str) -> Columns:
        if (database, table) not in self.tables:
            raise ServerError(2000, f"Fail to get insert info--{database}-{table} not exist")
        return _columns(self.engine.table_schema(f"{database}.{table}"))

    def indexed_times(self, database: str, table: str) -> list[str]:
        return [
            time
            for d in self.deployments
            for t, times in self.engine.contract(d[1]).times
            if t == table
            for time in times
        ]

    def insert(self, database: str, statement: str, rows: list[list[Any]]) -> None:
        assert "or ignore" in statement, "C11: a plain INSERT counts redelivered rows twice"
        table = words_of(statement)[4]
        limits = self.faults.inserts.get(table, [])
        given = rows[: limits.pop(0)] if limits else rows
        if self.faults.dead:  # row by row, in order: what comes before the first that fails is in
            served = [partition_of(row) not in self.faults.dead for row in given]
            given = given[: served.index(False)] if False in served else given
        there = self._there.setdefault(table, {})
        fresh = [row for row in dict.fromkeys(map(tuple, given)) if row not in there]
        names = [name for name, _ in self.columns(database, table)]
        if fresh:
            self.engine.insert(f"{database}.{table}", [dict(zip(names, row, strict=True)) for row in fresh])
        there.update(dict.fromkeys(fresh))
        self.inserts.append((table, len(given), len(fresh)))
        if len(given) < len(rows):
            raise ServerError(
                2001, "put failed--ReturnCode[1004]--[E112]Not connected to HOST:PORT yet. RevertPut success."
            )

    def request_columns(self, database: str, deployment: str) -> Columns:
        if (database, deployment) not in self.deployments:
            # C9
            raise ServerError(1203, f"{database}-{deployment}--{deployment} does not exist in {database}")
        return _columns(self.engine.request_schema(deployment))

    def call(
        self, database: str, deployment: str, rows: list[list[Any]], timeout_ms: int
    ) -> tuple[Columns, list[tuple[Any, ...]]]:
        names = [name for name, _ in self.request_columns(database, deployment)]
        self.calls.append(len(rows))
        answer = self.engine.request(deployment, [dict(zip(names, row, strict=True)) for row in rows])
        columns = [_spelled(column) for column in answer.columns]
        if self.faults.forgetful:
            self.faults.forgetful -= 1
            place = answer.column_names.index(self.engine.contract(deployment).never_null[0])
            columns[place][-1] = None
        for number, row in enumerate(rows) if self.faults.dead else ():
            if partition_of(row) in self.faults.dead:
                columns[answer.column_names.index(self.engine.contract(deployment).never_null[0])][number] = None
        return _columns(answer.schema), list(zip(*columns, strict=True))

    # ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _change(self, database: str, statement: str, words: list[str], head: str) -> tuple[Columns, list[Any]]:
        exists = "EXISTS" in statement.upper().split("(")[0]
        name = words[{"CREATE": 5 if exists else 2, "DROP": 2, "DEPLOY": 1}[words[0].upper()]].split("(")[0]
        used = database if head == "CREATE DATABASE" else self._used(database)
        if head == "DROP DATABASE":
            if any(where == name for where, _ in self.tables):
                raise ServerError(2000, "database not empty")
            self.databases.remove(name)
            self.engine.execute(statement)
        elif head == "CREATE DATABASE":
            if name not in self.databases:
                self.databases.append(name)
                self.engine.execute(statement)
        elif head == "CREATE TABLE":
            if (used, name) not in self.tables:
                self.engine.execute(f"USE `{used}`; {statement}")
                self.tables[used, name] = statement
        elif head == "DROP TABLE":
            if (used, name) not in self.tables:
                raise ServerError(2000, "fail to drop, table does not exist!")
            if any(where == used for where, _ in self.deployments):
                raise ServerError(2000, f"fail to drop, table has associated deployment: {used}.x")
            self.engine.execute(f"USE `{used}`; {statement}")
            del self.tables[used, name]
            self._there.pop(name, None)
        elif head == "DROP DEPLOYMENT":
            if (used, name) not in self.deployments:
                raise ServerError(2000, "deployment not found")
            self.engine.execute(f"USE `{used}`; {statement}")
            del self.deployments[used, name]
        else:
            if (used, name) in self.deployments:  # C14
                raise ServerError(2001, "ns create procedure failed--ReturnCode[-1]--store procedure already exists")
            if quoted(name) != name:  # C18
                raise ServerError(2001, "ns create procedure failed--ReturnCode[-1]--create procedure on tablet failed")
            if self.faults.unseen_indexes:
                self.faults.unseen_indexes -= 1
                raise ServerError(2001, "ns create procedure failed--ReturnCode[1000]--Isn't partition provider")
            self.engine.execute(f"USE `{used}`; {statement}")
            self.deployments[used, name] = statement
        return [], []

    def _used(self, database: str) -> str:
        if not database:
            raise ServerError(2000, "ERROR: Please use database first")
        return database

    def _created(self, database: str, table: str) -> str:
        shown = {"string": "varchar", "int32": "int", "int64": "bigInt", "int16": "smallInt"}
        columns = "".join(f"`{name}` {shown.get(kind, kind)},\n" for name, kind in self.columns(database, table))
        return (
            f"CREATE TABLE `{table}` (\n{columns}INDEX (KEY=`x`, TTL_TYPE=ABSOLUTE, TTL=0m)\n) OPTIONS "
            "(PARTITIONNUM=8, REPLICANUM=2, STORAGE_MODE='Memory', COMPRESS_TYPE='NoCompress');"
        )

    def _shown(self, database: str, name: str) -> str:
        """As SHOW DEPLOYMENT: the statement in the server's own spelling, in a box padded with blanks."""
        if (database, name) not in self.deployments:
            raise ServerError(2000, "not found")
        sql = re.sub(r"`(?!at`)|(?<!`at)`", "", self.deployments[database, name]).replace("'inf'", '"inf"')
        sql = re.sub(r"(?i)\bover (\w+)", r"OVER (\1)", sql).replace("!isnull", "NOT isnull")
        lines = [f"  {line.strip()}  ".ljust(200) for line in sql.split("\n")]
        rule = " " + "-" * 60 + " "
        schemas = []
        for title, schema in (("Input", self.engine.request_schema(name)), ("Output", self.engine.schema(name))):
            rows = [
                f"  {i}    {column}      {kind.title().replace('String', 'Varchar')}     NO          "
                for i, (column, kind) in enumerate(_columns(schema), 1)
            ]
            schemas.append(
                "\n".join([f"# {title} Schema", rule, "  #    Field   Type        IsConstant  ", rule, *rows, rule])
            )
        box = f"{rule}\n  DB   Deployment  \n{rule}\n  {database}   {name}          \n{rule}\n1 row in set"
        return "\n".join([box, rule, "  SQL  ", rule, *lines, "  ;  ", rule, "1 row in set", *schemas, ""])

    def _accept(self) -> None:
        while True:
            try:
                made = self._listener.accept()
            except OSError:
                return
            self._sockets.append(made)
            threading.Thread(target=self._serve, args=(made,), daemon=True).start()

    def _serve(self, made: Connection) -> None:
        while True:
            try:
                name, arguments = made.recv()
                hung = self.faults.hung
                if hung is not None and name in ("call", "insert"):
                    hung.wait(60)
                self.pace.wait(name, arguments)
                with self._turn:
                    if name == "insert" and made in self._stale:
                        made.send(("error", (0, f"fail to get table {words_of(arguments[1])[4]} tablet")))
                        continue
                    made.send(self._answer(name, arguments))
            except (EOFError, OSError, TypeError):
                return

    def _answer(self, name: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
        if self.faults.down:
            return "error", (1500, "CallProcedure failed--[E112]Not connected to HOST:PORT yet")
        try:
            return "ok", getattr(self, name)(*arguments)
        except ServerError as error:
            return "error", error.args


def partition_of(row: Sequence[Any]) -> int:
    """Of 8. A server takes it from the key of the index; here the whole row has to do."""
    return zlib.crc32(repr(row).encode()) % 8


def _columns(schema: pa.Schema) -> Columns:
    names = {
        pa.bool_(): "bool",
        pa.int16(): "int16",
        pa.int32(): "int32",
        pa.int64(): "int64",
        pa.float32(): "float",
        pa.float64(): "double",
        pa.string(): "string",
        pa.date32(): "date",
        pa.timestamp("ms"): "timestamp",
    }
    return [(field.name, names[field.type]) for field in schema]


def _spelled(column: pa.ChunkedArray) -> list[Any]:
    """Cells as the SDK's getters give them."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return [str(cell) if isinstance(cell, datetime.date) else cell for cell in column.to_pylist()]


@contextlib.contextmanager
def running_cluster(folder: Path, app: App | None = None) -> Iterator[Cluster]:
    """A cluster, at $FAKE_OPENMLDB; with the tables and the deployment of an application."""
    cluster = Cluster(folder)
    before = os.environ.get(ADDRESS)
    os.environ[ADDRESS] = cluster.address
    try:
        if app is not None:
            from streaming.app.scripts import deploy_script, tables_script
            from streaming.store.sql_scripts import statement_texts

            used = ""
            for script in (tables_script(app), deploy_script(app)):
                for statement in statement_texts(script):
                    if statement.upper().startswith("USE "):
                        used = statement.split()[1]
                    else:
                        cluster.execute(used, statement)
        yield cluster
    finally:
        cluster.close()
        if before is None:
            del os.environ[ADDRESS]
        else:
            os.environ[ADDRESS] = before
