"""The options of LOAD DATA and INTO OUTFILE that say how files are read and written.

Names, defaults and meaning are OpenMLDB's. An option that nobody knows is refused: misspelled, it would change what is
read without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streaming.files.tables.errors import BadFile

__all__ = ["FORMATS", "Options", "load_options", "outfile_options"]

FORMATS = ("parquet", "csv")
MODES = ("error_if_exists", "overwrite", "append")
_READING = {"format", "mode", "delimiter", "header", "null_value", "quote"}
# How a cluster does it, which changes no row; `skip_cvt` is of Hive.
_LOADING = {"deep_copy", "load_mode", "thread", "writer_type", "put_if_absent", "skip_cvt"}
_WRITING = {"coalesce"}


@dataclass(frozen=True)
class Options:
    """How the files of a table are laid out.

    Attributes:
        format: "parquet" or "csv"; all below is of csv.
        delimiter, quote: one ASCII character; no quote: none is special.
        header: whether the first line names the columns.
        null_value: what spells NULL, beside a blank cell.
        mode: what becomes of what is there already.
        put_if_absent: whether a row that is there already is left out.
    """

    format: str = "csv"
    delimiter: str = ","
    quote: str = '"'
    header: bool = True
    null_value: str = "null"
    mode: str = "error_if_exists"
    put_if_absent: bool = False


def load_options(given: Mapping[str, object]) -> Options:
    """The options of a LOAD DATA.

    Raises:
        BadFile: one is unknown, or has no such value.
    """
    known = {key.lower(): value for key, value in given.items()}
    if str(known.get("load_mode", "cluster")).lower() != "cluster":
        raise BadFile("option load_mode: only 'cluster' is known: in 'local' mode OpenMLDB reads other rows from a csv")
    return _options(known, _READING | _LOADING)


def outfile_options(given: Mapping[str, object]) -> Options:
    """The options of an INTO OUTFILE.

    Raises:
        BadFile: see `load_options`.
    """
    return _options({key.lower(): value for key, value in given.items()}, _READING | _WRITING)


def _options(given: Mapping[str, object], known: set[str]) -> Options:
    for key in given:
        if key not in known:
            raise BadFile(f"option {key}: there is none of this name, but {', '.join(sorted(known))}")
    found: dict[str, Any] = {}
    for key in ("format", "mode"):
        if key in given:
            found[key] = str(given[key]).lower()
    for key in ("delimiter", "quote", "null_value"):
        if key in given:
            if not isinstance(given[key], str):
                raise BadFile(f"option {key}: {given[key]!r} is not a text")
            found[key] = given[key]
    for key in ("header", "put_if_absent"):
        if key in given:
            found[key] = _truth(key, given[key])
    options = Options(**found)
    if options.format not in FORMATS:
        raise BadFile(f"option format: {options.format!r} is neither 'parquet' nor 'csv'")
    if options.mode not in MODES:
        raise BadFile(f"option mode: {options.mode!r} is none of {', '.join(map(repr, MODES))}")
    _check_csv(options)
    return options


def _truth(key: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise BadFile(f"option {key}: {value!r} is neither true nor false")


def _check_csv(options: Options) -> None:
    for key, value in (("delimiter", options.delimiter), ("quote", options.quote)):
        one = len(value) == 1 and value.isascii() and value not in "\r\n\0"
        if not one and (key, value) != ("quote", ""):
            raise BadFile(f"option {key}: {value!r} is not one ASCII character")
    if options.delimiter == options.quote:
        raise BadFile(f"options delimiter and quote: both are {options.quote!r}")
    if any(character in options.null_value for character in f"\r\n{options.delimiter}{options.quote}"):
        raise BadFile(f"option null_value: {options.null_value!r} has the delimiter, the quote or a line's end in it")
