"""From features to probabilities: the encoder, the artifact that it is part of, and the client of Triton.

May be imported by: `loop`, `predict`, `doctor`, `batch`. May import: `app`, `store.sql_scripts`, `ops`,
the engine's tokens.
"""
