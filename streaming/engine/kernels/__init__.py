"""Compiled code that runs a program's instructions: scalars, windows, joins, aggregates, results as Arrow.

May be imported by: `plan` (the instructions), `program`. May import: `storage`, `native`.
"""
