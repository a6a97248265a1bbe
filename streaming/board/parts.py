"""What the board is made of, for its page and its terminal alike: what follows Kafka, what is kept, what explains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from streaming.app.configured import application
from streaming.board.attributes import Attributes
from streaming.board.board import Board
from streaming.board.events import EventReader
from streaming.board.fields import score_fields
from streaming.board.followers import Followers
from streaming.board.following import Following
from streaming.board.letters import Letters
from streaming.board.outcomes import scores_kept
from streaming.board.scorers import Scorers, metrics_url
from streaming.board.why import Why
from streaming.config import Config
from streaming.model.triton import Model
from streaming.web.client import connect
from streaming.web.listen import read_token

__all__ = ["BoardOptions", "Parts"]

PREDICT_S = 10.0  # for one answer of the predict server
MODEL_S = 5.0


@dataclass(frozen=True)
class BoardOptions:
    """What the command line says of them.

    Args:
        following: what is followed, and how much of it is kept.
        predict: URL of the predict server that computes features; none: there is none.
        predict_token_file, predict_ca: its token, and certificates that vouch for it.
    """

    following: Following
    predict: str | None = None
    predict_token_file: Path | None = None
    predict_ca: Path | None = None


class Parts:
    """The parts, put together. Kafka, the scorers, the predict server and Triton may be away, at the start, too.

    Raises:
        ConfigError: a token is missing; a URL, certificate or topic is wrong; the scores name nobody.
    """

    def __init__(self, config: Config, options: BoardOptions) -> None:
        following = options.following
        self.app, topics = application(config)
        self.topics = topics
        fields = score_fields(self.app)
        self.letters, self.attributes = Letters(), Attributes(fields, self.app.settings.names)
        self.pairs, self.outcomes = scores_kept(self.app, topics, fields, following.scores_max)
        self.scorers = Scorers(following.metrics or [url for url in [metrics_url(config.http)] if url])
        predict = None
        if options.predict is not None:
            token = read_token(options.predict_token_file, {})
            predict = connect("--predict", options.predict, token=token, ca=options.predict_ca, timeout=PREDICT_S)
        self._model = Model(config.model.url, config.model.name, min(config.model.timeout_s, MODEL_S))
        events = EventReader(config, self.app, topics)
        self.why = Why(self.app, self.pairs, events, Path(config.model.artifact), self._model, predict)
        kept = (self.pairs, self.letters, self.attributes)
        self.followers = Followers(config, self.app, topics, *kept, following.look_back_s, self.outcomes)

    def start(self) -> None:
        """Begins to follow, to compute and to ask."""
        for part in (self.followers, self.outcomes, self.scorers, self.why):
            part.start()

    def stop(self) -> None:
        """Ends all that `start` began."""
        for part in (self.followers, self.outcomes, self.scorers, self.why):
            part.stop()
        self._model.close()

    def board(self, is_ending: Callable[[], bool] = lambda: False) -> Board:
        """What there is to show.

        Args:
            is_ending: whoever shows it has been told to stop.
        """
        return Board(
            self.app,
            {"scores": self.topics.scores, "dead_letters": self.topics.dead_letters},
            self.pairs,
            self.letters,
            self.attributes,
            self.followers.state,
            self.scorers,
            self.why,
            is_ending=is_ending,
            outcomes=self.outcomes,
        )
