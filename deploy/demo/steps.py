"""Steps of the demo that are commands of `jd-intent-batch`, each in its environment, its output shown as it comes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from batch.replay import EVENTS, Replay, Replays
from batch.train.verdict import judge, read_evaluated
from batch.world.replays import replays_of
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
    "step",
]

# In a file or a CI log there is no width to keep to: tables take what they need.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


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


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Says what begins and, at the end, how long it took."""
    console.rule(f"[bold]{title}", align="left")
    started = time.monotonic()
    yield
    console.print(f"[dim]{title}: {time.monotonic() - started:.1f} s[/dim]")


def run_command(environment: str, *words: object, module: str = "batch") -> None:
    """Runs `jd-intent-batch …` (or `jd-intent-score …`) in an environment, its output shown as it comes.

    Raises:
        DemoFailed: it exited with another status than 0.
    """
    argv = [str(interpreter(environment)), "-m", module, *map(str, words)]
    command = {"batch": "jd-intent-batch", "streaming": "jd-intent-score"}[module]
    console.print(f"[dim]$ {command} {' '.join(map(str, words))}   ({environment} environment)[/dim]", soft_wrap=True)
    # A session of its own, so that Ctrl-C reaches this process only, which then ends the step and all servers in order.
    with subprocess.Popen(argv, cwd=REPOSITORY, start_new_session=True) as child:
        try:
            status = child.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself at the same moment
                os.killpg(child.pid, signal.SIGKILL)
            raise
    if status:
        raise DemoFailed(f"`{command} {words[0]}` exited with status {status}")


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
    run_command("scorer", "backfill", "--app", shop.folder, *given, "--out", tables)
    return tables, replays


def prepare_model(options: DemoOptions, shop: Shop, data: Path) -> dict[str, Any]:
    """Steps 3 to 6 up to the artifact; returns the artifact's manifest."""
    work = options.work
    with step("2 Offline features: the SQL over every request, as of its own time"):
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
    with step("3 Training: the OneFlow DeepFM"):
        run_command(
            "model", "train", "--dataset", work / "dataset", "--out", work / "checkpoint", "--seed", options.seed
        )
    with step("4 Evaluation on the test part, and the Triton repository"):
        run_command(
            "model",
            "evaluate",
            "--dataset",
            work / "dataset",
            "--checkpoint",
            work / "checkpoint",
            "--out",
            work / "evaluation",
        )
        # A small world's, or a shop's with few orders: the demo shows the whole way all the same, and says so.
        weak = [] if judge(read_evaluated(work / "evaluation").parts).better else ["--accept-weak-model"]
        run_command(
            "model",
            "export",
            "--checkpoint",
            work / "checkpoint",
            "--dataset",
            work / "dataset",
            "--evaluation",
            work / "evaluation",
            "--out",
            work / "artifact",
            *weak,
        )
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
    there = pq.read_table(work / "evaluation" / "predictions.parquet")
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
