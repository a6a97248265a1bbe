"""`jd-intent-score board`: who is about to want what, now, as one more subscriber sees it; a page for people.

    fields          what a score's fields are, and what dimension tables say of users and items
    decoding        records of the scores' topic → scores
    rows            what is told of scores and pairs
    pairs           the newest scores and the best pairs, in bounded memory
    attributes      what dimension tables say of a user or an item
    labels          where labels come from, and by which key of a score
    outcomes        what became of the kept scores: labels, and the AUC over them
    letters         dead letters by reason, and the newest ones
    followers       read scores, dead letters and dimension topics into these
    label_follower  reads labels
    following       the options that the page and the terminal share
    scorers         what the scorers' /metrics say
    events          the event that a score was made of, as a request row
    why             features of one request, their usual range, and what moved its score
    application     HTTP: the page in `pages/`, and the JSON that it asks for
    server          puts all of it together
    top             the same in a terminal

May be imported by: `cli`. May import: `kafka`, `model`, `app`, `web` and what is below them. It asks the scorers for
their metrics and nothing else.
"""
