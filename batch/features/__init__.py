"""Offline features: the feature query over history, by the embedded engine, an OpenMLDB cluster, or Spark.

May be imported by: `dataset`, `batch.cli`, `replay`. May import: `streaming.engine`, `streaming.files`,
`streaming.store`, `streaming.ops.environment`.
"""
