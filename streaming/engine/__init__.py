"""The embedded engine: OpenMLDB's tables, feature SQL and answers, in this process.

parse (text -> syntax) -> plan (names, types -> nodes) -> emit (-> instructions) -> table, window, scalar, aggregate
(data and kernels) -> execute (the engine that drives them). `docs/feature-sql.md` says what is supported.
"""

from streaming.engine.engine import Engine, Mark, TableStats
from streaming.engine.errors import BadRow, UnsupportedSQL
from streaming.engine.statements.file_reach import OutOfReach

__all__ = ["BadRow", "Engine", "Mark", "OutOfReach", "TableStats", "UnsupportedSQL"]
