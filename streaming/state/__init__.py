"""The embedded tables on disk: snapshots, from which a restart begins.

May be imported by: `loop`. May import: `kafka`, `store`, `events`, `ops`, the engine.
"""
