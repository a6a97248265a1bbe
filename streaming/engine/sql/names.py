"""Names as they stand in SQL."""

from __future__ import annotations

import re

from streaming.engine.sql.tokens import KEYWORDS, RESERVED
from streaming.engine.types import from_name

__all__ = ["quoted"]

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Beside keywords what begins an index or a constraint.
_WORDS = RESERVED | KEYWORDS | {"check", "constraint", "primary"}


def quoted(name: str) -> str:
    """A name as it stands in SQL."""
    word = name.lower()
    bare = _PLAIN.fullmatch(name) is not None and word not in _WORDS and from_name(word) is None
    return name if bare else f"`{name}`"
