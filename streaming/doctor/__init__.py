"""`jd-intent-score doctor`: is everything there that `run` needs, and may it be used?

May be imported by: `cli`. May import: `kafka`, `model`, `store` and what is below them.
"""
