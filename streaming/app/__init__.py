"""An application, read from its folder: tables, feature query, streams of events and what they become, and settings.

    folder               the four files → one immutable `App`, all of it checked
    settings             app.toml
    streams              events.sql: streams, their constraints, and the tables that their records go to
    features             features.sql: what the query answers, and which table asks
    encoder_fields       the inputs that a model of the application has
    labels               whether the label of app.toml can be computed
    later_event          labels by a later event, computed
    digest               names what the four files say
    wrong                the one kind of error, with file:line:column
    field_rules          CHECKs of one field, which JSON is decoded by
    json_fields          a stream's columns as what JSON is decoded into, and then as Arrow's
    decoding             records of one stream → rows of its tables; what is neither, and why
    scripts              what OpenMLDB's command line runs, made from an application
    history              which files of a data folder are a table's
    picture              an application as a picture in text

May be imported by: `store` and everything above. May import: `events`, the engine, `files`, `errors`; nothing of Kafka.
"""
