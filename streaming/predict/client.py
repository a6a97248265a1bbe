"""The client of `jd-intent-score serve`: one request row in, its features and probability out, as in the tutorial."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.text import Text

from streaming.errors import ScorerError, Unavailable
from streaming.web.client import connect

__all__ = ["NoAnswer", "PredictFailed", "ask", "read_row", "run_predict", "show"]

URL = "http://127.0.0.1:9080"


class PredictFailed(ScorerError):
    """The row cannot be read, or the server refuses it; the message is the server's own where there is one."""


class NoAnswer(PredictFailed, Unavailable):
    """The server is not there, or not ready to answer."""


def run_predict(
    words: Sequence[str] = (),
    *,
    file: Path | None = None,
    row: int = 0,
    url: str = URL,
    ids: bool = False,
    as_json: bool = False,
    timeout_s: float = 30.0,
    token: str | None = None,
    ca: Path | None = None,
) -> None:
    """Sends one row and prints the answer on stdout.

    Args:
        words: the row as one JSON object, or as `column=value` words whose types come from the server's schema.
        file: or the file it is in: .json (an object), .jsonl or .parquet.
        row: its number in the file, from 0.
        ids: show the encoder's ids, too.
        as_json: print the server's answer as it came.
        token: shown to the server.
        ca: certificates, PEM, that vouch for it; default: this machine's own.

    Raises:
        PredictFailed: see there.
        ConfigError: the URL, the token or the certificates are wrong.
    """
    with connect("--url", url, token=token, ca=ca, timeout=timeout_s) as client:
        answer = ask(client, read_row(client, words, file, row), ids=ids)
    if as_json:
        print(json.dumps(answer, ensure_ascii=False))
    else:
        show(answer, Console(highlight=False))


def read_row(client: httpx.Client, words: Sequence[str], file: Path | None, row: int) -> dict[str, Any]:
    """The request row as the server takes it."""
    if bool(words) == (file is not None):
        raise PredictFailed("give one row: as JSON, as column=value words, or with --file FILE")
    if file is not None:
        return _from_file(file, row, client)
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        return _object(words[0], "the row")
    return _from_words(words, client)


def ask(client: httpx.Client, row: dict[str, Any], *, ids: bool = False) -> dict[str, Any]:
    """`POST /predict`; returns its JSON.

    Raises:
        PredictFailed: no answer, or another status than 200.
    """
    return _call(client, "POST", "/predict", json=row, params={"ids": "true"} if ids else {})


def show(answer: dict[str, Any], console: Console) -> None:
    """Prints the features by name, one a line, and the probability."""
    _section(console, "features", answer["features"])
    if "ids" in answer:
        _section(console, "ids", answer["ids"])
    console.print(f"[bold]purchase probability[/bold]  {answer['probability']:.6f}")
    console.print(f"[bold]model[/bold]                 {answer['model']}, version {answer['model_version']}")


def _section(console: Console, title: str, values: dict[str, Any]) -> None:
    console.print(f"[bold]{title}[/bold]")
    width = max(map(len, values), default=0)
    for name, value in values.items():
        # Strings are quoted: '' and 'NULL' are not NULL. Text, not markup: a value may hold square brackets.
        shown = "NULL" if value is None else repr(value)
        console.print(Text.assemble((name.ljust(width), "cyan"), "  ", shown), soft_wrap=True)


def _call(client: httpx.Client, method: str, path: str, **arguments: Any) -> dict[str, Any]:
    try:
        response = client.request(method, path, **arguments)
    except httpx.UnsupportedProtocol as error:
        raise PredictFailed(f"--url {client.base_url}: {error}") from error
    except httpx.HTTPError as error:
        raise NoAnswer(f"{client.base_url}: {error or type(error).__name__}") from error
    except (TypeError, ValueError) as error:  # json= could not be written
        raise PredictFailed(f"the row is not JSON: {error}") from error
    if response.status_code != httpx.codes.OK:
        away = response.status_code == httpx.codes.SERVICE_UNAVAILABLE
        raise (NoAnswer if away else PredictFailed)(
            f"{response.status_code} {response.reason_phrase}: {_detail(response)}"
        )
    try:
        body = response.json()
    except ValueError as error:
        raise PredictFailed(f"{client.base_url}: the answer is not JSON: is this a predict server?") from error
    if not isinstance(body, dict):
        raise PredictFailed(f"{client.base_url}: the answer is not an object: is this a predict server?")
    return body


def _detail(response: httpx.Response) -> str:
    """The server's message; of a refused row, one `column: problem` each."""
    try:
        detail = response.json()["detail"]
        if isinstance(detail, str):
            return detail
        return "; ".join(f"{'.'.join(map(str, part['loc'][1:])) or 'row'}: {part['msg']}" for part in detail)
    except (ValueError, KeyError, TypeError):
        return f"{response.url} has no answer in JSON: is this a predict server?"


def _types(client: httpx.Client) -> dict[str, str]:
    """OpenMLDB type of each column of the request, as the server says."""
    return {column["name"]: column["type"] for column in _call(client, "GET", "/schema")["request"]}


def _object(text: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PredictFailed(f"{place} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise PredictFailed(f"{place} is not a JSON object")
    return value


def _from_words(words: Sequence[str], client: httpx.Client) -> dict[str, Any]:
    types, row = _types(client), {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise PredictFailed(f"{word!r} is not column=value")
        if name not in types:
            raise PredictFailed(f"there is no column {name!r}; the columns are {', '.join(types)}")
        if name in row:
            raise PredictFailed(f"column {name!r} is given twice")
        try:
            row[name] = text if types[name] in ("string", "date") else json.loads(text)
        except (ValueError, RecursionError):
            raise PredictFailed(f"{name}: {text!r} is not a {types[name]}") from None
    return row


def _from_file(file: Path, row: int, client: httpx.Client) -> dict[str, Any]:
    try:
        if file.suffix == ".json":
            if row:
                raise PredictFailed(f"{file} holds one row; --row {row} needs a .jsonl or .parquet file")
            return _object(file.read_text(encoding="utf-8"), str(file))
        if file.suffix == ".jsonl":
            with file.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines):
                    if number == row:
                        return _object(line, f"{file} row {row}")
            raise PredictFailed(f"{file} has no row {row}")
        if file.suffix == ".parquet":
            return _from_parquet(file, row, client)
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise PredictFailed(f"{file} cannot be read: {error}") from error
    raise PredictFailed(f"{file}: the name must end in .json, .jsonl or .parquet")


def _from_parquet(file: Path, row: int, client: httpx.Client) -> dict[str, Any]:
    """One row, only its row group read; columns that the request table does not have are left out."""
    with pq.ParquetFile(file) as parquet:
        if not 0 <= row < parquet.metadata.num_rows:
            raise PredictFailed(f"{file} has no row {row}: it has {parquet.metadata.num_rows}")
        columns = [name for name in _types(client) if name in parquet.schema_arrow.names]
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if row < rows:
                return _json_row(parquet.read_row_group(group, columns=columns).slice(row, 1))
            row -= rows
    raise AssertionError("unreachable: the row lies in one of the groups")


def _json_row(table: pa.Table) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        epoch = (
            pc.floor_temporal(column, unit="millisecond").cast(pa.timestamp("ms")).cast(pa.int64())
            if (pa.types.is_timestamp(column.type))
            else column
        )
        value = epoch[0].as_py()
        values[name] = value.isoformat() if isinstance(value, datetime.date) else value
    return values
