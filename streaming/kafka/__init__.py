"""Reading and writing Kafka: consumers, the transactional producer, and whether the log is the one that is meant.

May be imported by: everything above. May import: `events`, `ops`; nothing of the store or the model.
"""
