"""Names that cannot be: of topics, as Kafka would refuse them, and of fields of JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["field_fault", "topic_fault"]

_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


def field_fault(name: str) -> str:
    """Why no field of a record or a score can have a name, on one line; '': it can."""
    if not name or any(letter in '"\\' or letter < " " for letter in name):
        return f"the field {name!r}: a name has letters, and no quotes, backslashes or control characters"
    return ""


def topic_fault(name: str, others: Iterable[str]) -> str:
    """Why no topic can have a name, on one line; '': it can.

    Args:
        name: the name.
        others: the topics beside it, of other names.
    """
    if not _NAME.fullmatch(name) or name in (".", ".."):
        shown = name if len(name) <= 60 else f"{name[:60]}…"
        return f"topic {shown!r}: Kafka takes 1 to 249 of A-Z, a-z, 0-9, `.`, `_`, `-`"
    metric = name.replace(".", "_")
    for other in others:
        if other != name and other.replace(".", "_") == metric:
            return f"topic {name!r}: Kafka has none beside {other!r}, as `.` and `_` are the same to its metrics"
    return ""
