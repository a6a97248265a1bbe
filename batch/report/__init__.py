"""How good a model is: figures of its probabilities, as JSON and as one page with plots that needs nothing besides.

May be imported by: `train`, `batch.match`, `batch.cli`. May import: `dataset.read`, `streaming.files`.
Runs in either environment.
"""
