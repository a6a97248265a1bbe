"""Features → a dataset: labels, the split by time, the fitted encoder; written, and read back for training.

May be imported by: `train`, `batch.cli`. May import: `features`, `streaming.model.encoder`. `read` needs numpy alone.
"""
