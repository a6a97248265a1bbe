"""Commands that make the model: train and evaluate, in the model's environment, and export.

Each imports what it needs when it runs: the scorer's environment shows them, too, and has no OneFlow.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from batch.cli.options import CheckpointFolder, DatasetFolder, Force, Seed, console, say, when_forced
from streaming.errors import BadInput

__all__ = ["evaluate", "export", "train"]


def train(
    *,
    dataset: DatasetFolder,
    out: Annotated[Path, typer.Option("--out", "--checkpoint", help="Checkpoint folder to write.")],
    seed: Seed = 1,
    preset: Annotated[
        str, typer.Option(help="default, with [model] of app.toml; or tutorial: five layers of 1000.")
    ] = "default",
    embedding: Annotated[int | None, typer.Option(help="Dimensions of an id's embedding.")] = None,
    layers: Annotated[str | None, typer.Option(help="Widths of the deep network's layers, as in 256,128.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Share of hidden activations set to zero.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples of a step.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training part at most.")] = None,
    embedding_l2: Annotated[float | None, typer.Option(help="Weight of the embeddings' length in the loss.")] = None,
    count_min: Annotated[int | None, typer.Option(help="Occurrences from which on an id owns an embedding.")] = None,
    patience: Annotated[int | None, typer.Option(help="Evaluations without a better one before it stops.")] = None,
    update_rows: Annotated[
        str | None,
        typer.Option(
            help="Embedding rows that a step updates: all; or touched, its samples' own: faster with 100,000 and more."
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Train the OneFlow DeepFM; keeps the checkpoint with the best validation AUC, and evaluates it: its report."""
    import dataclasses

    from batch.dataset.read import read_info
    from batch.train import deepfm  # noqa: F401 - where OneFlow is missing, goes on elsewhere before it reads a file
    from batch.train.options import TrainOptions
    from batch.train.training import TrainingFailed, train_model

    if preset not in ("default", "tutorial"):
        raise typer.BadParameter(f"{preset!r} is none of default, tutorial", param_hint="--preset")
    given: dict[str, Any] = {
        "embedding": embedding,
        "layers": _widths(layers),
        "dropout": dropout,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "epochs_max": epochs,
        "embedding_l2": embedding_l2,
        "count_min": count_min,
        "patience": patience,
        "update_rows": update_rows,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    try:
        base = TrainOptions.tutorial() if preset == "tutorial" else TrainOptions.defaults(read_info(dataset).model)
        chosen = dataclasses.replace(base, seed=seed, **changes)
        done = train_model(dataset, out, chosen, console, force=when_forced(force))
    except TrainingFailed as error:
        raise BadInput(f"training failed: {error}") from error
    auc = "none" if done.best.val_auc is None else f"{done.best.val_auc:.4f}"
    console.print(
        f"best: step {done.best.step}, validation AUC {auc}, log loss {done.best.val_log_loss:.4f}; "
        f"{done.samples_per_s:,.0f} samples/s, {done.seconds:.0f} s{', stopped early' if done.stopped_early else ''}"
    )
    evaluate(dataset=dataset, checkpoint=out)  # after it: what cannot be judged was trained all the same


def evaluate(
    dataset: DatasetFolder,
    checkpoint: CheckpointFolder,
    out: Annotated[
        Path | None, typer.Option(help="Folder for metrics and predictions; default: the checkpoint's.")
    ] = None,
    force: Force = False,
) -> None:
    """Score validation and test: AUC, log loss and calibration error, beside the base rate's; a verdict; a report."""
    from batch.report.report import REPORT_HTML
    from batch.train.evaluation import evaluate_checkpoint
    from batch.train.verdict import CLASS_MIN, judge

    if force and out is None:
        raise typer.BadParameter("goes with --out only: a checkpoint is no folder to clear", param_hint="--force")
    measured = evaluate_checkpoint(dataset, checkpoint, out, force=when_forced(force))
    for part, metrics in measured.items():
        auc = "none (one class only)" if metrics.auc is None else f"{metrics.auc:.4f}"
        few = min(metrics.positives, metrics.count - metrics.positives)
        if few < CLASS_MIN:
            auc += f", with no interval: {few} samples of a class are too few for one"
        elif metrics.auc_low is not None:
            auc += f", 95% confidence {metrics.auc_low:.4f} to {metrics.auc_high:.4f}"
        console.print(
            f"{part}: {metrics.count:,} samples, {metrics.positives:,} positive, "
            f"{metrics.count - metrics.positives:,} negative; each beside the base rate's {metrics.base_rate:.4f}:\n"
            f"  AUC               {auc} (0.5)\n"
            f"  log loss          {metrics.log_loss:.4f} ({metrics.base_log_loss:.4f})\n"
            f"  calibration error {metrics.calibration_error:.4f} ({metrics.base_calibration_error:.4f})"
        )
    console.print(f"the model {judge(measured).text}")
    say(f"report: {(checkpoint if out is None else out) / REPORT_HTML}")


def export(
    *,
    dataset: DatasetFolder,
    checkpoint: CheckpointFolder,
    out: Annotated[Path, typer.Option("--out", "--artifact", help="Artifact folder to write.")],
    evaluation: Annotated[
        Path | None, typer.Option(help="Folder that `evaluate` wrote; default: the checkpoint's, made now if need be.")
    ] = None,
    model_version: Annotated[int | None, typer.Option(help="Default: one more than the newest in --out.")] = None,
    instances: Annotated[int, typer.Option(help="Processes that run the model in Triton.")] = 1,
    accept_weak_model: Annotated[
        bool, typer.Option("--accept-weak-model", help="Export a model that is no better than the base rate.")
    ] = False,
    app: Annotated[
        Path | None, typer.Option("--app", help="Folder that must be the application that the dataset was made with.")
    ] = None,
    force: Force = False,
) -> None:
    """Write the artifact, or the next version into it: Triton repository, encoder, application and a manifest."""
    from batch.train.export import ExportOptions, export_artifact
    from batch.train.verdict import METRICS, Evaluated, judge
    from streaming.shipped_files import app_folder

    lacking = evaluation is None and checkpoint.is_dir() and not (checkpoint / METRICS).exists()
    if lacking and find_spec("oneflow") is not None:
        evaluate(dataset=dataset, checkpoint=checkpoint)
    options = ExportOptions(model_version, instances, accept_weak_model)
    folder = None if app is None else app_folder(app)
    manifest = export_artifact(
        dataset, checkpoint, out, options, app=folder, evaluation=evaluation, force=when_forced(force)
    )
    console.print(f"{out}: model version {manifest.model_version}, weights {manifest.weights_sha256}")
    verdict = judge(msgspec.convert(manifest.metrics, Evaluated).parts)
    if not verdict.better:
        console.print(f"note: exported all the same, the model {verdict.text}")


def _widths(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} are no widths such as 256,128", param_hint="--layers") from None
