"""What is wrong with a file, and where in it."""

from __future__ import annotations

from collections.abc import Sequence

from streaming.errors import BadInput

__all__ = ["BadCell", "BadFile", "listed", "shown"]


class BadFile(BadInput):
    """A file, or what should be one, that cannot be used; the message names file, row (from 0) and column."""


class BadCell(ValueError):
    """A value that its column does not take.

    Attributes:
        row: its number in what was converted, from 0; -1: the whole column is of a wrong type.
    """

    def __init__(self, why: str, row: int = -1) -> None:
        super().__init__(why)
        self.row = row


def listed(names: Sequence[str]) -> str:
    """Names as they stand in a message: not all of hundreds, and none of a page's length."""
    short = [name if len(name) <= 60 else f"{name[:57]}…" for name in names[:30]]
    return ", ".join(short + ["…"] * (len(names) > 30))


def shown(value: object) -> str:
    """A value as it stands in a message: not long, and on one line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
