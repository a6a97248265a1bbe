"""The feature store: tables that take rows, and a deployment that answers requests. Embedded, or an OpenMLDB cluster.

May be imported by: everything above. May import: the engine, `events`, `files`, `web.client`, `ops`; nothing of Kafka.
"""
