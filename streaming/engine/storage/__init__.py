"""Tables: their names, rows, indexes and strings; rows in and out as Arrow; what stays and what is freed; snapshots.

May be imported by: every room of the engine but `sql`, `library` and `native`. May import: `library`, `native`,
`types`, `errors`.
"""
