"""The embedded engine: OpenMLDB's tables, feature SQL and answers, in this process.

A script's way: `sql` (text → tree) → `plan` (names, types → typed expressions) → `program` (→ instructions, and running
them by `kernels` over the tables of `storage`). `statements` runs what is no SELECT, `deployment` what DEPLOY makes;
`library` has the functions in Python, `native` makes machine code of the kernels. `engine` puts all of it together;
`projection` is the little of it that computes expressions over rows of one table, without a store.

May be imported by: every room that asks for features; of its parts `sql`, `errors`, `types`, `statements.outfile`,
`deployment.contract`, `storage.catalogue`, `storage.snapshot` and `native.warm`; by `streaming.app`, which plans
expressions over events, also `projection`, `plan.scope`, `storage.rows` and `storage.table`. May import:
`streaming.files`. Inside, imports go from left to right only: `engine` and `projection`, `statements`, `deployment`,
`program`, `plan`, `kernels`, `sql`, `storage`, `library`, `native`, then `types` and `errors`. `plan` imports
`kernels.instructions` and no other kernel.

`docs/reference/sql` says what is supported.
"""

from streaming.engine.engine import Engine, Mark, TableStats
from streaming.engine.errors import BadRow, UnsupportedSQL
from streaming.engine.statements.file_reach import OutOfReach

__all__ = ["BadRow", "Engine", "Mark", "OutOfReach", "TableStats", "UnsupportedSQL"]
