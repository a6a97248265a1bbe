"""Steps of the demo that are commands of `jd-intent-batch`, each in its environment."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.replay import EVENTS, Replay, Replays
from batch.report.report import read_history
from batch.train.verdict import judge, read_evaluated
from batch.world.replays import replays_of
from deploy.demo.screen import Screen
from deploy.demo.screen import console as terminal
from deploy.demo.shop import Shop
from deploy.environments import REPOSITORY, interpreter
from streaming.app.history import history_folder

__all__ = [
    "DemoFailed",
    "DemoOptions",
    "console",
    "offline_predictions",
    "prepare_data",
    "prepare_model",
    "run_command",
    "screen",
]

screen = Screen(terminal())
console = screen.console


class DemoFailed(Exception):
    """A step failed; the message says which and why."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The words of the command line.

    Attributes:
        app: the folder of the application.
        data: a folder of the application's tables, or of an archive of its events; None: a world is generated.
        users, seed: of the generated world.
        keep: leave all running until Ctrl-C.
        work: where everything is written.
        force: write there though other things lie there.
        zk, zk_path: of an OpenMLDB cluster; "": the embedded engine.
    """

    app: str
    data: Path | None
    users: int
    seed: int
    keep: bool
    work: Path
    force: bool
    zk: str
    zk_path: str


def run_command(environment: str, *words: object, module: str = "batch") -> None:
    """Runs `jd-intent-batch …` (or `jd-intent-score …`) in an environment; the log has the command and what it says.

    Raises:
        DemoFailed: it exited with another status than 0; the end of what it said is shown.
    """
    argv = [str(interpreter(environment)), "-m", module, *map(str, words)]
    command = {"batch": "jd-intent-batch", "streaming": "jd-intent-score"}[module]
    shown = f"{command} {shlex.join(map(str, words))}   # {environment} environment"
    status, said = screen.run(argv, shown, REPOSITORY)
    if status:
        screen.failed(said)
        raise DemoFailed(f"`{command} {words[0]}` exited with status {status}; the whole log is {screen.log}")


def prepare_data(options: DemoOptions, shop: Shop) -> tuple[Path, Replays]:
    """The application's tables, and how a period of them is replayed.

    Raises:
        DemoFailed: there is nothing to make them of. BadInput: an archive lacks the events that ask.
    """
    found = options.data or (shop.app.settings.demo.data and shop.folder / shop.app.settings.demo.data) or None
    if found is None:
        if shop.app.settings.demo.generator is None:
            file = shop.folder / "app.toml"
            raise DemoFailed(
                f"{file}: [demo] names no generator and no data: give DATA, a folder of tables or of events"
            )
        found = options.work / "data"
        words = ("--app", shop.folder, "--users", options.users, "--seed", options.seed, "--out", found)
        run_command("scorer", "generate", *words)
    replays = replays_of(shop.app, found)
    if (found / history_folder(shop.app, shop.app.main)).exists():
        return found, replays
    tables = options.work / "data"
    archives = [(stream.name, found / EVENTS / f"{stream.topic}.jsonl") for stream in shop.app.streams]
    given = [word for name, file in archives if file.is_file() for word in ("--from", f"{name}={file}")]
    if not given:
        wanted = ", ".join(f"{EVENTS}/{file.name}" for _, file in archives)
        raise DemoFailed(
            f"{found}: there are neither tables (no folder {history_folder(shop.app, shop.app.main)}) nor events (none "
            f"of {wanted})"
        )
    run_command("scorer", "backfill", "--app", shop.folder, *given, "--out", tables)
    return tables, replays


def prepare_model(options: DemoOptions, shop: Shop, data: Path) -> dict[str, Any]:
    """Steps 3 to 6 up to the artifact; returns the artifact's manifest."""
    work = options.work
    with screen.step(2, "features") as step:
        run_command("scorer", "extract", "--app", shop.folder, "--data", data, "--out", work / "features")
        run_command(
            "scorer",
            "prepare",
            "--app",
            shop.folder,
            "--features",
            work / "features",
            "--data",
            data,
            "--out",
            work / "dataset",
            "--complete-labels",
        )
        made = json.loads((work / "dataset" / "dataset.json").read_text())
        requests, positives = sum(made["counts"].values()), sum(made["positives"].values())
        step.result = f"{len(made['table_size_array'])} for each of {requests:,} requests, {positives:,} positive"
    with screen.step(3, "training") as step:
        run_command(
            "model", "train", "--dataset", work / "dataset", "--out", work / "checkpoint", "--seed", options.seed
        )
        best = max(line.epoch for line in read_history(work / "checkpoint") if line.best)
        step.result = f"OneFlow DeepFM, best at epoch {best:g}"
    with screen.step(4, "evaluation") as step:
        measured = read_evaluated(work / "checkpoint").parts
        # A small world's, or a shop's with few orders: the demo shows the whole way all the same, and says so.
        weak = [] if judge(measured).better else ["--accept-weak-model"]
        run_command(
            "model",
            "export",
            "--checkpoint",
            work / "checkpoint",
            "--dataset",
            work / "dataset",
            "--out",
            work / "artifact",
            *weak,
        )
        auc = measured["test"].auc
        step.result = "of the test part: " + ("no AUC, all labels are alike" if auc is None else f"AUC {auc:.4f}")
    manifest: dict[str, Any] = json.loads((work / "artifact" / "manifest.json").read_text())
    return manifest


def offline_predictions(options: DemoOptions, shop: Shop, data: Path, replays: Replays, replay: Replay) -> pa.Table:
    """Probabilities of the streamed requests from the offline side: request_id, label, probability.

    Where the streamed requests are the test part (the generated world), evaluation has them. Where they are not (the
    tutorial's data has requests for some actions only, and times in seconds), they are extracted, encoded and scored
    offline now.
    """
    work = options.work
    streamed = replay.request_ids
    there = pq.read_table(work / "checkpoint" / "predictions.parquet")
    there = there.filter(pc.is_in(there["request_id"].cast(pa.string()), pa.array(streamed)))
    if there.num_rows == len(streamed) and not replay.spread:
        return there
    parts = work / "streamed"
    replays.streamed_folder(data, work / "history", replay, parts / "data")
    labels = "later-event" if shop.app.settings.label.later_event else "auto"
    run_command("scorer", "extract", "--app", shop.folder, "--data", parts / "data", "--out", parts / "features")
    run_command(
        "scorer",
        "encode",
        "--app",
        shop.folder,
        "--features",
        parts / "features",
        "--data",
        parts / "data",
        "--out",
        parts / "dataset",
        "--encoder",
        work / "artifact" / "encoder",
        "--since",
        replay.events[0].time,
        "--labels",
        labels,
    )
    run_command(
        "model",
        "evaluate",
        "--dataset",
        parts / "dataset",
        "--checkpoint",
        work / "checkpoint",
        "--out",
        parts / "evaluation",
    )
    return pq.read_table(parts / "evaluation" / "predictions.parquet")
