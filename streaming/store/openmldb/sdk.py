"""An OpenMLDB cluster through its SDK, which runs in a process of its own (`streaming.store.openmldb.sdk_process`)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from multiprocessing.connection import Connection
from types import TracebackType
from typing import IO, Any

import pyarrow as pa
import structlog

from streaming.config import Store
from streaming.engine import BadRow
from streaming.errors import ArtifactMismatch, ConfigError, StoreUnavailable
from streaming.store.openmldb.columns import backquoted, schema_of
from streaming.store.openmldb.parts import Part
from streaming.store.openmldb.sdk_process import NATIVE, ConnectOptions, send

__all__ = ["Client", "connect_options", "deployment_schemas"]

PART_ROWS_MIN = 8  # what a call costs is that of a few rows
INSERT_ROWS = 200  # per call of the SDK, which sends them one by one: what a timeout waits for stays small
CONNECT_S = 30.0  # the SDK's own limits are shorter; loading it takes seconds on a busy machine
MARGIN_S = 5.0  # after timeout_s the SDK should have answered by itself
FAILURES_MAX = 3  # of the same call in a row: a client that lost sight of the tablets never finds them again
LOGIN_REFUSED = re.compile(r"wrong password!|user \S+ does not exist")
# All that a nameserver tells whom it does not let in; one that is away refuses the connection (E111, E112).
HUNG_UP = re.compile(r"\[E1014\]Got EOF of Socket")
HANGS_UP = "the nameserver hangs up, as it does on a wrong user or password, or before it has read who may come in"
LOG_BYTES_MAX = 1 << 20
SLICE_S = 1.0  # how often `beat` is called while the SDK is waited for

_log = structlog.stdlib.get_logger("streaming.store.openmldb.sdk")


def connect_options(settings: Store, database: str, sdk: str = NATIVE) -> ConnectOptions:
    """How to reach the cluster of `[store.openmldb]`.

    Raises:
        ConfigError: neither or both of `zk` and `host` are set; the password file cannot be read.
    """
    cluster = settings.openmldb
    if bool(cluster.zk) == bool(cluster.host):
        raise ConfigError("store.openmldb: set `zk` (a cluster) or `host` (a standalone server), one of them")
    if cluster.zk:
        servers: dict[str, Any] = {"zk": cluster.zk, "zkPath": cluster.zk_path, "zkLogLevel": 0}
    else:
        servers = {"host": cluster.host, "port": cluster.port}
    servers["user"] = cluster.user
    return ConnectOptions(
        servers,
        cluster.secret(),
        database,
        cluster.timeout_s,
        cluster.calls_in_flight,
        sdk,
        connections=cluster.connections,
    )


def deployment_schemas(shown: str) -> tuple[pa.Schema, pa.Schema]:
    """Request and answer columns from the text of SHOW DEPLOYMENT.

    Raises:
        StoreUnavailable: the text has another form.
    """
    _, _, rest = shown.partition("# Input Schema")
    inputs, _, outputs = rest.partition("# Output Schema")
    line = re.compile(r"^ *\d+ +(\S.*?) +(\w+) +\w+ *$", re.MULTILINE)  # a name may have blanks in it
    found = line.findall(inputs), line.findall(outputs)
    if not all(found):
        raise StoreUnavailable(f"SHOW DEPLOYMENT says something unexpected: {shown[:500]}")
    return schema_of(found[0]), schema_of(found[1])


class Client:
    """The SDK's process, made when it is first needed, and anew after it was lost, had to be killed, or failed
    `FAILURES_MAX` times in a row: after a tablet was away it may answer `fail to get table … tablet` without end, while
    a new one is served.

    Args:
        options: which cluster, and how to connect.
        deployment: that is asked.
        beat: called about once a second while an answer is waited for.
    """

    def __init__(self, options: ConnectOptions, deployment: str = "", beat: Callable[[], None] = lambda: None) -> None:
        self.deployment = deployment
        self.beat = beat
        self.connections, self.part_rows_min = options.connections, PART_ROWS_MIN
        self._options = options
        self._peers: list[Client] = []  # they insert
        self._threads: ThreadPoolExecutor | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: Connection | None = None
        self._failures: Counter[tuple[str, str]] = Counter()  # in a row, by call and its table or deployment
        self._use = ""  # a USE that the next process needs, too
        self._let_in = False  # once: user and password are right

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Of the SDK's process, while there is one."""
        return self._process.pid if self._process else None

    @property
    def inserting_pids(self) -> list[int | None]:
        """Of the processes that insert, so far."""
        return [peer.pid for peer in self._peers]

    def execute(self, sql: str, timeout_s: float | None = None) -> list[tuple[Any, ...]]:
        """Runs one statement; rows of a SELECT, SHOW or DESC.

        Raises:
            StoreUnavailable: as every method: with the server's message, or because it did not answer.
        """
        rows: list[tuple[Any, ...]] = self._call("execute", sql, timeout_s=timeout_s)
        if (sql.split(None, 1) or [""])[0].lower() == "use":
            self._use = sql
        return rows

    def schemas(self) -> tuple[pa.Schema, pa.Schema]:
        """The columns of the deployment's requests and answers, as the cluster has it; see `Transport`."""
        database = self._options.database
        there = [name for (name,) in self.execute("SHOW DATABASES")]
        if database not in there:
            raise ArtifactMismatch(f"{self._options} has no database {database}: run `jd-intent-score deploy`")
        self.execute(
            f"USE {backquoted(database)}"
        )  # SHOW DEPLOYMENTS answers of the database in use, whatever its FROM says
        there = [name for _, name in self.execute("SHOW DEPLOYMENTS")]
        if self.deployment not in there:
            raise ArtifactMismatch(
                f"database {database} of {self._options} has no deployment {self.deployment}: "
                "run `jd-intent-score deploy`"
            )
        return deployment_schemas(self.show_deployment())

    def show_deployment(self) -> str:
        """SHOW DEPLOYMENT: its SQL as the server wrote it, then the columns of requests and answers."""
        name = f"{backquoted(self._options.database)}.{backquoted(self.deployment)}"
        return "\n".join(row[0] for row in self.execute(f"SHOW DEPLOYMENT {name}"))

    def insert(self, table: str, rows: pa.Table) -> None:
        """Inserts rows that are not there yet; see `Transport`."""
        for at in range(0, rows.num_rows, INSERT_ROWS):
            self._call("insert", table, rows.slice(at, INSERT_ROWS))

    def insert_parts(self, parts: Sequence[Part]) -> None:
        """Inserts side by side, over processes of their own, beside what this one is asked; see `Transport`. Threads of
        one would give no speed: the SDK holds the interpreter's lock in every call."""
        lanes = [parts[number :: self.connections] for number in range(min(self.connections, len(parts)))]
        while len(self._peers) < len(lanes):
            peer = Client(dataclasses.replace(self._options, connections=1), self.deployment, self.beat)
            peer._let_in = self._let_in
            self._peers.append(peer)
        if len(lanes) == 1:
            self._peers[0]._insert_lane(lanes[0])
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.connections, "sdk")
        calls = [self._threads.submit(peer._insert_lane, lane) for peer, lane in zip(self._peers, lanes, strict=False)]
        while wait(calls, SLICE_S).not_done:
            self.beat()
        for call in calls:
            call.result()

    def _insert_lane(self, parts: Sequence[Part]) -> None:
        for table, rows in parts:
            self.insert(table, rows)

    def request(self, rows: pa.Table) -> pa.Table:
        """Asks the deployment; see `Transport`."""
        return self._call("request", self.deployment, rows)

    def close(self) -> None:
        """Ends the processes."""
        for peer in self._peers:
            peer.close()
        self._peers.clear()
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
        self._end()

    def _end(self) -> None:
        self._failures.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)  # it ends by itself when its socket does
            process.kill()
            process.wait()

    def _start(self) -> Connection:
        try:
            connection = self._connected(self._options)
        except StoreUnavailable as error:
            why = self._login_refused()
            if why == HANGS_UP and self._let_in:  # it was let in before: this passes
                raise StoreUnavailable(f"{error}; {why}") from None
            if why:
                raise ConfigError(
                    f"{self._options} lets nobody in: {why}: see user and password of [store.openmldb]"
                ) from None
            raise
        if self._use:
            self._exchange(connection, "execute", (self._use,), self._options.timeout_s)
        self._let_in = True
        _log.info("connected", to=repr(self._options), pid=self.pid)
        return connection

    def _login_refused(self) -> str:
        """Why a connection failed, if it was the login: the SDK raises the same as where nobody is there, and only
        its log, which can be switched on when a process begins, tells them apart."""
        with tempfile.TemporaryFile() as told:
            with contextlib.suppress(StoreUnavailable):
                self._connected(dataclasses.replace(self._options, log_level=1), told)
            self._kill()
            told.seek(0)
            log = told.read(LOG_BYTES_MAX).decode(errors="replace")
        if found := LOGIN_REFUSED.search(log):
            return found[0].strip("! ")
        return HANGS_UP if HUNG_UP.search(log) else ""

    def _connected(self, options: ConnectOptions, told: IO[bytes] | None = None) -> Connection:
        """A new process that has connected; `told` gets what it writes to standard error."""
        mine, others = socket.socketpair()
        with mine, others:
            argv = [sys.executable, "-m", "streaming.store.openmldb.sdk_process", str(others.fileno())]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self._process = subprocess.Popen(argv, pass_fds=[others.fileno()], env=environment, stderr=told)
            connection = Connection(mine.detach())
        self._socket = connection
        self._exchange(connection, "connect", (options,), CONNECT_S + options.timeout_s)
        return connection

    def _call(self, name: str, *arguments: Any, timeout_s: float | None = None) -> Any:
        connection = self._socket or self._start()
        # Of each table by itself: while one is refused, statements and other tables may well be served.
        call = name, "" if name == "execute" else str(arguments[0])
        try:
            answer = self._exchange(connection, name, arguments, timeout_s or self._options.timeout_s)
        except StoreUnavailable as error:
            self._failures[call] += 1
            if self._failures[call] >= FAILURES_MAX and self._socket is not None and name != "execute":
                _log.warning("the client is made anew", failures=self._failures[call], error=str(error))
                self._end()
            raise
        del self._failures[call]
        return answer

    def _exchange(self, connection: Connection, name: str, arguments: tuple[Any, ...], timeout_s: float) -> Any:
        deadline = time.monotonic() + timeout_s + MARGIN_S
        try:
            send(connection, (name, arguments))
            while not connection.poll(min(SLICE_S, max(0.0, deadline - time.monotonic()))):
                self.beat()
                if time.monotonic() > deadline:
                    self._kill()
                    raise StoreUnavailable(
                        f"OpenMLDB's client did not answer `{name}` for {timeout_s + MARGIN_S:.0f} s: it was killed"
                    )
            kind, value = connection.recv()
        except (EOFError, OSError) as error:
            status = self._kill()
            raise StoreUnavailable(f"OpenMLDB's client died in `{name}` (status {status})") from error
        if kind == "ok":
            return value
        if name == "connect":
            self._kill()
            if kind == "refused":
                raise ConfigError(value)
        if kind == "failed":
            raise StoreUnavailable(value)
        if kind == "refused":
            raise ArtifactMismatch(value)
        if kind == "row":
            raise BadRow(value)
        raise RuntimeError(f"OpenMLDB's client failed in `{name}`:\n{value}")

    def _kill(self) -> int | None:
        """Ends the process at once; its exit status."""
        process = self._process
        if process is not None:
            process.kill()
        self._end()
        return process.returncode if process else None
