"""OpenMLDB's own engine, in request mode, in a process beside this one: what tests compare with, what benchmarks race.

`make spark-environment` brings its library and compiles `Oracle.java`, which needs a JDK (javac). No server: its tables
are in memory and belong to one question. What a server adds (DEPLOY's checks, TTL, refused inserts) is not in it.
"""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any

import msgspec

from deploy.environments import Missing, folder, java

__all__ = ["Answer", "Oracle", "Refused", "Table"]

_MARK = "ORACLE "
ANSWER_TIMEOUT_S = 120.0

Row = Mapping[str, Any]


class Refused(ValueError):
    """OpenMLDB does not compile or run the query; its words. A query that twice ends its process is one too."""


class _Died(Refused):
    """The process ended."""


class Table(msgspec.Struct):
    """A table of a question.

    Attributes:
        columns: SQL types by name. indexes: (key columns, time column or None). rows: in order of insertion; timestamps
            are epoch milliseconds, dates ISO text.
    """

    columns: dict[str, str]
    indexes: list[tuple[tuple[str, ...], str | None]] = []
    rows: Sequence[Row] = ()
    database: str = "db"


class Answer(msgspec.Struct):
    """(name, type) of the columns and a row per request, None where it failed, as WHERE makes it; seconds it took."""

    columns: list[tuple[str, str]]
    rows: list[list[Any] | None]
    insert_s: float
    compile_s: float
    request_p50_s: float | None = None
    request_p99_s: float | None = None
    request_mean_s: float | None = None


class Oracle:
    """Answers questions until it is closed; started anew after a query that kills OpenMLDB's process.

    Raises:
        Missing: the environment was not made, or had no javac when it was.
    """

    def __init__(self) -> None:
        home = folder() / "spark"
        self._library = home / "native" / "libhybridse_jsdk_core.so"
        classes = home / "oracle"
        if not (classes / "Oracle.class").exists() or not self._library.exists():
            raise Missing(f"OpenMLDB's engine is not at {classes}: install a JDK (javac), run `make spark-environment`")
        gson = next(home.glob("lib/python*/site-packages/pyspark/jars/gson-*.jar"))
        self._path = ":".join(map(str, (classes, home / "openmldb-spark.jar", gson)))
        self._process: subprocess.Popen[str] | None = None

    def ask(
        self, sql: str, tables: Mapping[str, Table], requests: Sequence[Row], *, database: str = "db", rounds: int = 0
    ) -> Answer:
        """What OpenMLDB answers each request row of the query's main table, whose row it is, and not inserted.

        Args:
            tables: by name; the first is the query's main table.
            rounds: asks all of them so many times more, for the figures of time.

        Raises:
            Refused: see there.
        """
        main = next(iter(tables.values()))
        question = {
            "sql": sql,
            "database": database,
            "rounds": rounds,
            "requests": [_cells(main, row) for row in requests],
            "tables": [_table(name, table) for name, table in tables.items()],
        }
        text = json.dumps(question)
        try:
            told = self._told(text)
        except _Died:  # of this question, or of what earlier ones left in its memory: a fresh process tells
            told = self._told(text)
        if "refused" in told:
            raise Refused(told["refused"])
        columns = [(name, kind) for name, kind in told.pop("schema")]
        rows = [row and [_value(v, t) for v, (_, t) in zip(row, columns, strict=True)] for row in told.pop("rows")]
        return Answer(columns, rows, **told)

    def _told(self, question: str) -> dict[str, Any]:
        if self._process is None:
            argv = [java(), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx1g", "-XX:-CreateCoredumpOnCrash"]
            self._process = subprocess.Popen(
                [*argv, "-XX:ErrorFile=/dev/null", "-cp", self._path, "Oracle", str(self._library)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
            )
        process = self._process
        watch = threading.Timer(ANSWER_TIMEOUT_S, process.kill)
        watch.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                _pipe(process.stdin).write(question + "\n")
                _pipe(process.stdin).flush()
            for line in _pipe(process.stdout):
                if line.startswith(_MARK):
                    told: dict[str, Any] = json.loads(line.removeprefix(_MARK))
                    return told
        finally:
            watch.cancel()
        status = process.wait()
        self.close()
        raise _Died(f"OpenMLDB's process ended with status {status}")

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    _pipe(pipe).close()
            self._process = None

    def __enter__(self) -> Oracle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None  # Popen was asked for it
    return pipe


def _table(name: str, table: Table) -> dict[str, Any]:
    return {
        "name": name,
        "database": table.database,
        "columns": list(table.columns.items()),
        "indexes": [{"keys": keys, "ts": ts} for keys, ts in table.indexes],
        "rows": [_cells(table, row) for row in _newest_first(name, table)],
    }


def _newest_first(name: str, table: Table) -> list[Row]:
    """The rows as OpenMLDB's memory table holds them: by time downwards, of equal times the last inserted first."""
    rows = list(reversed(table.rows))
    times = {ts for _, ts in table.indexes}
    if len(times) > 1:
        raise ValueError(f"{name}: the rows can stand in one order only, not in those of {times}")
    for ts in times - {None}:
        rows.sort(key=lambda row: -row[str(ts)])
    return rows


def _cells(table: Table, row: Row) -> list[Any]:
    return [_cell(row.get(name)) for name in table.columns]


def _cell(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _value(cell: Any, kind: str) -> Any:
    return float(cell) if kind in ("float", "double") and cell is not None else cell
