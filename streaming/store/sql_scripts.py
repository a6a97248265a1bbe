"""SQL scripts: their text, with the one feature query in its place, and whose line and column an error means.

`{features.sql}` in a script of one's own stands for the query of the file `features.sql` beside it: the query is
written once, and a script holds only what it does with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from streaming.engine.errors import BadRow, UnsupportedSQL
from streaming.engine.sql.parse import statement_text
from streaming.engine.sql.tokens import Token, tokens_of
from streaming.errors import ConfigError

__all__ = [
    "FEATURES",
    "Script",
    "ScriptPlace",
    "blanked",
    "read_script",
    "statement_texts",
    "statement_tokens",
    "within",
]

FEATURES = "features.sql"
"""The file of the feature query."""

PLACEHOLDER = f"{{{FEATURES}}}"


class ScriptPlace(NamedTuple):
    """A place in a file.

    Attributes:
        path: the file.
        line, column: from 1.
    """

    path: Path
    line: int
    column: int


@dataclass(frozen=True)
class _Query:
    """The feature query in a script.

    Attributes:
        path: the file that it was read from.
        content: of that file, whole.
        at: offset of the query in `content`.
        script_at: offset of the query in the script's text.
        length: characters of the query.
    """

    path: Path
    content: str
    at: int
    script_at: int
    length: int


@dataclass(frozen=True)
class Script:
    """A script as it is run.

    Attributes:
        path: the file that it was read from.
        text: its statements, the feature query in its place.
        files: that its text is made of.
    """

    path: Path
    text: str
    _query: _Query | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,) if self._query is None else (self.path, self._query.path)

    def place(self, line: int, column: int) -> ScriptPlace:
        """Where in its files a line and column (from 1) of `text` are written."""
        return self.place_at(_offset(self.text, line, column))

    def place_at(self, offset: int) -> ScriptPlace:
        """Where in its files a character of `text` is written."""
        query = self._query
        if query is None or offset < query.script_at:
            return ScriptPlace(self.path, *_line_column(self.text, offset))
        if offset <= query.script_at + query.length:
            return ScriptPlace(query.path, *_line_column(query.content, query.at + offset - query.script_at))
        return ScriptPlace(self.path, *_line_column(self._written(), offset - query.length + len(PLACEHOLDER)))

    def line(self, place: ScriptPlace) -> str:
        """The line of the file in which a place of this script lies."""
        query = self._query
        content = query.content if query is not None and place.path == query.path else self._written()
        return content.split("\n")[place.line - 1]

    def _written(self) -> str:
        """The content of the script's own file."""
        if self._query is None:
            return self.text
        query = self._query
        return self.text[: query.script_at] + PLACEHOLDER + self.text[query.script_at + query.length :]


def read_script(path: Path, key: str = "") -> Script:
    """Reads a script, and the feature query where the script asks for it.

    Args:
        path: the script's file; the feature query is read from the same folder.
        key: of the configuration, where that named the script's folder.

    Raises:
        ConfigError: a file cannot be read, or is not UTF-8; then the place of the first wrong byte is named. The
            feature query's file holds more or less than one statement.
        UnsupportedSQL: the feature query cannot be taken apart; file, line and column are named.
    """
    before, placeholder, after = _content(path, key).partition(PLACEHOLDER)
    if not placeholder:
        return Script(path, before)
    query_path = path.with_name(FEATURES)
    content = _content(query_path, key)
    with within(Script(query_path, content)):
        statements = list(statement_tokens(content))
    if len(statements) != 1:
        raise ConfigError(f"{query_path}: {path.name} takes one query from it, and it has {len(statements)} statements")
    at = statements[0][0].at
    query = statement_text(content, at)
    return Script(path, before + query + after, _Query(query_path, content, at, len(before), len(query)))


def statement_tokens(text: str) -> Iterator[list[Token]]:
    """The tokens of each statement of a script, without its `;`; of an empty one nothing.

    Raises:
        UnsupportedSQL: an unclosed string, or a character that is none of SQL's.
    """
    statement: list[Token] = []
    for token in tokens_of(text):
        if token.kind != "end" and token.text != ";":
            statement.append(token)
        elif statement:
            yield statement
            statement = []


def statement_texts(text: str) -> Iterator[str]:
    """The statements of a script as they are written, without comments and `;`: the SDK runs one at a time.

    Raises:
        UnsupportedSQL: as `statement_tokens`.
    """
    for statement in statement_tokens(text):
        parts, end = [], statement[0].at
        for token in statement:
            parts += [_without_comments(text[end : token.at]), token.text]
            end = token.at + len(token.text)
        yield "".join(parts)


def blanked(text: str) -> str:
    """Blanks and line ends in the place of `text`: what stands behind it keeps its line and column."""
    return "".join("\n" if letter == "\n" else " " for letter in text)


@contextlib.contextmanager
def within(script: Script) -> Iterator[None]:
    """Puts the file's name before what the engine says about a script's text, and the place in that file into it."""
    try:
        yield
    except UnsupportedSQL as error:
        if not error.line:
            raise UnsupportedSQL(f"{script.path}: {error}") from error
        path, line, column = script.place(error.line, error.column)
        message = str(error).replace(f" at {error.line}:{error.column}\n", f" at {line}:{column}\n", 1)
        raise UnsupportedSQL(f"{path}: {message}", line, column) from error
    except BadRow as error:
        raise BadRow(f"{script.path}: {error}", error.row) from error


def _content(path: Path, key: str) -> str:
    named = f"{key}: {path}" if key else str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{named} cannot be read: {error.strerror}") from error
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        line, column = _line_column(before, len(before))
        raise ConfigError(f"{named} is not UTF-8: byte 0x{content[error.start]:02x} at {line}:{column}") from error


def _without_comments(gap: str) -> str:
    """The white space of what stands between two tokens."""
    kept = ""
    while gap:
        if gap.startswith("/*"):
            gap = gap[gap.index("*/") + 2 :]
        elif gap.startswith(("--", "#")):
            gap = gap[gap.index("\n") :]  # a token follows, on another line
        else:
            kept, gap = kept + gap[0], gap[1:]
    return kept


def _offset(text: str, line: int, column: int) -> int:
    start = 0
    for _ in range(line - 1):
        start = text.index("\n", start) + 1
    return start + column - 1


def _line_column(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)
