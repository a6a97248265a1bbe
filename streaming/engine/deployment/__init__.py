"""What a DEPLOY makes of a query besides its program: times to live, the plan in words, what a cluster must answer.

May be imported by: `engine`, and `store` for `answer_shape`. May import: `program`, `plan`, `storage`.
"""
