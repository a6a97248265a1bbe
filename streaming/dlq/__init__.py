"""`jd-intent-score dlq`: what is in the dead-letter topic, why, and how it goes back to where it came from.

May be imported by: `cli`. May import: `loop.poison`, `kafka`, `events` and what is below them.
"""
