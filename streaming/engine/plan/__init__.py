"""The tree of a SELECT → typed expressions over tables, joins and windows.

May be imported by: `program`, `deployment`, `statements`. May import: `sql`, `library`, `storage`,
`kernels.instructions`.
"""
