"""Text of a script → its tree.

May be imported by: `plan`, `program`, `deployment`, `statements`, `engine`, and whoever reads scripts. May import:
`types`, `errors`.
"""
