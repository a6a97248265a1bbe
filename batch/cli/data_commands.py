"""Commands that make data: a world, its features, a dataset; and the comparison of served and offline features.

Each imports what it needs when it runs: the model's environment shows them, too, and lacks most of it.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batch.cli.options import (
    AppFolder,
    ConfigFile,
    DataFolder,
    Force,
    JobTimeout,
    Seed,
    Without,
    chosen_app,
    console,
    say,
    when_forced,
)
from streaming.errors import BadInput
from streaming.files.output_folder import Say
from streaming.ops import exits

if TYPE_CHECKING:
    from batch.dataset.fit_encoder import FieldReport
    from batch.dataset.write import WrittenDataset
    from streaming.app.folder import App

__all__ = ["encode", "extract", "generate", "load_online", "parity", "prepare"]


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
    column = "column"
    joined = "joined"
    later_event = "later-event"


def generate(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    application: Annotated[
        Path | None, typer.Option("--app", help="Application whose [demo] names the world; default: the tutorial's.")
    ] = None,
    users: Annotated[int, typer.Option(help="How many (ad clicks: ips); each makes about 40 requests.")] = 6000,
    seed: Seed = 1,
    days: Annotated[
        int | None,
        typer.Option(help="Length; default 70, of which the last five serve the labels only (ad clicks: 4)."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Of ad clicks, the share that is attributed; default 0.003.")
    ] = None,
    sample: Annotated[
        Path | None, typer.Option(help="Of ad clicks, the public sample's csv: these clicks instead of a made world.")
    ] = None,
    force: Force = False,
) -> None:
    """Make a seeded world in an application's schema, with intent to learn and a known ceiling."""
    from streaming.app.folder import load_app
    from streaming.shipped_files import app_folder

    name = "jd" if application is None else load_app(app_folder(application)).settings.demo.generator
    if name == "talkingdata":
        _generate_clicks(out, users, seed, days, rate, sample, force)
        return
    if name != "jd":
        what = "names no generator" if name is None else f"generator {name!r}"
        raise BadInput(f"{application}/app.toml: {what}: [demo] may say generator = 'jd' or 'talkingdata'")
    if rate is not None or sample is not None:
        raise typer.BadParameter("go with the world of ad clicks only", param_hint="--rate, --sample")
    from batch.world.generate import generate_world

    started = time.monotonic()
    world = generate_world(out, users, seed, 70 if days is None else days, force=when_forced(force))
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


def _generate_clicks(
    out: Path, ips: int, seed: int, days: int | None, rate: float | None, sample: Path | None, force: bool
) -> None:
    from batch.world.ad_clicks import RATE, convert_click_sample, generate_ad_clicks

    started, told = time.monotonic(), when_forced(force)
    if sample is not None:
        made = convert_click_sample(sample, out, force=told)
    else:
        days, rate = 4 if days is None else days, RATE if rate is None else rate
        made = generate_ad_clicks(out, ips, seed, days, rate, force=told)
    seconds = time.monotonic() - started
    share = f"{made.attributed:,} of them attributed ({made.attributed / made.clicks:.2%})"
    console.print(f"{made.ips:,} ips, {made.clicks:,} clicks in {made.days} days, {share}")
    if made.true_auc is not None:
        console.print(f"AUC of the true probabilities: {made.true_auc:.4f} (knows the latent intent: a ceiling)")
    console.print(f"{out}: {seconds:.1f} s, {made.clicks / seconds:,.0f} clicks/s")


def extract(
    *,
    data: Annotated[
        str, typer.Option("--data", help="Folder with one of parquet (or csv) files for each table of the application.")
    ],
    out: Annotated[str, typer.Option(help="Folder for the features.")],
    app: AppFolder = None,
    engine: Annotated[
        EngineName,
        typer.Option(
            help="embedded: in this process. openmldb: jobs on the cluster of [store]; --data and --out are then paths "
            "or URIs as its TaskManager sees them. spark: OpenMLDB's batch engine on Spark (make spark-environment)."
        ),
    ] = EngineName.embedded,
    config: ConfigFile = None,
    without: Without = None,
    timeout_s: JobTimeout = 4 * 3600.0,
    master: Annotated[str | None, typer.Option(help="Spark's master URL; default local[2].")] = None,
    spark_conf: Annotated[list[str] | None, typer.Option(help="An option of Spark, KEY=VALUE; repeatable.")] = None,
    force: Force = False,
) -> None:
    """Run the feature SQL over every request as of its own time."""
    if engine is not EngineName.spark and (master or spark_conf):
        raise typer.BadParameter("goes with --engine spark only", param_hint="--master, --spark-conf")
    chosen, told = chosen_app(app), when_forced(force)
    if engine is EngineName.openmldb:
        _extract_on_cluster(data, out, chosen, config, without=without or (), timeout_s=timeout_s, force=told)
        return
    if engine is EngineName.spark:
        from batch.features.spark import MASTER, extract_on_spark

        options = _pairs(spark_conf or [])
        done = extract_on_spark(Path(data), Path(out), chosen, master or MASTER, options, force=told)
    else:
        from batch.features.extract import extract_features

        with _shown("requests") as progress:
            done = extract_features(Path(data), Path(out), chosen, force=told, progress=progress)
    console.print(
        "checked " + ", ".join(f"{table} {rows:,}" for table, rows in done.rows.items()) + f": {done.check_s:.1f} s"
    )
    rate = done.features / max(done.run_s, 1e-9)
    console.print(f"{done.features:,} requests x {done.columns} columns: {done.run_s:.1f} s, {rate:,.0f} requests/s")


@contextlib.contextmanager
def _shown(what: str) -> Iterator[Callable[[int, int], None]]:
    """Takes how much is done, and of how much: a bar on a terminal, elsewhere a line per tenth."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not console.is_terminal:
        said = 0

        def line(done: int, of: int) -> None:
            nonlocal said
            if 10 * done // of > said:
                said = 10 * done // of
                say(f"{done:,} of {of:,} {what}")

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _extract_on_cluster(
    data: str, out: str, app: App, config: Path | None, *, without: Sequence[str], timeout_s: float, force: Say | None
) -> None:
    from batch.features.cluster import extract_on_cluster
    from streaming.config import load
    from streaming.store.open import open_cluster

    with open_cluster(load(config).store, app) as cluster:
        written = extract_on_cluster(
            cluster, data, out, app, without=without, timeout_s=timeout_s, say=say, force=force
        )
    seen = f"{out} (not seen from here)"
    if written.features is not None:
        seen = f"{written.features:,} requests x {written.columns} columns in {out}"
    console.print(f"{seen}: {written.jobs} jobs, {written.seconds:.1f} s")


def load_online(
    *,
    data: Annotated[str, typer.Option("--data", help="Path or URI, as the cluster's TaskManager sees it.")],
    config: ConfigFile = None,
    append: Annotated[
        bool, typer.Option("--append", help="Load into tables that have rows: what is there already is doubled.")
    ] = False,
    app: AppFolder = None,
    without: Without = None,
    timeout_s: JobTimeout = 4 * 3600.0,
) -> None:
    """Load history into the online tables of the cluster of [store], by LOAD DATA jobs: after `deploy`."""
    from batch.features.cluster import load_online_tables
    from streaming.config import load
    from streaming.store.open import open_cluster

    chosen = chosen_app(app)
    with open_cluster(load(config).store, chosen) as cluster:
        rows = load_online_tables(
            cluster, data, chosen, append=append, without=without or (), timeout_s=timeout_s, say=say
        )
    console.print("rows now: " + ", ".join(f"{table} {count:,}" for table, count in rows.items()))


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
        bool,
        typer.Option(
            "--complete-labels",
            help="Leave out requests whose label may miss events: less than its horizon before the last known row.",
        ),
    ] = False,
    app: AppFolder = None,
    force: Force = False,
) -> None:
    """Label, split by time, fit the encoder on the training part, encode."""
    from batch.dataset.write import DatasetOptions, prepare_dataset

    options = DatasetOptions(val_fraction, test_fraction, _duration_ms(embargo), complete_labels, encoding.value)
    chosen = chosen_app(app)
    done = prepare_dataset(features, data, out, options, chosen, force=when_forced(force))
    for part, count in done.counts.items():
        console.print(f"{part} samples = {count}")
    positives = ", ".join(f"{part} {n} ({n / done.counts[part]:.2%})" for part, n in done.positives.items())
    console.print(f"positives = {positives}, labels from {done.label_source}")
    console.print("table size array:\n" + ",".join(map(str, done.table_size_array)))
    console.print(_field_table(done.fields), markup=False)
    _notes(done)
    later = chosen.settings.label.later_event
    if done.horizon_cut and later is not None:
        console.print(
            f"note: {done.horizon_cut:,} requests are less than {later.horizon} before the last row of {later.table}: "
            "events after it are unknown (--complete-labels leaves them out)"
        )


def _notes(done: WrittenDataset) -> None:
    """What a user should know of the requests and their labels."""
    if done.repeated:
        console.print(
            f"note: {done.repeated:,} requests have the id of an earlier one: what is joined by it is that of any"
        )
    if done.unlabelled:
        console.print(
            f"note: {done.unlabelled:,} requests have no label in {done.label_source} and were left out", markup=False
        )
    if done.above_one:
        console.print(
            f"note: {done.above_one:,} labels are above 1 and count as 1: a number to be predicted is not supported"
        )


def _field_table(fields: Sequence[FieldReport]) -> str:
    """What came of each field of the encoder, a line each."""
    rows = [("field", "kind", "distinct", "missing", "kept", "")]
    rows += [(f.name, f.kind, f"{f.distinct:,}", f"{f.missing:,}", f"{f.kept:,}", f.note) for f in fields]
    widths = [max(len(row[at]) for row in rows) for at in range(5)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}  "
        f"{row[4]:>{widths[4]}}  {row[5]}".rstrip()
        for row in rows
    )


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
            help="A way of [label] in app.toml: column, joined (both without the requests that they lack) or "
            "later-event; auto: column where it is not NULL throughout, else the other."
        ),
    ] = LabelName.auto,
    app: AppFolder = None,
    force: Force = False,
) -> None:
    """Label and encode later requests with an encoder that exists."""
    from batch.dataset.write import encode_later_requests

    done = encode_later_requests(
        features, data, out, encoder, since_ms=since, labels=labels.value, app=chosen_app(app), force=when_forced(force)
    )
    console.print(
        f"test samples = {done.counts['test']}, positives = {done.positives['test']}, labels from {done.label_source}"
    )
    _notes(done)


def parity(
    served: Annotated[Path, typer.Option(help="Parquet file or folder: what was served online.")],
    offline: Annotated[Path, typer.Option(help="Parquet file or folder: the same requests, computed offline.")],
    encoder: Annotated[Path | None, typer.Option(help="Encoder folder: compares the model's input ids too.")] = None,
    plot: Annotated[Path | None, typer.Option(help="SVG file to draw both sides into; it is written anew.")] = None,
    app: AppFolder = None,
) -> None:
    """Compare served features and probabilities with the offline ones; exit status 1 when any differs."""
    from batch.parity import compare, draw, names_of, read_rows
    from streaming.model.encoder import Encoder

    names = names_of(chosen_app(app))
    ids = None if encoder is None else Encoder.load(encoder)
    tables = read_rows(served, names), read_rows(offline, names)
    report = compare(*tables, names, ids)
    console.print(report.text(), markup=False)
    if plot is not None:
        draw(plot, *tables, names, report)
        console.print(f"plot: {plot}", markup=False)
    if not report.equal:
        raise typer.Exit(exits.ANSWER_IS_NO)


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
