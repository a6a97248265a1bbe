"""Trains the DeepFM on a dataset folder and keeps the best checkpoint.

    jd-intent-batch train --dataset DIR --checkpoint DIR [--preset tutorial]

Adam on everything: of the embeddings on all rows (the vocabulary drops rare ids, so a step over the tables costs
little) or, where there are very many, on those of the step's samples only (`batch.train.optimisation`). Ids of high
cardinality are kept from being learnt by heart three ways: a row of their own only from `count_min` occurrences on, an
L2 penalty on the embeddings of the samples at hand, and early stopping on the validation part, which lies later in
time. One seed, one result, bit for bit, on the same machine.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from batch.dataset.read import DatasetError, Part, read_info, read_part
from batch.report.probability_metrics import ProbabilityMetrics, measure
from batch.train.checkpoint import Checkpoint, ModelShape, build_model, save_checkpoint
from batch.train.optimisation import Optimisation, TrainingFailed
from batch.train.options import TrainOptions
from batch.train.vocabulary import Vocabulary
from streaming.files.output_folder import Say, replacing

__all__ = ["Evaluation", "TrainResult", "TrainingFailed", "train_model"]


@dataclass(frozen=True)
class Evaluation:
    """One line of `history.jsonl`.

    Attributes:
        step: steps until then.
        epoch: passes over the training part until then.
        loss: mean of the training loss since the evaluation before.
        val_auc: of validation; None where it has one class.
        val_log_loss: of validation.
        best: better than all before.
    """

    step: int
    epoch: float
    loss: float
    val_auc: float | None
    val_log_loss: float
    best: bool


@dataclass(frozen=True)
class TrainResult:
    """What training ended with.

    Attributes:
        best: the evaluation whose model was kept.
        val: its metrics.
        evaluations: how many there were.
        rows: of the embeddings.
        seconds: that training took.
        samples_per_s: samples trained a second.
        stopped_early: before `epochs_max`.
    """

    best: Evaluation
    val: ProbabilityMetrics
    evaluations: int
    rows: int
    seconds: float
    samples_per_s: float
    stopped_early: bool


def train_model(
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
    shape = ModelShape(
        fields=info.fields,
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


class _Run:
    def __init__(
        self,
        shape: ModelShape,
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
        self.model = build_model(shape, bias=math.log(shape.base_rate / (1 - shape.base_rate)))
        self.optimisation = Optimisation(self.model, options)

    def fit(self, training: Part, validation: Part, console: Console | None) -> TrainResult:
        options = self.options
        rows, val_rows = self.vocabulary.lookup(training.ids), self.vocabulary.lookup(validation.ids)
        batch_size = min(options.batch_size, math.ceil(training.count / options.steps_per_epoch_min))
        steps_per_epoch = math.ceil(training.count / batch_size)
        steps_max = steps_per_epoch * options.epochs_max
        eval_every = max(1, steps_per_epoch // options.evals_per_epoch)
        order = np.random.default_rng(options.seed)
        best: tuple[Evaluation, ProbabilityMetrics] | None = None
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

    def _score(self, metrics: ProbabilityMetrics) -> float:
        return metrics.auc if self.by_auc and metrics.auc is not None else -metrics.log_loss

    def _save(self) -> None:
        with replacing(self.checkpoint, "checkpoint") as folder:
            save_checkpoint(folder, Checkpoint(self.shape, self.vocabulary, self.model))
            self._save_history(folder)

    def _save_history(self, folder: Path) -> None:
        lines = [msgspec.json.encode(evaluation) for evaluation in self.history]
        (folder / "history.jsonl").write_bytes(b"\n".join(lines) + b"\n")


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
