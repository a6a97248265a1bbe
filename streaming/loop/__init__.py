"""The scorer: poll → decode → insert → features → encode → score → publish → commit. Start at `scorer`.

    scorer                                   makes the parts, and says what comes after what
    pipeline                                 a batch through its stages:
        preparation, scoring, committing
    state: replayed_state, kept_state        what features are computed from, for either kind of store
    rebuild                                  what is missing of it when partitions have come
    batch, progress, reporting, runtime      what all of them share
    waiting_loop                             what goes on while a server is waited for
    poison                                   messages that kill: imports nothing else of the loop
    run                                      the process: makes all that the scorer is given

May be imported by: `cli`, `dlq`. May import: `state`, `kafka`, `model`, `store`, `events`, `ops`.
"""
