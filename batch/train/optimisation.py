"""The gradient steps of training: Adam on all that there is, or of the embedding tables on the touched rows only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from batch.train.options import TrainOptions
from batch.train.touched_rows import LazyAdam, RowNumbers
from streaming.errors import BadInput

if TYPE_CHECKING:
    from batch.train.deepfm import DeepFM

__all__ = ["Optimisation", "TrainingFailed"]


class TrainingFailed(BadInput):
    """The loss stopped being a number; the message names the step."""


class Optimisation:
    """The gradient steps of one model: binary cross-entropy plus the L2 penalty, Adam on everything.

    Args:
        model: what is trained, in place. Where `options.update_rows` says so, its tables are laid into arrays of NumPy,
            of which a step updates the touched rows only.
        options: how.
    """

    def __init__(self, model: DeepFM, options: TrainOptions) -> None:
        import oneflow as flow

        self._tensor = flow.tensor
        self._model = model
        self._options = options
        self._tables = _TouchedRows(model, options) if options.update_rows == "touched" else None
        trained = model.parameters() if self._tables is None else model.deep.parameters()
        self._adam = flow.optim.Adam(trained, lr=options.learning_rate)
        self._criterion = flow.nn.BCEWithLogitsLoss()
        self._small = flow.ones(4, 4)

    def step(self, rows: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
        """One step on rows int32 [n, fields] and labels float32 [n]; returns the cross-entropy before it.

        Raises:
            TrainingFailed: it is not finite.
        """
        self._model.train()
        if self._tables is None:
            logits, squares = self._model(self._tensor(rows))
            length = squares.mean()
        else:
            logits, length = self._tables.forward(rows)
        loss = self._criterion(logits, self._tensor(labels))
        (loss + 0.5 * self._options.embedding_l2 * length).backward()
        # Without it Adam takes 5 to 10 times as long (docs/reference/benchmarks.md). It seems that OpenBLAS leaves the
        # upper halves of AVX registers dirty, which slows scalar instructions, and that oneDNN's product clears them.
        _ = self._small * self._small
        self._adam.step()
        self._adam.zero_grad()
        if self._tables is not None:
            self._tables.update()
        value = float(loss.item())
        if not math.isfinite(value):
            raise TrainingFailed(f"the loss is {value}: lower the learning rate ({self._options.learning_rate})")
        return value


class _TouchedRows:
    """The tables of a model, of which a step sees and updates the rows of its batch only.

    The model's own tables and the arrays that are updated are the same memory (`flow.from_numpy`): evaluation and
    checkpoint read the model as ever.
    """

    def __init__(self, model: DeepFM, options: TrainOptions) -> None:
        import oneflow as flow

        self._flow = flow
        self._model = model
        self._tables: list[np.ndarray[Any, Any]] = []
        for lookup in (model.embedding, model.first_order):
            table = lookup.weight.numpy().copy()
            lookup.weight = flow.nn.Parameter(flow.from_numpy(table), requires_grad=False)
            self._tables.append(table)
        self._numbers = RowNumbers(len(self._tables[0]))
        self._adams = [LazyAdam(table, options.learning_rate) for table in self._tables]
        self._ones = flow.ones(options.embedding, 1)

    def forward(self, rows: np.ndarray[Any, Any]) -> tuple[Any, Any]:
        """Logits [n] as the model's own, and the mean of the squared lengths that it gives.

        A row's squared length is taken once, not once for each sample that has it, and goes with its first order
        through one look-up, as in `deepfm.Served`: 2 to 7 % less of a step of 2,048 (docs/reference/benchmarks.md).
        """
        model, look_up = self._model, self._flow.nn.functional.embedding
        self._touched, numbers = self._numbers.number(rows)
        share = np.bincount(numbers.reshape(-1)).astype(np.float32) / np.float32(len(rows))
        found = [table.take(self._touched, axis=0) for table in self._tables]
        embedding, first_order = self._found = [self._flow.from_numpy(values).requires_grad_() for values in found]
        lengths = self._flow.matmul(embedding * embedding, self._ones)
        numbered = self._flow.from_numpy(numbers)
        vectors = look_up(numbered, embedding).reshape(len(rows), -1)
        alone = look_up(numbered, first_order - 0.5 * lengths).reshape(len(rows), -1)
        summed = self._flow.matmul(vectors, model.field_sum)
        logits = model.deep(vectors).squeeze(1) + alone.sum(1) + 0.5 * (summed * summed).sum(1)
        return logits, self._flow.matmul(self._flow.from_numpy(share[None, :]), lengths).squeeze()

    def update(self) -> None:
        """Adam on the rows that `forward` touched, once there are gradients."""
        for adam, found in zip(self._adams, self._found, strict=True):
            adam.step(self._touched, found.grad.numpy())
