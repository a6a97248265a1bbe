"""Names in SQL: JSON's fields as they are; columns and tables made of them."""

from __future__ import annotations

import re

__all__ = ["Names", "can_be_named", "identifier"]


def can_be_named(field: str) -> bool:
    """Whether events.sql can name a field of JSON: no quotes, backslashes or control characters are in it."""
    return bool(field) and field.isprintable() and not any(mark in field for mark in "`'\"\\")


def identifier(text: str, default: str) -> str:
    """A name of letters, digits and `_`, made of any text; `default` where nothing of it can stay."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_") or default
    name = f"{default}_{name}" if name[0].isdigit() else name
    return name[:60]


class Names:
    """Gives each name once; capitals make no difference."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, name: str) -> str:
        """The name, or where it is taken, with a number behind it."""
        found, number = name, 1
        while found.lower() in self._taken:
            number += 1
            found = f"{name}_{number}"
        self._taken.add(found.lower())
        return found
