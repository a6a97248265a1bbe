"""What an application says of its scores, as what makes their records."""

from __future__ import annotations

from streaming.app.folder import App
from streaming.events.scores import ScoreEncoder

__all__ = ["score_encoder"]

_SOURCE = "/jd-intent-scorer"


def score_encoder(app: App) -> ScoreEncoder:
    """Makes the records of the application's scores."""
    scores = app.settings.scores
    return ScoreEncoder(app.main, scores.fields, scores.event_type or f"{app.settings.name}.score.v1", _SOURCE)
