"""A generated shop: products, users, and what they do, with intent to learn and a known ceiling.

May be imported by: `batch.cli`. May import: `dataset.label`.
"""
