"""Bytes of Kafka messages and what they mean: actions and dimension rows in, scores and dead letters out.

May be imported by: everything above. May import: `ops.log`, `config`, `errors`.
"""
