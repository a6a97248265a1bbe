"""Trains the DeepFM on a dataset folder and keeps the best checkpoint.

    jd-intent-batch train --dataset DIR --checkpoint DIR [--preset tutorial]

Adam on everything, embeddings too (dense: the vocabulary drops rare ids, so a step over the tables costs less than the
gradient of the lookup). Ids of high cardinality are kept from being learnt by heart three ways: a row of their own only
from `count_min` occurrences on, an L2 penalty on the embeddings of the samples at hand, and early stopping on the
validation part, which lies later in time. One seed, one result, bit for bit, on the same machine.
"""

from __future__ import annotations

import dataclasses
import math
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from batch.dataset.read import FIELDS, DatasetError, Part, read_info, read_part
from batch.train.probability_metrics import Metrics, measure
from batch.train.vocabulary import Vocabulary
from streaming.errors import BadInput
from streaming.files.output_folder import Say, replacing

if TYPE_CHECKING:
    from batch.train.deepfm import DeepFM

__all__ = [
    "Checkpoint",
    "Evaluation",
    "Optimisation",
    "Shape",
    "TrainOptions",
    "TrainResult",
    "TrainingFailed",
    "build",
    "load_checkpoint",
    "read_shape",
    "save_checkpoint",
    "train",
]


class TrainingFailed(BadInput):
    """The loss stopped being a number; the message names the step."""


@dataclass(frozen=True)
class TrainOptions:
    """How to train. The defaults suit two CPU cores; `tutorial()` is the tutorial's own setting.

    Args:
        embedding: dimensions of an id's embedding.
        layers: widths of the deep network's hidden layers.
        dropout: share of hidden activations set to zero.
        learning_rate: of Adam.
        embedding_l2: weight of the mean squared length of a sample's embeddings in the loss.
        count_min: an id owns a row from this many occurrences in training on. Requests of one user and product within
            five days share their label: with fewer occurrences, a user's and a product's row together learn the pairs
            by heart (measured on the generated world: test AUC 0.81 with 2, 0.87 with 300).
        batch_size: samples of a step; fewer where an epoch would have less than `steps_per_epoch_min` steps.
        steps_per_epoch_min: the tutorial's sample has 11,000 training samples: five steps of 2048 teach nothing.
        epochs_max: passes over the training part, unless early stopping ends it before.
        evals_per_epoch: how often the validation part is scored.
        patience: evaluations without a better validation score before training stops.
        seed: of initial weights, order of samples and dropout.
    """

    embedding: int = 16
    layers: tuple[int, ...] = (256, 128)
    dropout: float = 0.2
    learning_rate: float = 0.0005
    embedding_l2: float = 0.1
    count_min: int = 300
    batch_size: int = 2048
    steps_per_epoch_min: int = 100
    epochs_max: int = 10
    evals_per_epoch: int = 4
    patience: int = 3
    seed: int = 1

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
        if not self.layers or any(width < 1 for width in self.layers):
            raise BadInput(f"layers must be one or more positive widths, not {self.layers}")


class Shape(msgspec.Struct, frozen=True):
    """`config.json` of a checkpoint: what is needed to build the model again, and what it was trained on."""

    fields: int
    rows: int
    base_rate: float
    options: dict[str, Any]
    table_size_array: list[int]
    data_sha256: str
    sql_sha256: str
    encoder_sha256: str


@dataclass(frozen=True)
class Evaluation:
    """One line of `history.jsonl`."""

    step: int
    epoch: float
    loss: float  # mean of the training loss since the evaluation before
    val_auc: float | None
    val_log_loss: float
    best: bool


@dataclass(frozen=True)
class TrainResult:
    """What training ended with; `val` belongs to the best evaluation, which is the one that was kept."""

    best: Evaluation
    val: Metrics
    evaluations: int
    rows: int
    seconds: float
    samples_per_s: float
    stopped_early: bool


@dataclass(frozen=True)
class Checkpoint:
    """A trained model, ready to predict."""

    shape: Shape
    vocabulary: Vocabulary
    model: DeepFM


def train(
    dataset: Path, checkpoint: Path, options: TrainOptions, console: Console | None = None, *, force: Say | None = None
) -> TrainResult:
    """Trains on `dataset/train.parquet`, stops by `dataset/val.parquet`, writes the folder `checkpoint`.

    The checkpoint (`model/`, `vocabulary.npz`, `config.json`, `history.jsonl`) is that of the best validation AUC;
    where validation has one class only, the log loss decides, and the console says so. It is there when training has
    ended: a run that fails or is stopped leaves the older checkpoint as it was.

    Args:
        console: takes the progress bar and a line per evaluation; None for silence.
        force: see `streaming.files.output_folder.replacing`.

    Raises:
        DatasetError: a file of the dataset is missing or wrong, or training has one class only.
        TrainingFailed: the loss is not finite.
        OutputRefused: `checkpoint` holds something else, or touches the dataset.
    """
    with replacing(checkpoint, "checkpoint", inputs=[dataset], force=force) as folder:
        return _train(dataset, folder, options, console)


def _train(dataset: Path, checkpoint: Path, options: TrainOptions, console: Console | None) -> TrainResult:
    info = read_info(dataset)
    training, validation = read_part(dataset, "train"), read_part(dataset, "val")
    if training.positives in (0, training.count):
        raise DatasetError(
            f"{dataset / 'train.parquet'}: column 'label' is {training.labels[0]:.0f} in all {training.count} rows; "
            "training needs both classes"
        )
    say: Callable[[str], None] = (lambda _: None) if console is None else console.print
    by_auc = 0 < validation.positives < validation.count
    if not by_auc:
        say("validation has one class only: its AUC does not exist, early stopping goes by log loss")

    vocabulary = Vocabulary.fit(training.ids, options.count_min)
    base_rate = training.positives / training.count
    shape = Shape(
        fields=FIELDS,
        rows=vocabulary.size,
        base_rate=base_rate,
        options=dataclasses.asdict(options),
        table_size_array=info.table_size_array,
        data_sha256=info.data_sha256,
        sql_sha256=info.sql_sha256,
        encoder_sha256=info.encoder_sha256,
    )
    run = _Run(shape, vocabulary, options, checkpoint, by_auc=by_auc, say=say)
    return run.fit(training, validation, console)


class Optimisation:
    """The gradient steps of one model: binary cross-entropy plus the L2 penalty, Adam on everything."""

    def __init__(self, model: DeepFM, options: TrainOptions) -> None:
        import oneflow as flow

        self._tensor = flow.tensor
        self._model = model
        self._options = options
        self._adam = flow.optim.Adam(model.parameters(), lr=options.learning_rate)
        self._criterion = flow.nn.BCEWithLogitsLoss()

    def step(self, rows: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
        """One step on rows int32 [n, fields] and labels float32 [n]; returns the cross-entropy before it.

        Raises:
            TrainingFailed: it is not finite.
        """
        self._model.train()
        logits, squares = self._model(self._tensor(rows))
        loss = self._criterion(logits, self._tensor(labels))
        (loss + 0.5 * self._options.embedding_l2 * squares.mean()).backward()
        self._adam.step()
        self._adam.zero_grad()
        value = float(loss.item())
        if not math.isfinite(value):
            raise TrainingFailed(f"the loss is {value}: lower the learning rate ({self._options.learning_rate})")
        return value


class _Run:
    def __init__(
        self,
        shape: Shape,
        vocabulary: Vocabulary,
        options: TrainOptions,
        checkpoint: Path,
        *,
        by_auc: bool,
        say: Callable[[str], None],
    ) -> None:
        # Here and not above: options and errors of this module must be at hand where OneFlow is not installed.
        # `deepfm` first: it sets what OneFlow reads when it is loaded.
        from batch.train import deepfm

        # isort: split
        import oneflow as flow

        self.deepfm = deepfm
        self.shape, self.vocabulary, self.options, self.checkpoint = shape, vocabulary, options, checkpoint
        self.by_auc, self.say = by_auc, say
        self.history: list[Evaluation] = []

        flow.manual_seed(options.seed)
        np.random.seed(options.seed)
        self.model = build(shape, bias=math.log(shape.base_rate / (1 - shape.base_rate)))
        self.optimisation = Optimisation(self.model, options)

    def fit(self, training: Part, validation: Part, console: Console | None) -> TrainResult:
        options = self.options
        rows, val_rows = self.vocabulary.lookup(training.ids), self.vocabulary.lookup(validation.ids)
        batch_size = min(options.batch_size, math.ceil(training.count / options.steps_per_epoch_min))
        steps_per_epoch = math.ceil(training.count / batch_size)
        steps_max = steps_per_epoch * options.epochs_max
        eval_every = max(1, steps_per_epoch // options.evals_per_epoch)
        order = np.random.default_rng(options.seed)
        best: tuple[Evaluation, Metrics] | None = None
        losses: list[float] = []
        started, trained, waited = time.perf_counter(), 0, 0
        with _progress(console) as progress:
            task = progress.add_task("training", total=steps_max, loss=math.nan, auc="")
            for step in range(1, steps_max + 1):
                place = (step - 1) % steps_per_epoch
                if place == 0:
                    permutation = order.permutation(training.count)
                chosen = permutation[place * batch_size : (place + 1) * batch_size]
                try:
                    losses.append(self.optimisation.step(rows[chosen], training.labels[chosen]))
                except TrainingFailed as error:
                    raise TrainingFailed(f"step {step}: {error}") from None
                trained += len(chosen)
                progress.update(task, advance=1, loss=losses[-1])
                if step % eval_every and step != steps_max:
                    continue
                metrics = measure(
                    validation.labels, self.deepfm.probabilities(self.model, val_rows), self.shape.base_rate
                )
                better = best is None or self._score(metrics) > self._score(best[1])
                evaluation = Evaluation(
                    step=step,
                    epoch=round(step / steps_per_epoch, 2),
                    loss=float(np.mean(losses)),
                    val_auc=metrics.auc,
                    val_log_loss=metrics.log_loss,
                    best=better,
                )
                self.history.append(evaluation)
                losses.clear()
                auc = "" if metrics.auc is None else f"val AUC {metrics.auc:.4f}"
                progress.update(task, auc=auc)
                self.say(
                    f"  step {step} (epoch {evaluation.epoch}): loss {evaluation.loss:.4f}, {auc or 'val'}, "
                    f"log loss {metrics.log_loss:.4f}{' *' if better else ''}"
                )
                if better:
                    best, waited = (evaluation, metrics), 0
                    self._save()
                else:
                    waited += 1
                    if waited >= options.patience:
                        break
        if best is None:
            raise TrainingFailed("training ended before its first evaluation")
        self._save_history(self.checkpoint)
        seconds = time.perf_counter() - started
        return TrainResult(
            best=best[0],
            val=best[1],
            evaluations=len(self.history),
            rows=self.shape.rows,
            seconds=seconds,
            samples_per_s=trained / seconds,
            stopped_early=waited >= options.patience,
        )

    def _score(self, metrics: Metrics) -> float:
        return metrics.auc if self.by_auc and metrics.auc is not None else -metrics.log_loss

    def _save(self) -> None:
        with replacing(self.checkpoint, "checkpoint") as folder:
            save_checkpoint(folder, Checkpoint(self.shape, self.vocabulary, self.model))
            self._save_history(folder)

    def _save_history(self, folder: Path) -> None:
        lines = [msgspec.json.encode(evaluation) for evaluation in self.history]
        (folder / "history.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def build(shape: Shape, bias: float = 0.0) -> DeepFM:
    """An untrained model of that shape."""
    from batch.train.deepfm import DeepFM

    return DeepFM(
        rows=shape.rows,
        fields=shape.fields,
        embedding=shape.options["embedding"],
        layers=shape.options["layers"],
        dropout=shape.options["dropout"],
        bias=bias,
        cold_rows=shape.fields,
    )


def read_shape(checkpoint: Path) -> Shape:
    """Reads `config.json` of a checkpoint.

    Raises:
        DatasetError: it is missing or wrong.
    """
    path = checkpoint / "config.json"
    try:
        shape = msgspec.json.decode(path.read_bytes(), type=Shape)
    except FileNotFoundError:
        raise DatasetError(
            f"{path} does not exist: is {checkpoint} a folder that `jd-intent-batch train` wrote?"
        ) from None
    except msgspec.DecodeError as error:
        raise DatasetError(f"{path}: {error}") from error
    try:
        msgspec.convert(shape.options, TrainOptions)
    except msgspec.ValidationError as error:
        raise DatasetError(f"{path}: options: {error}") from error
    return shape


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes weights, vocabulary and shape into an empty folder; equal checkpoints give equal bytes."""
    from batch.train.deepfm import save_weights

    save_weights(checkpoint.model, folder / "model")
    checkpoint.vocabulary.save(folder / "vocabulary.npz")
    (folder / "config.json").write_bytes(msgspec.json.format(msgspec.json.encode(checkpoint.shape), indent=2))


def load_checkpoint(folder: Path) -> Checkpoint:
    """Reads what `train` wrote.

    Raises:
        DatasetError: the folder is not a checkpoint, or a file of it is damaged.
    """
    from batch.train.deepfm import load_weights

    shape = read_shape(folder)
    path = folder / "vocabulary.npz"
    try:
        vocabulary = Vocabulary.load(path)
        wrong = (vocabulary.fields, vocabulary.size) != (shape.fields, shape.rows)
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path} is damaged: {error}") from error
    if wrong:
        raise DatasetError(
            f"{path} has {vocabulary.size} rows of {vocabulary.fields} fields, {folder / 'config.json'} "
            f"says {shape.rows} of {shape.fields}"
        )
    model = build(shape)
    for name, value in model.state_dict().items():
        weights = folder / "model" / name / "out"
        if not weights.is_file() or weights.stat().st_size != 4 * math.prod(value.shape):
            size = f"{weights.stat().st_size} bytes" if weights.is_file() else "not there"
            raise DatasetError(f"{weights} is {size}: the model of config.json has {4 * math.prod(value.shape)} bytes")
    try:
        load_weights(model, folder / "model")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DatasetError(f"{folder / 'model'} is damaged: {error}") from error
    return Checkpoint(shape, vocabulary, model)


def _progress(console: Console | None) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TextColumn("{task.fields[auc]}"),
        TimeElapsedColumn(),
        console=console,
        disable=console is None,
        transient=True,
    )
