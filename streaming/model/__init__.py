"""From features to probabilities: the encoder, the artifact that it is part of, and the client of Triton;
and how good probabilities are.

May be imported by: `loop`, `predict`, `doctor`, `board`, `batch`. May import: `app`, `store.sql_scripts`, `ops`,
the engine's tokens.
"""
