"""Why a request has its score: its features, what is usual of them, and which of its inputs moved the score most.

A score does not carry features. They are computed again, for the row that is opened and no other: its event is read
from its topic, a predict server (`jd-intent-score serve`) is asked about the request as of a millisecond before it,
when the request's own rows were not in the tables, and Triton about the request without each of its inputs, in one
call. Rows that came late, dimension rows that came since, and rows of that very millisecond can make a difference: so
the probability that comes of it is held against the one that was published, and the page says whether they are the
same.
"""

from __future__ import annotations

import dataclasses
import math
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import structlog

from streaming.app.folder import App
from streaming.board.events import Asked, EventGone, EventReader
from streaming.board.pairs import Pairs, Place
from streaming.board.usual import Usual, UsualValues, Value
from streaming.errors import ArtifactMismatch, ScorerError, Unavailable
from streaming.model.encoder import NULL_ID, Encoder
from streaming.model.triton import Model

__all__ = ["SAME", "Explanation", "Feature", "Why"]

SAME = 1e-5
"""Probabilities of other batch sizes differ by less: float32 sums in another order."""

SAMPLES = 160  # that the sampler gathers soon; afterwards it goes on slowly
SOON_S, SLOWLY_S = 1.0, 5.0
AT_ONCE = 16

_log = structlog.stdlib.get_logger("streaming.board.why")


@dataclass(frozen=True)
class Feature:
    """An input of the model.

    Attributes:
        name: the encoder's field; `column`: of the feature query, that it reads.
        value: of the column; `kind`: `number`, `time` (epoch ms), `text` or `truth`.
        usual: none: nothing is known, or its values are names.
        moved: the probability less the one without this input; none: Triton did not tell.
    """

    name: str
    column: str
    value: Value
    kind: str
    usual: Usual | None
    moved: float | None


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
        self._times = {name for name in (app.request_time, *app.times(app.main)) if name is not None}
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
        names = [one.name for one in encoder.fields]
        answer = self._features(asked, before_ms=1)
        if self._times and not _same(told.published, answer["probability"]):
            # Rows of the same millisecond may have been there already.
            other = self._features(asked, before_ms=0)
            if abs(other["probability"] - told.published) < abs(answer["probability"] - told.published):
                answer = other
        if list(answer["ids"]) != names:
            raise ArtifactMismatch(f"the predict server has another encoder than {self._artifact}")
        ids = list(answer["ids"].values())
        commonest = self._usual.commonest_ids()
        moved, version = self._moved(ids, commonest)
        features = [
            Feature(
                one.name,
                one.column,
                value,
                kind,
                None if kind == "time" else self._usual.of(one, value, is_number=kind == "number"),
                change,
            )
            for one, change in zip(encoder.fields, moved, strict=True)
            for value, kind in [(answer["features"].get(one.column), self._kinds.get(one.column, "text"))]
        ]
        features.sort(key=lambda feature: -abs(feature.moved or 0.0))
        return dataclasses.replace(
            told,
            again=answer["probability"],
            same=_same(told.published, answer["probability"]),
            instead="missing" if commonest is None else "commonest",
            features=features,
            version=version or str(answer.get("model_version", "")),
            samples=len(self._usual),
        )

    def _loaded(self) -> Encoder:
        if self._encoder is None:
            self._encoder = Encoder.load(self._artifact / "encoder")
        return self._encoder

    def _moved(self, ids: list[int], commonest: list[int] | None) -> tuple[list[float | None], str]:
        """What each input does to the probability, by Triton's answer to the request without it; and the version."""
        instead = commonest or [NULL_ID] * len(ids)
        matrix = np.tile(np.array(ids, np.int64), (len(ids) + 1, 1))
        places = np.arange(len(ids))
        matrix[places + 1, places] = instead
        try:
            scores = self._model.score(matrix)
        except Unavailable as error:
            _log.warning("Triton does not answer", why=str(error))
            return [None] * len(ids), ""
        whole, *without = scores.probabilities.tolist()
        return [whole - one for one in without], scores.version

    def _features(self, asked: Asked, before_ms: int) -> dict[str, Any]:
        """The predict server's answer.

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
            if answer.status_code == httpx.codes.OK and {"features", "ids", "probability"} <= body.keys():
                if self._app.event_time in body["features"] and before_ms:
                    body["features"][self._app.event_time] += before_ms
                return dict(body)
            why = body["detail"]
        except (ValueError, KeyError, TypeError, AttributeError):
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
                    answer = self._features(asked, before_ms=1)
                    self._usual.add(answer["features"], list(answer["ids"].values()))
                    if self._stop.is_set():
                        return
            except EventGone:
                continue
            except ScorerError as error:
                _log.debug("no sample", why=str(error))
                self._stop.wait(SLOWLY_S)


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, abs_tol=SAME)


def _kind(column: pa.DataType) -> str:
    if pa.types.is_timestamp(column):
        return "time"
    if pa.types.is_boolean(column):
        return "truth"
    return "number" if pa.types.is_integer(column) or pa.types.is_floating(column) else "text"
