"""`jd-intent-score apiserver`: OpenMLDB's REST interface over the embedded engine, to develop without a cluster.

May be imported by: `cli`. May import: `store`, `web`, the engine and what is below them.
"""
