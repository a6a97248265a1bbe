"""Text of a script → its tree.

May be imported by: every room of the engine but `storage`, `kernels`, `library`, `native`. May import: `types`,
`errors`.
"""
