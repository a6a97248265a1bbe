"""One request row answered: state → features → encoder → model → probability."""

from __future__ import annotations

import datetime
import math
import threading
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from streaming.errors import Unavailable
from streaming.model.encoder import Encoder
from streaming.model.served_encoder import EncoderCheck
from streaming.model.triton import Model
from streaming.predict.state_replica import State

__all__ = ["Prediction", "Predictor"]


class Prediction(BaseModel):
    """The answer to one request row."""

    model_config = ConfigDict(protected_namespaces=())

    features: dict[str, bool | int | float | str | None] = Field(
        description="the deployment's columns: timestamps in epoch ms, NULL as null, a real that is not finite as text"
    )
    ids: dict[str, int] | None = Field(None, description="with ?ids=true: the model's inputs by field; 64 bits each")
    probability: float = Field(description="of the application's label: that it will be 1")
    model: str
    model_version: str


class Predictor:
    """State, encoder and model of one deployment, for many threads.

    Args:
        follower: answers with features.
        encoder: makes the model's ids of them.
        model: Triton's.
        name: the model's name on Triton.
    """

    def __init__(self, follower: State, encoder: Encoder, model: Model, name: str) -> None:
        self.follower, self.encoder, self.model, self.name = follower, encoder, model, name
        self._encoding = threading.Lock()  # an encoder has caches: one thread at a time
        ours, remedy = "this server has", ": restart it with the artifact of that model"
        self._encoder_check = EncoderCheck(model.encoder_digest, encoder.digest, f"Triton's {name}", ours, remedy)

    def predict(self, row: dict[str, Any], *, ids: bool) -> Prediction:
        """Answers one row.

        Raises:
            Unavailable: the state or the model is not there.
            BadRow: the deployment refuses the row.
            ArtifactMismatch: Triton serves a model of another encoder.
        """
        features = self.follower.request([row])
        with self._encoding:
            encoded = self.encoder.encode(features)
        try:
            scores = self.model.score(encoded)
        except Unavailable:
            self._encoder_check.forget()
            raise
        self._encoder_check.check(scores.version)
        prediction = Prediction(
            features={name: _json_value(column) for name, column in zip(features.column_names, features, strict=True)},
            probability=float(scores.probabilities[0]),
            model=self.name,
            model_version=scores.version,
        )
        if ids:
            prediction.ids = dict(zip((f.name for f in self.encoder.fields), encoded[0].tolist(), strict=True))
        return prediction

    def missing(self) -> dict[str, str]:
        """The parts that are not there, and why; empty: ready."""
        missing = {}
        state = self.follower.missing()
        if state is not None:
            missing["state"] = state
        if not self.model.ready():
            missing["model"] = f"Triton does not serve {self.name}"
        return missing


def _json_value(column: pa.ChunkedArray) -> bool | int | float | str | None:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms")).cast(pa.int64())
    value = column[0].as_py()
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no NaN and no infinity
    return value  # type: ignore[no-any-return]  # one of OpenMLDB's types
