"""Features → a dataset: labels, the split by time, the fitted encoder; written, and read back for training.

May be imported by: `report`, `train`, `batch.cli`. May import: `features`, `streaming.model.encoder`.
`read` needs numpy and pyarrow alone.
"""
