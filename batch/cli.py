"""`jd-intent-batch`: from history to a model that Triton serves, one command per step.

train and evaluate run in the model's environment, the others in the scorer's: given in the other one, a command goes
on in its own. Each imports what it needs when it runs, so that both can show all of them.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from streaming.errors import BadInput
from streaming.ops import exits
from streaming.version import Version

__all__ = ["app", "main"]

app = typer.Typer(
    name=exits.BATCH,
    help=__doc__,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
console = Console(highlight=False, soft_wrap=True)

Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
DataFolder = Annotated[Path, typer.Option("--data", help="Folder in the tutorial's layout (bo_action/*.parquet, …).")]
SqlFolder = Annotated[
    Path | None, typer.Option("--sql", help="Folder of the SQL scripts; default: the project's sql/.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="Of a cluster: its [store], see deploy/scorer.toml.")
]
NoAction = Annotated[
    bool, typer.Option("--no-action", help="A cluster's DATA that is not seen from here has no table `action`.")
]
JobTimeout = Annotated[float, typer.Option("--timeout", help="Seconds for each job on a cluster.", min=1)]
Force = Annotated[
    bool, typer.Option("--force", help="Write to --out though other things lie there: says what it removes, and does.")
]
DatasetFolder = Annotated[Path, typer.Option("--dataset", help="Folder that `prepare` wrote.")]
CheckpointFolder = Annotated[Path, typer.Option("--checkpoint", help="Folder that `train` wrote.")]


class EngineName(str, Enum):
    """What computes the features."""

    embedded = "embedded"
    openmldb = "openmldb"
    spark = "spark"


class EncodingName(str, Enum):
    """How features become ids."""

    typed = "typed"
    seed = "seed"


class LabelName(str, Enum):
    """Where labels come from."""

    auto = "auto"
    action = "action"
    five_day = "five-day"


@app.callback()
def program(version: Version = False) -> None:
    """Options of the program itself."""


@app.command()
def generate(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    users: Annotated[int, typer.Option(help="How many; each makes about 40 requests.")] = 6000,
    seed: Seed = 1,
    days: Annotated[int, typer.Option(help="Length of the world; the last five days serve the labels only.")] = 70,
    force: Force = False,
) -> None:
    """Make a seeded world in the tutorial's schema, with intent to learn and a known ceiling."""
    from batch.world.generate import generate as make

    started = time.monotonic()
    world = make(out, users, seed, days, force=_told(force))
    seconds = time.monotonic() - started
    console.print(
        f"{world.users:,} users, {world.products:,} products, {world.actions:,} actions, {world.requests:,} requests, "
        f"{world.positives:,} of them positive ({world.positives / max(world.requests, 1):.1%})"
    )
    if world.true_auc is None:
        console.print("AUC of the true probabilities: none, as the requests are all of one class")
    else:
        console.print(f"AUC of the true probabilities: {world.true_auc:.4f} (knows the latent intent: a ceiling)")
    console.print(f"{out}: {seconds:.1f} s, {world.actions / seconds:,.0f} actions/s")


@app.command()
def extract(
    *,
    data: Annotated[str, typer.Option("--data", help="Folder in the tutorial's layout (bo_action/*.parquet, …).")],
    out: Annotated[str, typer.Option(help="Folder for the features.")],
    sql: SqlFolder = None,
    engine: Annotated[
        EngineName,
        typer.Option(
            help="embedded: in this process. openmldb: jobs on the cluster of [store]; --data and --out are then paths "
            "or URIs as its TaskManager sees them. spark: OpenMLDB's batch engine on Spark (make spark-environment)."
        ),
    ] = EngineName.embedded,
    config: ConfigFile = None,
    no_action: NoAction = False,
    timeout_s: JobTimeout = 4 * 3600.0,
    master: Annotated[str | None, typer.Option(help="Spark's master URL; default local[2].")] = None,
    spark_conf: Annotated[list[str] | None, typer.Option(help="An option of Spark, KEY=VALUE; repeatable.")] = None,
    force: Force = False,
) -> None:
    """Run the feature SQL over every request as of its own time."""
    from batch.features.extract import SQL_FOLDER
    from batch.features.extract import extract as run

    if engine is not EngineName.spark and (master or spark_conf):
        raise typer.BadParameter("goes with --engine spark only", param_hint="--master, --spark-conf")
    if engine is EngineName.openmldb:
        from batch.features import cluster as offline
        from streaming.config import load
        from streaming.store.open import open_cluster

        with open_cluster(load(config).store) as cluster:
            written = offline.extract(
                cluster,
                data,
                out,
                sql or SQL_FOLDER,
                action=not no_action,
                timeout_s=timeout_s,
                say=_say,
                force=_told(force),
            )
        seen = f"{out} (not seen from here)"
        if written.features is not None:
            seen = f"{written.features:,} requests x {written.columns} columns in {out}"
        console.print(f"{seen}: {written.jobs} jobs, {written.seconds:.1f} s")
        return
    if engine is EngineName.spark:
        from batch.features import spark

        options = _pairs(spark_conf or [])
        done = spark.extract(
            Path(data), Path(out), sql or SQL_FOLDER, master or spark.MASTER, options, force=_told(force)
        )
    else:
        done = run(Path(data), Path(out), sql or SQL_FOLDER, force=_told(force))
    console.print(
        "checked " + ", ".join(f"{table} {rows:,}" for table, rows in done.rows.items()) + f": {done.check_s:.1f} s"
    )
    rate = done.features / max(done.run_s, 1e-9)
    console.print(f"{done.features:,} requests x {done.columns} columns: {done.run_s:.1f} s, {rate:,.0f} requests/s")


@app.command()
def load_online(
    *,
    data: Annotated[str, typer.Option("--data", help="Path or URI, as the cluster's TaskManager sees it.")],
    config: ConfigFile = None,
    append: Annotated[
        bool, typer.Option("--append", help="Load into tables that have rows: what is there already is doubled.")
    ] = False,
    sql: SqlFolder = None,
    no_action: NoAction = False,
    timeout_s: JobTimeout = 4 * 3600.0,
) -> None:
    """Load history into the online tables of the cluster of [store], by LOAD DATA jobs: after `deploy`."""
    from batch.features import cluster as offline
    from batch.features.extract import SQL_FOLDER
    from streaming.config import load
    from streaming.store.open import open_cluster

    with open_cluster(load(config).store) as cluster:
        rows = offline.load_online(
            cluster, data, sql or SQL_FOLDER, append=append, action=not no_action, timeout_s=timeout_s, say=_say
        )
    console.print("rows now: " + ", ".join(f"{table} {count:,}" for table, count in rows.items()))


@app.command()
def prepare(
    *,
    features: Annotated[Path, typer.Option(help="Folder that `extract` wrote.")],
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="Dataset folder to write.")],
    val_fraction: Annotated[float, typer.Option(help="Share of the requests, by time, that validates.")] = 0.1,
    test_fraction: Annotated[float, typer.Option(help="Share of the requests, the newest, that tests.")] = 0.1,
    embargo: Annotated[
        str, typer.Option(help="Leave out requests closer than this to the next part: 0s, 12h, 5d.")
    ] = "0s",
    encoding: Annotated[
        EncodingName, typer.Option(help="typed, or the seed system's: every value hashed.")
    ] = EncodingName.typed,
    complete_labels: Annotated[
        bool, typer.Option("--complete-labels", help="Leave out requests less than five days before the last action.")
    ] = False,
    sql: SqlFolder = None,
    force: Force = False,
) -> None:
    """Label, split by time, fit the encoder on the training part, encode."""
    from batch.dataset.write import Options
    from batch.dataset.write import prepare as run
    from batch.features.extract import SQL_FOLDER

    options = Options(val_fraction, test_fraction, _duration_ms(embargo), complete_labels, encoding.value)
    done = run(features, data, out, options, sql or SQL_FOLDER, force=_told(force))
    for part, count in done.counts.items():
        console.print(f"{part} samples = {count}")
    positives = ", ".join(f"{part} {n} ({n / done.counts[part]:.2%})" for part, n in done.positives.items())
    console.print(f"positives = {positives}, labels from {done.label_source}")
    console.print("table size array:\n" + ",".join(map(str, done.table_size_array)))
    if done.unlabelled:
        console.print(f"note: {done.unlabelled:,} requests have no row in `action` and were left out")
    if done.horizon_cut:
        console.print(
            f"note: {done.horizon_cut:,} requests are less than five days before the last action: "
            "orders after it are unknown (--complete-labels leaves them out)"
        )


@app.command()
def encode(
    *,
    features: Annotated[Path, typer.Option(help="Folder that `extract` wrote.")],
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="Dataset folder to write; its only part is `test`.")],
    encoder: Annotated[Path, typer.Option(help="Encoder folder: an artifact's or a dataset's encoder/.")],
    since: Annotated[int, typer.Option(help="Take the requests from this time on, epoch ms.")] = 0,
    labels: Annotated[
        LabelName,
        typer.Option(
            help="action: the data's table, without the requests that it lacks; five-day: the orders in bo_action; "
            "auto: action where there is one."
        ),
    ] = LabelName.auto,
    sql: SqlFolder = None,
    force: Force = False,
) -> None:
    """Label and encode later requests with an encoder that exists."""
    from batch.dataset.write import encode_with
    from batch.features.extract import SQL_FOLDER

    done = encode_with(
        features, data, out, encoder, since_ms=since, labels=labels.value, sql=sql or SQL_FOLDER, force=_told(force)
    )
    console.print(
        f"test samples = {done.counts['test']}, positives = {done.positives['test']}, labels from {done.label_source}"
    )
    if done.unlabelled:
        console.print(f"note: {done.unlabelled:,} requests have no row in `action` and were left out")


@app.command()
def train(
    *,
    dataset: DatasetFolder,
    out: Annotated[Path, typer.Option("--out", "--checkpoint", help="Checkpoint folder to write.")],
    seed: Seed = 1,
    preset: Annotated[str, typer.Option(help="default, or tutorial: five layers of 1000.")] = "default",
    embedding: Annotated[int | None, typer.Option(help="Dimensions of an id's embedding.")] = None,
    layers: Annotated[str | None, typer.Option(help="Widths of the deep network's layers, as in 256,128.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Share of hidden activations set to zero.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples of a step.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training part at most.")] = None,
    embedding_l2: Annotated[float | None, typer.Option(help="Weight of the embeddings' length in the loss.")] = None,
    count_min: Annotated[int | None, typer.Option(help="Occurrences from which on an id owns an embedding.")] = None,
    patience: Annotated[int | None, typer.Option(help="Evaluations without a better one before it stops.")] = None,
    force: Force = False,
) -> None:
    """Train the OneFlow DeepFM; keeps the checkpoint with the best validation AUC."""
    import dataclasses

    from batch.train import deepfm  # noqa: F401 - where OneFlow is missing, goes on elsewhere before it reads a file
    from batch.train.training import TrainingFailed, TrainOptions
    from batch.train.training import train as run

    presets = {"default": TrainOptions, "tutorial": TrainOptions.tutorial}
    if preset not in presets:
        raise typer.BadParameter(f"{preset!r} is none of {', '.join(presets)}", param_hint="--preset")
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
    }
    changes = {name: value for name, value in given.items() if value is not None}
    try:
        chosen = dataclasses.replace(presets[preset](), seed=seed, **changes)
        done = run(dataset, out, chosen, console, force=_told(force))
    except TrainingFailed as error:
        raise BadInput(f"training failed: {error}") from error
    auc = "none" if done.best.val_auc is None else f"{done.best.val_auc:.4f}"
    console.print(
        f"best: step {done.best.step}, validation AUC {auc}, log loss {done.best.val_log_loss:.4f}; "
        f"{done.samples_per_s:,.0f} samples/s, {done.seconds:.0f} s{', stopped early' if done.stopped_early else ''}"
    )


@app.command()
def evaluate(
    dataset: DatasetFolder,
    checkpoint: CheckpointFolder,
    out: Annotated[
        Path | None, typer.Option(help="Folder for metrics and predictions; default: the checkpoint's.")
    ] = None,
    force: Force = False,
) -> None:
    """Score validation and test: AUC, log loss and calibration error, each beside the base rate's; and a verdict."""
    from batch.train.evaluation import evaluate as run
    from batch.train.verdict import judge

    if force and out is None:
        raise typer.BadParameter("goes with --out only: a checkpoint is no folder to clear", param_hint="--force")
    measured = run(dataset, checkpoint, out, force=_told(force))
    for part, metrics in measured.items():
        auc = "none (one class only)" if metrics.auc is None else f"{metrics.auc:.4f}"
        if metrics.auc_low is not None:
            auc += f", 95% confidence {metrics.auc_low:.4f} to {metrics.auc_high:.4f}"
        console.print(
            f"{part}: {metrics.count:,} samples, {metrics.positives:,} positive, "
            f"{metrics.count - metrics.positives:,} negative; each beside the base rate's {metrics.base_rate:.4f}:\n"
            f"  AUC               {auc} (0.5)\n"
            f"  log loss          {metrics.log_loss:.4f} ({metrics.base_log_loss:.4f})\n"
            f"  calibration error {metrics.calibration_error:.4f} ({metrics.base_calibration_error:.4f})"
        )
    console.print(f"the model {judge(measured).text}")


@app.command()
def export(
    *,
    dataset: DatasetFolder,
    checkpoint: CheckpointFolder,
    out: Annotated[Path, typer.Option("--out", "--artifact", help="Artifact folder to write.")],
    evaluation: Annotated[
        Path | None, typer.Option(help="Folder that `evaluate` wrote; default: the checkpoint's.")
    ] = None,
    model_version: Annotated[int | None, typer.Option(help="Default: one more than the newest in --out.")] = None,
    instances: Annotated[int, typer.Option(help="Processes that run the model in Triton.")] = 1,
    accept_weak_model: Annotated[
        bool, typer.Option("--accept-weak-model", help="Export a model that is no better than the base rate.")
    ] = False,
    sql: SqlFolder = None,
    force: Force = False,
) -> None:
    """Write the artifact, or the next version into it: Triton repository, encoder, SQL and a manifest."""
    from batch.features.extract import SQL_FOLDER
    from batch.train.export import ExportOptions
    from batch.train.export import export as run
    from batch.train.verdict import Evaluated, judge

    options = ExportOptions(model_version, instances, accept_weak_model)
    features_sql = (sql or SQL_FOLDER) / "features.sql"
    manifest = run(dataset, checkpoint, features_sql, out, options, evaluation=evaluation, force=_told(force))
    console.print(f"{out}: model version {manifest.model_version}, weights {manifest.weights_sha256}")
    verdict = judge(msgspec.convert(manifest.metrics, Evaluated).parts)
    if not verdict.better:
        console.print(f"note: exported all the same, the model {verdict.text}")


@app.command()
def parity(
    served: Annotated[Path, typer.Option(help="Parquet file or folder: what was served online.")],
    offline: Annotated[Path, typer.Option(help="Parquet file or folder: the same requests, computed offline.")],
    encoder: Annotated[Path | None, typer.Option(help="Encoder folder: compares the model's input ids too.")] = None,
) -> None:
    """Compare served features and probabilities with the offline ones; exit status 1 when any differs."""
    from batch.parity import parity as run
    from batch.parity import read
    from streaming.model.encoder import Encoder

    report = run(read(served), read(offline), None if encoder is None else Encoder.load(encoder))
    console.print(report.text(), markup=False)
    if not report.equal:
        raise typer.Exit(1)


def _say(line: str) -> None:
    console.print(line, markup=False)


def _told(force: bool) -> Callable[[str], None] | None:
    return _say if force else None


def _duration_ms(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*(s|m|h|d)", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no duration such as 0s, 30m, 12h or 5d", param_hint="--embargo")
    return int(match[1]) * {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}[match[2]]


def _pairs(texts: list[str]) -> dict[str, str]:
    wrong = [text for text in texts if not re.match(r"spark\.[^=\s]+=", text)]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]!r} is not KEY=VALUE with a key of Spark's", param_hint="--spark-conf")
    return dict(text.split("=", 1) for text in texts)


def _widths(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} are no widths such as 256,128", param_hint="--layers") from None


def main() -> None:
    """The console script; told to stop, it takes away what is half written."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    exits.main(exits.BATCH, "batch", app)
