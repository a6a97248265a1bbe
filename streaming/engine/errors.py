"""What the engine refuses, and how it says where."""

from __future__ import annotations

__all__ = ["BadRow", "UnsupportedSQL", "error_at"]


class UnsupportedSQL(ValueError):
    """A statement that the engine does not run: a syntax error, an unknown name, or a construct outside its dialect.

    The message names the construct and its line:column and shows that line of the script with a caret.

    Attributes:
        line: line in the script, counted from 1 (0: the place is not known).
        column: column in that line, counted from 1.
    """

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class BadRow(ValueError):
    """A row that a table or a deployment refuses; the message names table, row number (from 0) and column.

    Attributes:
        row: number of the row in the rows that were given, or -1 where all rows are concerned.
    """

    def __init__(self, message: str, row: int = -1) -> None:
        super().__init__(message)
        self.row = row


def error_at(script: str, offset: int, what: str) -> UnsupportedSQL:
    """The error for `what` at character `offset` of `script`."""
    start = script.rfind("\n", 0, offset) + 1
    end = script.find("\n", offset)
    text = script[start : end if end >= 0 else len(script)]
    line, column = script.count("\n", 0, offset) + 1, offset - start + 1
    left = max(0, column - 60)  # long lines: the caret must stay in view
    shown = text[left : left + 110]
    return UnsupportedSQL(f"{what} at {line}:{column}\n  {shown}\n  {' ' * (column - 1 - left)}^", line, column)
