"""`jd-intent-score init`: the draft of an application's folder, from samples of its events.

    samples      JSON lines or parquet → what is known of each field, from all rows
    guesses      fields → columns with types; a stream's key and time; which stream is scored
    names        names that SQL takes, each once
    sql_text     the guesses as tables.sql, events.sql and features.sql
    toml_text    and as app.toml, with what only its owner knows as questions
    write        the four files into a folder, over nothing

May be imported by: `cli`. May import: `streaming.app`, the engine, `files`, `errors`.
"""
