"""What an application says of its scores, as what makes their records; and who they are of."""

from __future__ import annotations

from dataclasses import dataclass

from streaming.app.folder import App, names_in
from streaming.app.settings import MODEL_VERSION, PROBABILITY
from streaming.config import CloudEvents
from streaming.events.scores import ScoreEncoder

__all__ = ["ScoreRoles", "score_encoder", "score_roles"]

_SOURCE = "/jd-intent-scorer"


@dataclass(frozen=True)
class ScoreRoles:
    """What the fields of a score are, by the column of the main table that each repeats.

    Attributes:
        users: made of the key of the stream: whose events they are.
        items: neither that, nor the request's id, nor made of its time: what the user may want. Maybe none.
    """

    users: tuple[str, ...]
    items: tuple[str, ...]


def score_encoder(app: App, form: CloudEvents = "binary") -> ScoreEncoder:
    """Makes the records of the application's scores, in a form of CloudEvents (`kafka.cloudevents`)."""
    scores = app.settings.scores
    return ScoreEncoder(app.main, scores.fields, scores.event_type or f"{app.settings.name}.score.v1", _SOURCE, form)


def score_roles(app: App) -> ScoreRoles:
    """Who and what the scores are of, as events.sql and [scores.fields] say."""
    keys: set[str] = set()
    others = {app.settings.request.id}
    for stream in app.scored:
        for insert in stream.inserts:
            if insert.table != app.main:
                continue
            for column, made in insert.columns:
                if stream.event_time in names_in(made):
                    others.add(column)
                elif stream.key is not None and names_in(made) == {stream.key}:
                    keys.add(column)
    fields = [column for column in app.settings.scores.fields.values() if column not in (PROBABILITY, MODEL_VERSION)]
    distinct = [column for column in dict.fromkeys(fields) if column not in others]
    users = tuple(column for column in distinct if column in keys)
    return ScoreRoles(users, tuple(column for column in distinct if column not in keys))
