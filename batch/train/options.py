"""How to train a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import msgspec

from streaming.errors import BadInput

__all__ = ["TrainOptions", "UpdateRows"]

UpdateRows = Literal["all", "touched"]


@dataclass(frozen=True)
class TrainOptions:
    """How to train. The defaults suit two CPU cores; `tutorial()` is the tutorial's own setting.

    Args:
        embedding: dimensions of an id's embedding.
        layers: widths of the deep network's hidden layers.
        dropout: share of hidden activations set to zero.
        learning_rate: of Adam.
        embedding_l2: weight of the mean squared length of a sample's embeddings in the loss.
        count_min: an id owns a row from this many occurrences in training on. Where requests share their label, as
            those of one user and product within five days do, fewer occurrences let the rows of a user and of a product
            learn the pairs by heart (on the tutorial's generated world test AUC was 0.81 with 2, 0.87 with 300: its
            app.toml says 300); where they do not, the encoder's own cuts are enough (on a world of 48,000 ad clicks
            0.93 with 20, 0.91 with 300).
        batch_size: samples of a step; fewer where an epoch would have less than `steps_per_epoch_min` steps.
        steps_per_epoch_min: the tutorial's sample has 11,000 training samples: five steps of 2048 teach nothing.
        epochs_max: passes over the training part, unless early stopping ends it before.
        evals_per_epoch: how often the validation part is scored.
        patience: evaluations without a better validation score before training stops.
        seed: of initial weights, order of samples and dropout.
        update_rows: rows of the embeddings that a step updates: "all", or "touched", those of its samples
            (`batch.train.touched_rows`), which is faster from some 100,000 rows on.
    """

    embedding: int = 16
    layers: tuple[int, ...] = (256, 128)
    dropout: float = 0.2
    learning_rate: float = 0.0005
    embedding_l2: float = 0.1
    count_min: int = 20
    batch_size: int = 2048
    steps_per_epoch_min: int = 100
    epochs_max: int = 10
    evals_per_epoch: int = 4
    patience: int = 3
    seed: int = 1
    update_rows: UpdateRows = "all"

    @classmethod
    def tutorial(cls) -> TrainOptions:
        """The tutorial's setting: five layers of 1000, dropout 0.2, rate 0.001, batches of 1000, a row for every id."""
        return cls(
            layers=(1000,) * 5,
            dropout=0.2,
            learning_rate=0.001,
            embedding_l2=0.0,
            count_min=1,
            batch_size=1000,
            steps_per_epoch_min=1,
        )

    @classmethod
    def defaults(cls, model: Mapping[str, Any]) -> TrainOptions:
        """Those of an application's [model], as `dataset.json` has them.

        Raises:
            BadInput: one is unknown, or of another type.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for name in model:
            if name not in known:
                raise BadInput(f"[model] of the application: {name} is no option of training")
        try:
            return msgspec.convert(dict(model), cls)
        except msgspec.ValidationError as error:
            raise BadInput(f"[model] of the application: {error}") from None

    def __post_init__(self) -> None:
        positive = (
            "embedding",
            "learning_rate",
            "count_min",
            "batch_size",
            "steps_per_epoch_min",
            "epochs_max",
            "evals_per_epoch",
            "patience",
        )
        for name in positive:
            if not getattr(self, name) > 0:
                raise BadInput(f"{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise BadInput(f"dropout must be in [0, 1), not {self.dropout}")
        if self.embedding_l2 < 0:
            raise BadInput(f"embedding_l2 must not be negative, not {self.embedding_l2}")
        if self.update_rows not in get_args(UpdateRows):
            raise BadInput(f"update_rows must be {' or '.join(get_args(UpdateRows))}, not {self.update_rows}")
        if not self.layers or any(width < 1 for width in self.layers):
            raise BadInput(f"layers must be one or more positive widths, not {self.layers}")
