"""`jd-intent-batch backfill`: an application's tables, made of an archive of its events by the rules that serving has.

    archive     records from JSON lines, parquet, or a topic that is read from its beginning
    ordering    rows of a table in any order in, by time out, in bounded memory
    tables      streams → the tables' files, and what was refused

May be imported by: `batch.cli`, tests. May import: `streaming.app`, `streaming.events`, `streaming.files`; of
`streaming.kafka` only what reads a topic, when one is read.
"""
