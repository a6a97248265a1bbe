"""Reading and writing Kafka: consumers, the transactional producer, and whether the log is the one that is meant.

    clients, connection, login, rights   what clients are made by, how a broker is waited for, what it lets us do
    reader                               topics read without a group
    event_source, dimension_source       the input topics, as the loop reads them
    start_offsets, refused_records       where partitions that come start, and which of their records are done
    offset_commits                       the group's offsets without a transaction
    topics, lineage                      what the log holds, and whether the state is whole
    producer                             one transaction per batch

May be imported by: everything above. May import: `events`, `ops`; nothing of the store or the model.
"""
