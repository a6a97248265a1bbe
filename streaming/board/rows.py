"""What is told of the scores and pairs that are kept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Key", "Match", "PairRow", "Place", "Requests", "ScoreRow", "exact"]

Key: TypeAlias = tuple[Any, ...]
Int64: TypeAlias = npt.NDArray[np.int64]


def exact(key: Any) -> str:
    """A key, or a part of one, as JSON text. Pages get no other form: their numbers are exact to 2^53 only."""
    return json.dumps(key, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class Place:
    """Where a score lies in its topic, and what it was."""

    partition: int
    offset: int
    probability: float


@dataclass(frozen=True)
class PairRow:
    """A pair as the ranking shows it.

    Attributes:
        key: its users and items.
        probability, at, time, version: of its last score; `at` is when that was published, `time` the event's own time
            (None: the score does not say it), epoch ms.
        trend: its last scores in the ring, oldest first.
        count: its scores, since the board began to count.
        seq: the number of its last score: another one, another row.
    """

    key: Key
    probability: float
    at: int
    time: int | None
    version: str
    trend: tuple[float, ...]
    count: int
    seq: int

    @property
    def id(self) -> str:
        """The key as JSON: names the pair to the page, and in its address."""
        return exact(self.key)


@dataclass(frozen=True)
class ScoreRow:
    """One score of the ring; see `PairRow`. `number`: its own, counted from the first that was taken."""

    key: Key
    probability: float
    at: int
    time: int | None
    version: str
    number: int


@dataclass(frozen=True)
class Requests:
    """The scores of the ring as columns, the oldest first.

    Attributes:
        first: the number of the oldest.
        codes: the requests' keys as numbers, see `streaming.board.labels`; int64 [n].
        times: of the requests, epoch ms, or `NO_TIME`; int64 [n].
        probabilities: float32 [n].
    """

    first: int
    codes: Int64
    times: Int64
    probabilities: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Match:
    """A user or an item that a search has found, with how many pairs it has, and the best of their probabilities."""

    field: str
    value: Any
    pairs: int
    best: float
