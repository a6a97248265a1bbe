"""What is wrong with an application, on one line that begins with file:line:column."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from streaming.engine import UnsupportedSQL
from streaming.engine.errors import error_at
from streaming.errors import ConfigError

__all__ = ["AppFile", "WrongApp"]

_BYTES_MAX = 4 << 20
_PLACE = re.compile(r" at \d+:\d+\n.*", re.DOTALL)


class WrongApp(ConfigError):
    """An application that cannot run.

    Args:
        path: the file that is wrong.
        line, column: in it, from 1; 0: the file as a whole.
        what: what is wrong, on one line.
    """

    def __init__(self, path: Path, line: int, column: int, what: str) -> None:
        place = f"{path}:{line}:{column}" if line else str(path)
        super().__init__(f"{place}: {' '.join(what.split())}")
        self.path = path
        self.line = line
        self.column = column


class AppFile:
    """One of an application's files.

    Attributes:
        path: where it is.
        text: what is in it.
    """

    def __init__(self, path: Path, text: str | None = None) -> None:
        """
        Args:
            path: where it is.
            text: what is to be in it; None: what is.

        Raises:
            WrongApp: it cannot be read, or is not UTF-8.
        """
        self.path = path
        if text is not None:
            self.text = text
            return
        try:
            found = path.stat()
            if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                raise WrongApp(path, 0, 0, "not a plain file")
            if found.st_size > _BYTES_MAX:
                raise WrongApp(path, 0, 0, f"{found.st_size:,} bytes; at most {_BYTES_MAX:,} are read")
            self.text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a byte order mark
        except OSError as error:
            raise WrongApp(path, 0, 0, error.strerror or str(error)) from None
        except UnicodeDecodeError as error:
            raise WrongApp(path, 0, 0, f"not UTF-8: {error.reason} (byte {error.start})") from None

    def wrong(self, what: str, at: int) -> WrongApp:
        """The error for what stands at offset `at` of the file."""
        place = error_at(self.text, at, what)
        return WrongApp(self.path, place.line, place.column, what)

    def sql_error(self, error: UnsupportedSQL, lines_before: int = 0) -> WrongApp:
        """An error of the engine as one of this file.

        Args:
            lines_before: how many lines stood before the file's text in what the engine was given.
        """
        line = error.line - lines_before if error.line else 0
        return WrongApp(self.path, line, error.column, _PLACE.sub("", str(error)))
