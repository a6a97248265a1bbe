"""Programs that run beside the scorer in benchmarks, each by itself in the environment `peers`.

May import nothing of the project: their environment does not have it.
"""
