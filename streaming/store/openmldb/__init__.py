"""An OpenMLDB cluster as a feature store: over its SDK, which runs in a process of its own, or over its API server.

May be imported by: `store`, `cli`. May import: the engine, `events`, `web.client`.
"""
