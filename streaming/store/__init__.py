"""The feature store: tables that take rows, and a deployment that answers requests. Embedded, or an OpenMLDB cluster.

    protocol             what the loop asks of either kind
    embedded, dedup      the engine in this process, and the requests that it has seen
    openmldb             a cluster, and the ways to reach it; micro_batches: which events can be asked side by side
    open                 the one of `store.kind`

May be imported by: everything above. May import: the engine, `events`, `files`, `web.client`, `ops`; nothing of Kafka.
"""
