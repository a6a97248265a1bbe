"""The tree of a SELECT → typed expressions over tables, joins and windows.

May be imported by: `program`, `deployment`, `statements`, `engine`. May import: `kernels.instructions`, `sql`,
`storage`, `library`.
"""
