"""`jd-intent-score serve` and `predict`: features and probability of one request row over HTTP, as the tutorial's
predict server gives them, over a replica of the scorer's state.

May be imported by: `cli`. May import: `kafka`, `model`, `store`, `web` and what is below them.
"""
