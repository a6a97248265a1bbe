"""What `jd-intent-score dlq` prints (`streaming.dlq` does the work)."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console
from rich.table import Table

from streaming.config import load
from streaming.dlq import Filter, find, places, since
from streaming.errors import ConfigError

__all__ = ["filter_of", "list_letters", "show_letter"]


def filter_of(reasons: Collection[str], topics: Collection[str], age: str, at: Collection[str] = ()) -> Filter:
    """From the words of a command line.

    Raises:
        ConfigError: an age or a place is none.
    """
    return Filter(reasons, topics, since(age, datetime.now(timezone.utc)) if age else 0, places(at))


def list_letters(file: Path | None, wanted: Filter, limit: int, *, as_json: bool) -> None:
    """A table, or JSON lines."""
    found, count = find(load(file), wanted, limit)
    if as_json:
        for letter in found:
            print(json.dumps(letter.told(), ensure_ascii=False))
        return
    table = Table("place", "written", "from", "reason", "message", "")
    for letter in found:
        state = f"cut: {letter.cut}" if letter.cut else ""
        fields = letter.told()
        table.add_row(fields["place"], fields["written"], fields["origin"] or "?", letter.reason, letter.message, state)
    Console(highlight=False, markup=False).print(table)
    print(f"{len(found)} of {count}")


def show_letter(file: Path | None, at: str) -> None:
    """One, with everything that it holds.

    Raises:
        ConfigError: there is none.
    """
    config = load(file)
    found, _ = find(config, Filter(places=places([at])), 1)
    if not found:
        raise ConfigError(f"{at}: no dead letter is there")
    (letter,) = found
    print(json.dumps(letter.told(whole=True), ensure_ascii=False, indent=2))
