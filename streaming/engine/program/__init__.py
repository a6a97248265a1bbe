"""A plan → instructions, and running them: over requests, over a replay, over every row of a table offline.

May be imported by: `deployment`, `engine`. May import: `plan`, `kernels`, `sql` (for messages), `storage`, `library`.
"""
