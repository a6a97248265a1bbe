"""A csv file's rows as its table's.

An unquoted blank cell, or one that is `null_value`, is NULL; what is quoted is text, '' too. Arrow cuts the cells;
before that every quote is looked at (`_check_quotes`), because Arrow takes one within a cell for whatever it may mean.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from streaming.files.tables.celltext import parsed
from streaming.files.tables.convert import as_text
from streaming.files.tables.errors import BadCell, BadFile
from streaming.files.tables.options import Options

__all__ = ["batches", "header_of"]

_BLOCK_BYTES = 1 << 24  # also the longest row
_CHUNK_BYTES = 1 << 26
_BOM = b"\xef\xbb\xbf"

Bytes = npt.NDArray[np.uint8]


def header_of(file: Path, options: Options) -> list[str]:
    """The names that the first line gives to the columns.

    Raises:
        BadFile: there is none, or it is no csv.
    """
    data = _bytes(file)
    _check_quotes(file, data, options)
    names, _ = _header(file, data, options)
    return names


def batches(
    file: Path, schema: pa.Schema, options: Options, places: list[int], width: int
) -> Iterator[tuple[int, pa.Table]]:
    """The number of the first row, and rows in `schema`; rows count from 0 after the header.

    Args:
        places: of each of the schema's columns its number in the file. width: the file's columns.

    Raises:
        BadFile: a quote stands where none can, a row has more or fewer cells, a cell is none of its column's values.
    """
    data = _bytes(file)
    if options.header:
        _, start = _header(file, data, options)
    else:
        _check_quotes(file, data, options)
        start = len(_BOM) if bytes(data[:3]) == _BOM else 0
    if start >= len(data):
        return
    wrong: list[pa.csv.InvalidRow] = []

    def refuse(row: Any) -> str:
        wrong.append(row)
        return "error"

    names = [str(place) for place in range(width)]
    wanted = [names[place] for place in places]
    parsing = pa.csv.ParseOptions(
        delimiter=options.delimiter,
        quote_char=options.quote or False,
        newlines_in_values=True,
        ignore_empty_lines=width > 1,
        invalid_row_handler=refuse,
    )
    converting = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.binary()),
        include_columns=wanted,
        check_utf8=False,
        null_values=["", options.null_value],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    reading = pa.csv.ReadOptions(column_names=names, use_threads=False, block_size=_BLOCK_BYTES)
    at = 0
    try:
        with pa.OSFile(str(file)) if data[-1] in b"\r\n" else pa.PythonFile(_Ended(file)) as source:
            source.seek(start)
            for batch in pa.csv.open_csv(source, reading, parsing, converting):
                yield at, _converted(file, at, batch, schema)
                at += batch.num_rows
    except pa.ArrowInvalid as error:
        if wrong:
            row = wrong[0]
            raise BadFile(
                f"{file}: row {row.number - 1}: {row.actual_columns} cells instead of {row.expected_columns}"
            ) from None
        raise BadFile(f"{file}: row {at} or later: {error}") from None


class _Ended(io.FileIO):
    """A file with a line's end behind its last row, without which Arrow takes a blank last cell for a quoted one."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self._more = b"\n"

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size)
        if not data and size:
            data, self._more = self._more, b""
        return data or b""


def _converted(file: Path, at: int, batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    columns = []
    for place, field in enumerate(schema):
        try:
            cells = as_text(batch.column(place))
            columns.append(parsed(cells, field.type))
        except BadCell as error:
            raise BadFile(f"{file}: row {at + error.row}, column {field.name}: {error}") from None
    return pa.Table.from_arrays(columns, schema=schema)


def _bytes(file: Path) -> Bytes:
    try:
        if not file.stat().st_size:
            return np.empty(0, np.uint8)
        return np.memmap(file, np.uint8, "r")
    except OSError as error:
        raise BadFile(f"{file}: {error.strerror or error}") from error


def _header(file: Path, data: Bytes, options: Options) -> tuple[list[str], int]:
    """The names, and where the row after them begins."""
    start = len(_BOM) if bytes(data[:3]) == _BOM else 0
    head = bytes(data[start : start + _BLOCK_BYTES])
    quote, inside, end = options.quote.encode(), False, len(head)
    for at in range(len(head)):
        byte = head[at : at + 1]
        if quote and byte == quote:
            inside = not inside
        elif byte in (b"\n", b"\r") and not inside:
            end = at
            break
    if not end:
        raise BadFile(
            f"{file}: the first line, which names the columns, is empty (OPTIONS(header=false): there is none)"
        )
    try:
        text = head[:end].decode()
    except UnicodeDecodeError:
        raise BadFile(f"{file}: the names of the columns are not UTF-8") from None
    style: dict[str, Any] = {"quotechar": options.quote} if quote else {"quoting": csv.QUOTE_NONE}
    try:
        (names,) = csv.reader(io.StringIO(text, newline=""), delimiter=options.delimiter, **style)
    except csv.Error as error:  # a NUL, as UTF-16 has them, or a name of more than 128 KiB
        raise BadFile(f"{file}: line 1, which names the columns, is no csv: {error}") from None
    after = start + end
    return names, after + (2 if head[end : end + 2] == b"\r\n" else 1)


def _check_quotes(file: Path, data: Bytes, options: Options) -> None:
    """Refuses a quote that neither begins nor ends a cell and is not one of two within a quoted one.

    Quotes open and close in turn, a doubled one closes and opens. One that opens must follow a delimiter, a line's end
    or a quote, one that closes must stand before one of these.
    """
    if not options.quote or not len(data):
        return
    quote = ord(options.quote)
    beside = np.zeros(256, bool)
    beside[[ord(options.delimiter), ord("\n"), ord("\r"), quote]] = True
    begin = len(_BOM) if bytes(data[:3]) == _BOM else 0
    count, last = 0, len(data) - 1
    latest = begin
    for start in range(begin, len(data), _CHUNK_BYTES):
        places = np.flatnonzero(data[start : start + _CHUNK_BYTES] == quote) + start
        if not len(places):
            continue
        opens = (count + np.arange(len(places))) % 2 == 0
        neighbours = np.clip(np.where(opens, places - 1, places + 1), begin, last)
        edge = np.where(opens, places == begin, places == last)
        good = beside[data[neighbours]] | edge
        if not good.all():
            raise _stray(file, data, int(places[int(np.flatnonzero(~good)[0])]), options.quote)
        count += len(places)
        latest = int(places[-1])
    if count % 2:
        raise BadFile(f"{file}: line {_line(data, latest)}: a quote that is never closed")


def _stray(file: Path, data: Bytes, place: int, quote: str) -> BadFile:
    near = bytes(data[max(0, place - 20) : place + 20]).decode(errors="replace")
    return BadFile(
        f"{file}: line {_line(data, place)}: a quote inside of a cell, near {near!r}: within a quoted cell it is "
        f"written twice ({quote}{quote}); OPTIONS(quote='') reads a file without quoting"
    )


def _line(data: Bytes, place: int) -> int:
    return 1 + sum(
        int(np.count_nonzero(data[start : min(place, start + _CHUNK_BYTES)] == 10))
        for start in range(0, place, _CHUNK_BYTES)
    )
