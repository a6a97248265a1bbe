"""Where things lie: the repository, the recorded cases, and the data beside it that is too big for it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CASES", "REPOSITORY", "SHARED", "SQL"]

REPOSITORY = Path(__file__).resolve().parents[1]
SQL = REPOSITORY / "sql"
CASES = REPOSITORY / "tests" / "cases"
SHARED = REPOSITORY.parent / "shared"
