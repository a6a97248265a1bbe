"""What DEPLOY makes of a query: a deployment, its indexes' times to live, its contract, its plan in words.

May be imported by: `engine`, `statements`, and `store` for `contract`. May import: `program`, `plan`, `kernels`
(`instructions`), `sql`, `storage`.
"""
