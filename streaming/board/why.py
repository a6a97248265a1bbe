"""Why a request has its score: its features, what is usual of them, and which of its inputs moved the score most.

A score does not carry features. They are computed again, for the row that is opened and no other: its event is read
from its topic, a predict server (`jd-intent-score serve`) is asked about the request, and Triton about the request
without each of its inputs, in one call.

When the request was scored, the rows that its event became in other tables were there, its own row in the main table
was not. Now all of them are. So the server is asked twice, as of the request's time and as of a millisecond before;
columns that are made of the main table's rows alone are of the second answer, all others of the first. What came late,
dimension rows that came since, and rows of that very millisecond can still make a difference: so the probability that
comes of it is held against the one that was published, and the page says whether they are the same.
"""

from __future__ import annotations

import dataclasses
import math
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import msgspec
import numpy as np
import pyarrow as pa
import structlog

from streaming.app.folder import App
from streaming.board.events import Asked, EventGone, EventReader
from streaming.board.pairs import Pairs
from streaming.board.rows import Place
from streaming.board.usual import Usual, UsualValues, Value, shown
from streaming.errors import ArtifactMismatch, ScorerError, Unavailable
from streaming.model.encoder import NULL_ID, Encoder
from streaming.model.triton import Model

__all__ = ["SAME", "Explanation", "Feature", "Why"]

SAME = 1e-5
"""Probabilities of other batch sizes differ by less: float32 sums in another order."""

SAMPLES = 160  # that the sampler gathers soon; afterwards it goes on slowly
SOON_S, SLOWLY_S = 1.0, 5.0
AT_ONCE = 16

_Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

_log = structlog.stdlib.get_logger("streaming.board.why")


@dataclass(frozen=True)
class Feature:
    """An input of the model.

    Attributes:
        name: the encoder's field; `column`: of the feature query, that it reads.
        meaning: the column's expression, and the rows that it is computed of.
        value: of the column; `kind`: `number`, `time` (epoch ms), `text` or `truth`.
        usual: none: nothing is known, or its values are names.
        moved: the probability less the one without this input.
    """

    name: str
    column: str
    meaning: str
    value: Value
    kind: str
    usual: Usual | None
    moved: float


@dataclass(frozen=True)
class Explanation:
    """What is known of a score.

    Attributes:
        missing: why there are no features; "": there are.
        published, again: the probability that was published, and the one of the features that are shown.
        same: they are.
        instead: what an input that is left out becomes: `commonest` of recent requests, or `missing`.
        features: those that moved the score most first.
        request: the request row; `event`: the event as it came; `place`: where it lies.
        version: of the model that was asked.
        samples: recent requests that "usual" is of.
    """

    published: float
    missing: str = ""
    again: float | None = None
    same: bool = False
    instead: str = ""
    features: list[Feature] = field(default_factory=list)
    request: dict[str, Any] = field(default_factory=dict)
    event: str = ""
    place: str = ""
    version: str = ""
    samples: int = 0


@dataclass(frozen=True)
class _Answer:
    """A predict server's: values by column, ids by the encoder's field."""

    features: dict[str, Value]
    ids: dict[str, int]


class Why:
    """Explains; any thread may call.

    Args:
        app: whose scores they are.
        pairs: where the sampler finds recent ones.
        events: reads what they are of.
        artifact: the folder that has the encoder.
        model: Triton's.
        predict: a client of the predict server; none: nobody can compute features.
    """

    def __init__(
        self, app: App, pairs: Pairs, events: EventReader, artifact: Path, model: Model, predict: httpx.Client | None
    ) -> None:
        self._app, self._pairs, self._events = app, pairs, events
        self._artifact, self._model, self._predict = artifact, model, predict
        self._encoder: Encoder | None = None
        self._usual = UsualValues()
        self._kinds = {column.name: _kind(column.type) for column in app.query.answers}
        self._meanings = {origin.name: origin.meaning for origin in app.query.contract.origins}
        self._times = {name for name in (app.request_time, *app.times(app.main)) if name is not None}
        echoed = {output for output, _ in app.query.contract.echoes}
        self._of_main = {
            origin.name
            for origin in app.query.contract.origins
            if origin.name not in echoed and set(origin.tables) <= {app.main}
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="samples", daemon=True)

    def start(self) -> None:
        """Begins to gather what is usual."""
        if self._predict is not None:
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._events.close()

    def explain(self, score: Place) -> Explanation:
        """Of one score; what cannot be known is said in `missing`."""
        if self._predict is None:
            what = "a score does not carry its features, and no predict server is named: start `jd-intent-score serve`"
            return Explanation(score.probability, f"{what}, and the board with --predict and its address")
        try:
            asked = self._events.event_of(score)
        except ScorerError as error:
            return Explanation(score.probability, str(error))
        told = Explanation(score.probability, request=asked.row, event=asked.event, place=asked.place)
        try:
            return self._explained(told, asked)
        except ScorerError as error:
            return dataclasses.replace(told, missing=str(error))

    def _explained(self, told: Explanation, asked: Asked) -> Explanation:
        encoder = self._loaded()
        now, before = self._features(asked, 0), self._features(asked, 1)
        answers = [self._mixed(now, before), now, before]
        commonest = self._usual.commonest_ids()
        scored, version = self._without_each([list(answer.ids.values()) for answer in answers], commonest)
        # The first is right, but for rows of one millisecond; of equal ones it is taken.
        best = min(range(len(answers)), key=lambda at: (round(abs(scored[at][0] - told.published) / SAME), at))
        answer, (again, *without) = answers[best], scored[best]
        features = [
            Feature(
                one.name,
                one.column,
                self._meanings.get(one.column, ""),
                value,
                kind,
                None if kind == "time" else self._usual.of(one, value, is_number=kind == "number"),
                again - other,
            )
            for one, other in zip(encoder.fields, without, strict=True)
            for value, kind in [(shown(one, answer.features.get(one.column)), self._kinds.get(one.column, "text"))]
        ]
        features.sort(key=lambda feature: -abs(feature.moved))
        return dataclasses.replace(
            told,
            again=again,
            same=math.isclose(told.published, again, abs_tol=SAME),
            instead="missing" if commonest is None else "commonest",
            features=features,
            version=version,
            samples=len(self._usual),
        )

    def _ids(self, told: object) -> dict[str, int]:
        """A request's ids, as a predict server told them.

        Raises:
            ValueError: they are no numbers of 64 bits. ArtifactMismatch: they are of other fields.
        """
        ids = msgspec.convert(told, dict[str, _Id])
        if list(ids) != [one.name for one in self._loaded().fields]:
            raise ArtifactMismatch(f"the predict server has another encoder than {self._artifact}")
        return ids

    def _mixed(self, now: _Answer, before: _Answer) -> _Answer:
        """The answer that the request had: see the module."""
        features = {name: (before if name in self._of_main else now).features.get(name) for name in now.features}
        columns = {one.name: one.column for one in self._loaded().fields}
        ids = {
            name: (before if columns.get(name) in self._of_main else now).ids.get(name, number)
            for name, number in now.ids.items()
        }
        return _Answer(features, ids)

    def _loaded(self) -> Encoder:
        if self._encoder is None:
            self._encoder = Encoder.load(self._artifact / "encoder")
        return self._encoder

    def _without_each(self, rows: list[list[int]], commonest: list[int] | None) -> tuple[list[list[float]], str]:
        """Triton's probabilities of rows of ids, each followed by those of the row without each of its inputs.

        Args:
            commonest: what an input becomes that is left out; none: NULL.

        Returns:
            A list of 1 + inputs for each row, and the model's version.
        """
        width = len(rows[0])
        matrix = np.repeat(np.array(rows, np.int64), width + 1, axis=0).reshape(len(rows), width + 1, width)
        places = np.arange(width)
        matrix[:, places + 1, places] = commonest or [NULL_ID] * width
        scores = self._model.score(np.ascontiguousarray(matrix.reshape(-1, width)))
        found: list[list[float]] = scores.probabilities.reshape(len(rows), width + 1).tolist()
        return found, scores.version

    def _features(self, asked: Asked, before_ms: int) -> _Answer:
        """The predict server's answer about a request, as of so long before its time.

        Raises:
            Unavailable: there is none.
        """
        if self._predict is None:
            raise Unavailable("no predict server is named")
        row = dict(asked.row)
        for name in self._times:
            if isinstance(row.get(name), int):
                row[name] -= before_ms
        place = f"the predict server at {self._predict.base_url}"
        try:
            answer = self._predict.post("/predict", json=row, params={"ids": "true"})
        except httpx.HTTPError as error:
            raise Unavailable(f"{place} does not answer: {error or type(error).__name__}") from error
        try:
            body = answer.json()
            if answer.status_code == httpx.codes.OK:
                return _Answer(dict(body["features"]), self._ids(body["ids"]))
            why = body["detail"]
        except (ValueError, KeyError, TypeError):
            why = "its answer is not one of a predict server"
        raise Unavailable(f"{place} has no answer ({answer.status_code}): {why}")

    def _sample(self) -> None:
        """Gathers recent requests, many at the start and few from then on."""
        draw = random.Random(1)
        while not self._stop.wait(SOON_S if len(self._usual) < SAMPLES else SLOWLY_S):
            place = self._pairs.any(draw.random())
            if place is None:
                continue
            try:
                for asked in self._events.events_near(place, AT_ONCE if len(self._usual) < SAMPLES else 1):
                    answer = self._mixed(self._features(asked, 0), self._features(asked, 1))
                    self._usual.add(answer.features, list(answer.ids.values()))
                    if self._stop.is_set():
                        return
            except EventGone:
                continue
            except ScorerError as error:
                _log.debug("no sample", why=str(error))
                self._stop.wait(SLOWLY_S)


def _kind(column: pa.DataType) -> str:
    if pa.types.is_timestamp(column):
        return "time"
    if pa.types.is_boolean(column):
        return "truth"
    return "number" if pa.types.is_integer(column) or pa.types.is_floating(column) else "text"
