"""The embedded engine: OpenMLDB's tables, feature SQL and answers, in this process.

parse (text -> syntax) -> plan (names, types -> nodes) -> emit (-> instructions) -> table, window, scalar, aggregate
(data and kernels) -> execute (the engine that drives them). `docs/reference/sql` says what is supported.

May be imported by: `state`, `store` and what is above them, `batch`. May import: `files`, `errors`. Its rooms, from
the top: statements and deployment, program, plan, kernels, sql and storage, library and native.
"""

from streaming.engine.engine import Engine, Mark, TableStats
from streaming.engine.errors import BadRow, UnsupportedSQL
from streaming.engine.statements.file_reach import OutOfReach

__all__ = ["BadRow", "Engine", "Mark", "OutOfReach", "TableStats", "UnsupportedSQL"]
