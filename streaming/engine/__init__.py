"""The embedded engine: OpenMLDB's tables, feature SQL and answers, in this process.

parse (text -> syntax) -> plan (names, types -> nodes) -> emit (-> instructions) -> table, window, scalar, aggregate
(data and kernels) -> execute (the engine that drives them). `docs/feature-sql.md` says what is supported.
"""

from streaming.engine.cache import use_kernel_cache

use_kernel_cache()

from streaming.engine.errors import BadRow, UnsupportedSQL  # noqa: E402 -- kernels are imported from here on
from streaming.engine.execute import Engine, Mark, TableStats  # noqa: E402

__all__ = ["BadRow", "Engine", "Mark", "TableStats", "UnsupportedSQL"]
