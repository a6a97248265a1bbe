"""Compiled code that runs a program's instructions: scalars, windows, joins, aggregates, results as Arrow.

`instructions` and `operands` say how a program is laid out; `interpreter` is what Python calls.

May be imported by: `plan` and `deployment` (`instructions` only), `program`. May import: `storage`, `native`, `types`.
"""
