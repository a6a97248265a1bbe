"""All that is shown, on a page or in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from streaming.app.folder import App
from streaming.board.attributes import Attributes
from streaming.board.followers import KafkaState
from streaming.board.letters import Letters
from streaming.board.outcomes import AucFigures, Outcome, Outcomes
from streaming.board.pairs import Pairs
from streaming.board.rows import Place
from streaming.board.scorers import ScorerFigures
from streaming.board.why import Explanation

__all__ = ["Board", "Explains", "Tells"]


class Explains(Protocol):
    """What tells why; see `streaming.board.why.Why`."""

    def explain(self, score: Place) -> Explanation: ...


class Tells(Protocol):
    """What the scorers say; see `streaming.board.scorers.Scorers`."""

    def figures(self) -> ScorerFigures: ...


@dataclass(frozen=True)
class Board:
    """What is kept, and who tells the rest.

    Attributes:
        topics: names of topics, for messages: `scores` and `dead_letters`.
        is_ending: the server has been told to stop: streams end.
        outcomes: what became of the scores; by default it is not known.
    """

    app: App
    topics: Mapping[str, str]
    pairs: Pairs
    letters: Letters
    attributes: Attributes
    kafka: KafkaState
    scorers: Tells
    why: Explains
    is_ending: Callable[[], bool] = lambda: False
    outcomes: Outcomes | None = None

    def auc(self) -> AucFigures:
        """As it was last computed."""
        return AucFigures("labels are not followed") if self.outcomes is None else self.outcomes.figures

    def label_events(self) -> int:
        """How many events that make labels are kept."""
        return 0 if self.outcomes is None else self.outcomes.events_kept()

    def outcome(self, number: int) -> Outcome | None:
        """What became of a score, by its number; None: no label ever says."""
        return None if self.outcomes is None else self.outcomes.of(number)
