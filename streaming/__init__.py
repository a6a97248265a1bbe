"""Online: actions in on Kafka, purchase probabilities out.

May be imported by: `batch`, `deploy`, `benchmarks`, tests. May import: nothing else of the project.
"""
