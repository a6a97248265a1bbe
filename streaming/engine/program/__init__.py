"""A plan → instructions, and running them over a batch of requests.

May be imported by: `deployment`, `statements`, `engine`. May import: `plan`, `kernels`, `storage`, `library`.
"""
