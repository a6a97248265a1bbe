"""An OpenMLDB cluster through its API server, over HTTP: a `Transport` of `streaming.store.openmldb.cluster`.

Rows are inserted by INSERT OR IGNORE statements, many rows in each: the server's own PUT takes one row and inserts it
again when it comes again. What a statement cannot spell (a NUL in a text, NaN, an infinite number, the least bigint) is
refused as `BadRow`; the SDK (`store.kind = "openmldb"`) takes them. Requests go as JSON, with many rows in a call and
several calls at a time.

A call that found no server, or lost it, is repeated: neither a request nor INSERT OR IGNORE does harm twice. An answer
that says why it failed is not repeated here: the cluster is looked at first (`ClusterStore`).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pyarrow as pa
import structlog

from streaming.config import Rest
from streaming.engine import BadRow, UnsupportedSQL
from streaming.engine.sql.parse import parse
from streaming.engine.sql.syntax import Set
from streaming.errors import ArtifactMismatch, ConfigError, StoreUnavailable
from streaming.ops.waiting import doubling
from streaming.store.openmldb.columns import backquoted, cells, rows_to_table, schema_of
from streaming.store.openmldb.parts import Part
from streaming.web.client import connect

__all__ = ["RestTransport", "literal", "statements"]

INSERT_ROWS = 200  # of a statement: planning it costs 12 ms, a row 0.5 ms more
PART_ROWS_MIN = 100  # planning a statement costs what so many rows do, and longer beside others
REQUEST_ROWS = 1000  # of a call at most; the server answers 10 k rows/s in calls of 1000, 0.7 k/s in calls of one
REQUEST_ROWS_MIN = 100  # what is worth a call of its own
ATTEMPTS_MAX = 3
BACKOFF_S, BACKOFF_MAX_S = 0.1, 0.4
CONNECT_S = 5.0
SLICE_S = 1.0  # how often `beat` is called while the server is waited for
ERROR_CHARS = 500
IN_URLS = re.compile(r"[A-Za-z0-9_~!$&'()*+,;=:@-]*")  # a name with others is an `invalid url`, also as %XX
UNKNOWN_CODES = (1202, 1204)  # a table, a column

_ESCAPED = str.maketrans({"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_MISSING = re.compile(r"not exist|not found|can't find col|Fail to find column", re.IGNORECASE)
# What is missing for a while only: a tablet that comes back knows its tables and deployments again.
_AWAY = re.compile(r"ReturnCode\[|tablet|E\d+\]", re.IGNORECASE)
_WRONG_ROW = re.compile(
    r"Translate to request row failed|Invalid input data size|fail to parse row|fail to get sql plan"
)

T = TypeVar("T")

_log = structlog.stdlib.get_logger("streaming.store.openmldb.rest")


class _Missing(ArtifactMismatch):
    """A table, a column or a deployment is not there."""


class RestTransport:
    """The API server at `store.rest.url`.

    Args:
        rest: `[store.rest]`.
        database, deployment: that are asked.
        beat: called about once a second while an answer is waited for.
        transport: instead of the network; tests inject faults with it.
        sleep: waits between attempts.

    Raises:
        ConfigError: there is no usable URL, token or certificate, or a name that no URL of the server's has.
    """

    def __init__(
        self,
        rest: Rest,
        database: str,
        deployment: str,
        beat: Callable[[], None] = lambda: None,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._database, self._deployment = database, deployment
        for what, name in (("database", database), ("deployment", deployment)):
            if not IN_URLS.fullmatch(name):
                raise ConfigError(f"OpenMLDB's API server finds no {what} {name!r}: its URLs take ASCII without blanks")
        self._place = f"/dbs/{database}"
        self._session: dict[str, str] = {}  # variables of SET
        self._beat, self._sleep = beat, sleep
        self.connections, self.part_rows_min = rest.connections, PART_ROWS_MIN
        self._client = connect(
            "store.rest.url",
            rest.url,
            token=rest.secret() or None,
            ca=Path(rest.ca_file) if rest.ca_file else None,
            headers={"Content-Type": "application/json"},
            timeout=httpx.Timeout(rest.timeout_s, connect=min(CONNECT_S, rest.timeout_s)),
            limits=httpx.Limits(max_connections=2 * rest.connections, max_keepalive_connections=2 * rest.connections),
            transport=transport,
            trust_env=False,
        )
        self._threads = ThreadPoolExecutor(rest.connections, "rest")
        self._inserting = ThreadPoolExecutor(rest.connections, "rest-insert")  # beside what is asked

    def __enter__(self) -> RestTransport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- Transport -------------------------------------------------------------------------------------------------

    def schemas(self) -> tuple[pa.Schema, pa.Schema]:
        """See `Transport.schemas`."""
        answer = self._one("GET", self._deployment_place())
        if answer["code"] != 0:
            raise self._failure(answer, "run `jd-intent-score deploy`")
        data = answer["data"]
        found = [
            [(column["name"], column["type"]) for column in data[key]] for key in ("input_schema", "output_schema")
        ]
        return schema_of(found[0]), schema_of(found[1])

    def insert(self, table: str, rows: pa.Table) -> None:
        """See `Transport.insert`: statement after statement, as the order of rows says which is the last."""
        for statement in statements(table, rows):
            with _away():
                self.execute(statement)

    def insert_parts(self, parts: Sequence[Part]) -> None:
        """See `Transport.insert_parts`: a connection for each."""
        lines = [list(statements(table, rows)) for table, rows in parts]
        calls = [self._inserting.submit(self._insert_part, each) for each in lines]
        errors = []
        for call in calls:  # all of them end before an error is told: what is under way belongs to this call
            try:
                self._wait(call)
            except (StoreUnavailable, ArtifactMismatch, BadRow) as error:
                errors.append(error)
        if errors:
            with _away():
                raise errors[0]

    def _insert_part(self, lines: Sequence[str]) -> None:
        for sql in lines:
            answer = self._exchange("POST", self._place, {"mode": self._mode(), "sql": sql})
            if answer["code"] != 0:
                raise self._failure(answer, sql[:80])

    def request(self, rows: pa.Table) -> pa.Table:
        """See `Transport.request`."""
        size = min(REQUEST_ROWS, max(REQUEST_ROWS_MIN, math.ceil(rows.num_rows / self.connections)))
        lines = _json_cells(rows)
        calls = [
            self._threads.submit(self._call, lines[at : at + size]) for at in range(0, max(rows.num_rows, 1), size)
        ]
        try:
            with _away():
                return pa.concat_tables([self._wait(call) for call in calls])
        finally:
            for call in calls:
                call.cancel()

    def close(self) -> None:
        """Closes the connections; what is under way ends first."""
        self._inserting.shutdown()
        self._threads.shutdown()
        self._client.close()

    # -- statements ------------------------------------------------------------------------------------------------

    def execute(self, sql: str, timeout_s: float | None = None) -> list[tuple[Any, ...]]:
        """Runs one statement in `store.database`, online until a SET @@execute_mode; rows of a SELECT, SHOW or job.

        Raises:
            StoreUnavailable: the server did not answer, or with an error.
            ArtifactMismatch: a table or column is not there.
            BadRow: an INSERT has a row that it takes never.
        """
        if (sql.split(None, 1) or [""])[0].lower() in ("use", "set"):
            # a call over HTTP has no session: database and mode go with each
            with contextlib.suppress(UnsupportedSQL):
                self._session |= {made.name: str(made.value).lower() for made in parse(sql) if isinstance(made, Set)}
            return []
        answer = self._one("POST", self._place, {"mode": self._mode(), "sql": sql}, timeout_s)
        if answer["code"] != 0:
            raise self._failure(answer, sql[:80])
        return [tuple(row) for row in answer.get("data", {}).get("data", [])]

    def _mode(self) -> str:
        sync = self._session.get("sync_job") == "true"
        if self._session.get("execute_mode") == "offline":
            return "offsync" if sync else "offasync"
        return "onsync" if sync else "online"

    # -- calls -----------------------------------------------------------------------------------------------------

    def _call(self, lines: Sequence[Sequence[Any]]) -> pa.Table:
        if not lines:
            return self.schemas()[1].empty_table()
        answer = self._exchange("POST", self._deployment_place(), {"input": lines, "need_schema": True})
        if answer["code"] != 0:
            raise self._failure(answer, f"{len(lines)} requests of {self._deployment}")
        data = answer["data"]
        schema = schema_of([(column["name"], column["type"]) for column in data["schema"]])
        try:
            return rows_to_table(schema, data["data"])
        except ValueError as error:
            raise ArtifactMismatch(f"an answer of {self._deployment} does not fit its own schema: {error}") from error

    def _one(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float | None = None
    ) -> Any:
        return self._wait(self._threads.submit(self._exchange, method, path, body, timeout_s))

    def _wait(self, call: Future[T]) -> T:
        while True:
            try:
                return call.result(SLICE_S)
            except FutureTimeoutError:
                if call.done():
                    raise
                self._beat()

    def _exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """One call and its JSON.

        Raises:
            StoreUnavailable: no answer after `ATTEMPTS_MAX` attempts, or one that is not OpenMLDB's.
            ConfigError: it does not let us in.
        """
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        timeout = self._client.timeout if timeout_s is None else httpx.Timeout(timeout_s, connect=CONNECT_S)
        where = f"{method} {self._client.base_url.join(path)}"
        failure: Exception | None = None
        for wait_s in itertools.islice(doubling(BACKOFF_S, BACKOFF_MAX_S), ATTEMPTS_MAX):
            if failure is not None:
                _log.warning("calling again", call=where, error=str(failure))
                self._sleep(wait_s)
            try:
                response = self._client.request(method, path, content=content, timeout=timeout)
            except httpx.TimeoutException as error:  # it has the call, or is too busy to take one: not again at once
                raise StoreUnavailable(f"{where}: {type(error).__name__} after {timeout.read:g} s") from error
            except httpx.TransportError as error:
                failure = error
                continue
            if response.status_code in (401, 403):
                raise ConfigError(f"{where}: {_refusal(response)}: see token and url of [store.rest]")
            if response.status_code < 500:
                return _answer(response)
            failure = httpx.HTTPStatusError(
                f"status {response.status_code}", request=response.request, response=response
            )
        raise StoreUnavailable(f"{where}: {type(failure).__name__}: {failure}") from failure

    def _failure(self, answer: Mapping[str, Any], what: str) -> StoreUnavailable | ArtifactMismatch | BadRow:
        text = f"[{answer['code']}] {str(answer.get('msg'))[:ERROR_CHARS]} ({what})"
        if _WRONG_ROW.search(text):
            return BadRow(text)
        if (answer["code"] in UNKNOWN_CODES or _MISSING.search(text)) and not _AWAY.search(text):
            return _Missing(text)
        return StoreUnavailable(text)

    def _deployment_place(self) -> str:
        return f"{self._place}/deployments/{self._deployment}"


@contextlib.contextmanager
def _away() -> Iterator[None]:
    """What is not there now, in flight, may be there in a moment: `deploy --replace` drops before it makes anew."""
    try:
        yield
    except _Missing as error:
        raise StoreUnavailable(str(error)) from error


def statements(table: str, rows: pa.Table) -> Iterator[str]:
    """INSERT OR IGNORE statements of at most `INSERT_ROWS` rows.

    Raises:
        BadRow: a value has no literal; names table, row and column.
    """
    columns = ",".join(map(backquoted, rows.column_names))
    for at in range(0, rows.num_rows, INSERT_ROWS):
        lines = []
        for place, row in enumerate(cells(rows.slice(at, INSERT_ROWS)), at):
            try:
                lines.append(f"({','.join(map(literal, row))})")
            except ValueError:
                name, why = _first_wrong(rows.column_names, row)
                raise BadRow(f"{table} row {place} column {name}: {why}", place) from None
        yield f"INSERT OR IGNORE INTO {backquoted(table)}({columns}) VALUES {','.join(lines)}"


def literal(value: Any) -> str:
    """A value as SQL of OpenMLDB 0.9.2 spells it.

    Raises:
        ValueError: it has no literal there.
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        if value == -(1 << 63):
            raise ValueError("the least bigint has no literal in OpenMLDB's SQL")
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no literal in OpenMLDB's SQL")
        return repr(value)
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("OpenMLDB's SQL cuts a text at a NUL character")
        return f"'{value.translate(_ESCAPED)}'"
    return f"'{value.isoformat()}'"


def _first_wrong(names: Sequence[str], row: Sequence[Any]) -> tuple[str, str]:
    for name, value in zip(names, row, strict=True):
        try:
            literal(value)
        except ValueError as error:
            return name, str(error)
    raise RuntimeError("every value has a literal")


def _json_cells(rows: pa.Table) -> list[list[Any]]:
    lines = cells(rows)
    dates = [place for place, field in enumerate(rows.schema) if pa.types.is_date(field.type)]
    for line in lines if dates else ():
        for place in dates:
            line[place] = line[place] and line[place].isoformat()
    return lines


def _answer(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("code"), int):
        text = response.text[:ERROR_CHARS]
        raise StoreUnavailable(f"{response.request.url} is no API server of OpenMLDB: {response.status_code} {text!r}")
    return answer


def _refusal(response: httpx.Response) -> str:
    try:
        return f"{response.status_code} {str(response.json()['msg'])[:ERROR_CHARS]}"
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code} {response.reason_phrase}"
