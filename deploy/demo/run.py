"""The whole job, once, on real parts: `make demo`.

    python -m deploy.demo [--app FOLDER] [--data DIR] [--users N] [--seed N] [--keep] [--force]
                          [--zk HOST:PORT [--zk-path PATH]]

Nine steps: data, offline features, training, evaluation, Triton, history, scorer, traffic, verdict. They are commands
that a user can give alone (`steps.log` has them); this file gives them in order, starts the servers, and stops all it
started.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import socket
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from confluent_kafka import KafkaException
from rich.markup import escape

from batch.replay import Replay
from deploy.demo.cluster import DemoCluster
from deploy.demo.comparison import LATENCY, PARITY, Stream, compare, draw, faults, summarise
from deploy.demo.held_folder import full_disk, hold
from deploy.demo.open_shop import EVENTS_PER_S, WEEK_MS, OpenShop, weeks_of
from deploy.demo.screen import Step
from deploy.demo.shop import Shop
from deploy.demo.steps import (
    DemoFailed,
    DemoOptions,
    console,
    offline_predictions,
    prepare_data,
    prepare_model,
    run_command,
    screen,
)
from deploy.demo.traffic import PACED_PER_S, PACED_SHARE, POISON, WINDOW, EventSender, ScoreSubscriber, TrafficError
from deploy.environments import REPOSITORY, interpreter
from deploy.kafka.broker import Broker, topics_of
from deploy.process import Process, ProcessFailed, free_ports, held_port
from deploy.triton.server import Triton, has_room_for_socket
from streaming.app.wrong import WrongApp
from streaming.errors import BadInput, ConfigError, OutputRefused
from streaming.files.output_folder import replacing

__all__ = ["main"]

BOARD_STEP = 7  # before the first score
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: its terminal was closed

LOG = "steps.log"
"""The commands of the steps, and all that they say."""

WRITTEN = (
    "artifact",
    "board.log",
    "checkpoint",
    "data",
    "dataset",
    "evaluation",
    "features",
    "history",
    "kafka",
    LATENCY,
    PARITY,
    "scorer.log",
    "scorer.toml",
    "serve.log",
    "sql",  # of older releases
    "state",
    LOG,
    "streamed",
    "triton",
)
"""Of the demo's folder: whatever is in these is the demo's, and goes when it is run again."""


def write_config(options: DemoOptions, shop: Shop, broker: Broker, triton: Triton, http_port: int, store: str) -> Path:
    """The scorer's configuration, as a user would write it: what differs from the defaults of deploy/scorer.toml."""
    file = options.work / "scorer.toml"
    file.write_text(
        f"""# Written by `make demo`. Every other key has its default: see deploy/scorer.toml.
app = {json.dumps(str(shop.folder))}

[kafka]
bootstrap_servers = "{broker.bootstrap}"
instance_id = "demo-1"

{store}
[model]
url = {json.dumps(triton.grpc_url)}
artifact = {json.dumps(str(options.work / "artifact"))}

[http]
port = {http_port}
"""
    )
    return file


def near(path: Path) -> Path:
    """As it is written from here, where it lies below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def embedded_tables(work: Path) -> str:
    """`[store]` of the embedded engine, which loads the history by itself, and where it keeps its state."""
    return (
        f"[store]\nhistory = {json.dumps(str(work / 'history'))}\n\n"
        f"[snapshots]\nfolder = {json.dumps(str(work / 'state'))}\n"
    )


def answers(url: str) -> bool:
    """True when the scorer says that it is ready."""
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def stream(broker: Broker, shop: Shop, replay: Replay, scorer: Process, step: Step) -> Stream:
    """Replays the period through the topics of events; a tenth of it paced, poison in between.

    Raises:
        ProcessFailed: Kafka or the scorer died.
    """

    def check() -> None:
        for process in (broker.process, scorer):
            if process is not None:
                process.check()

    sender = EventSender(broker.bootstrap, timed=len(shop.topics.events) > 1, check=check)
    subscriber = ScoreSubscriber(broker.bootstrap, shop)
    events = replay.events
    asked = sum(bool(event.request_id) for event in events) + POISON
    step.watch(lambda: (subscriber.seen(), asked))
    flooded = int(len(events) * (1 - PACED_SHARE))
    middle = next(event for event in events[flooded // 2 :] if event.request_id)
    seconds = sender.replay(events[: flooded // 2], subscriber, WINDOW)
    sender.send_poison(shop.topics.streams[middle.topic], middle)
    seconds += sender.replay(events[flooded // 2 : flooded], subscriber, WINDOW)
    sender.replay(events[flooded:], subscriber, WINDOW, PACED_PER_S)
    time.sleep(0.5)  # anything published twice would show now
    subscriber.close()
    # the sender closes here: it must not miss the broker later
    requests = sum(bool(event.request_id) for event in events[:flooded])
    return Stream(shop, replay, sender.sent, subscriber, seconds, requests)


def demo(options: DemoOptions, stack: contextlib.ExitStack) -> None:
    """Runs the steps; what it starts is entered into `stack`."""
    work, shop = options.work, Shop.of(options.app)
    inputs, force = [options.data] if options.data else [], console.print if options.force else None
    hold(work, stack)
    with replacing(work, "demo", inputs=inputs, force=force, own=WRITTEN):
        pass  # empty: each step puts there what it makes
    hold(work, stack)  # another folder now
    screen.log = work / LOG
    held = stack.enter_context(held_port())
    board = f"http://127.0.0.1:{held.getsockname()[1]}/"
    console.print(f"[bold]The board: {board}[/bold], open from step {BOARD_STEP} on")
    with screen.step(1, "Kafka and data") as step:
        step.latest = "starting Kafka"
        broker = stack.enter_context(Broker(work / "kafka"))
        broker.create_topics(topics_of(shop.topics), {"retention.ms": "-1"})  # events may be years old
        step.result = f"application {shop.app.settings.name}, Kafka at {broker.bootstrap}"
        data, replays = prepare_data(options, shop)
    manifest = prepare_model(options, shop, data)
    with screen.step(5, "Triton") as step:
        step.latest = "starting Triton, which loads the model"
        folder = work / "triton"
        triton = Triton(work / "artifact" / "triton", folder, private=has_room_for_socket(folder))
        stack.callback(triton.stop)
        triton.start()
        where = "behind a Unix socket" if triton.grpc_url.startswith("unix:") else f"at {triton.grpc_url}"
        step.result = f"model version {manifest['model_version']} {where} (gRPC)"
    with screen.step(6, "history") as step:
        split = json.loads((work / "dataset" / "dataset.json").read_text())["split"]
        end = pc.max(pq.read_table(work / "dataset" / "test.parquet", columns=["time"])["time"])
        kept = replays.cut_history(data, work / "history", split["test_from"])
        screen.note(", ".join(f"{folder} {rows:,}" for folder, rows in kept.items()))
        replay = replays.period(data, split["test_from"], end.cast(pa.timestamp("ms")).cast(pa.int64()).as_py() + 1)
        EventSender(broker.bootstrap).send(replay.dimensions)
        if not replay.request_ids:
            raise DemoFailed("the test period has no request to stream")
        step.result = f"{sum(kept.values()):,} rows, and {len(replay.events):,} events to stream"
        if replay.spread:
            console.print(f"{replay.spread:,} events of a user's same moment are spread over the next milliseconds")
        http_port = free_ports(1)[0]
        if options.zk:
            cluster = DemoCluster.prepared(options.zk, options.zk_path, shop.folder)
            config = write_config(options, shop, broker, triton, http_port, cluster.table())
            stack.callback(cluster.drop, console.print)
            run_command("scorer", "deploy", "--config", config, module="streaming")
            run_command("scorer", "load", work / "history", "--config", config, module="streaming")
        else:
            config = write_config(options, shop, broker, triton, http_port, embedded_tables(work))
    predict_port = start_board(config, held, stack)
    with screen.step(BOARD_STEP, "scorer") as step:
        step.latest = "starting the scorer, which reads the history"
        argv = [str(interpreter("scorer")), "-m", "streaming", "run", "--config", str(config)]
        screen.note(f"$ jd-intent-score run --config {config}")
        scorer = stack.enter_context(Process("the scorer", argv, work / "scorer.log", cwd=REPOSITORY))
        scorer.wait_ready(lambda: answers(f"http://127.0.0.1:{http_port}/readyz"), 120)
        step.result = f"ready, metrics at http://127.0.0.1:{http_port}/metrics"
    with screen.step(8, "stream") as step:
        result = stream(broker, shop, replay, scorer, step)
        step.result = f"{len(result.subscriber.scores):,} scores, {result.subscriber.dead.total()} dead letters"
    with screen.step(9, "verdict") as step:
        offline = offline_predictions(options, shop, data, replays, replay)
        comparison = compare(result.subscriber.scores, shop.probability, offline, replay.tied)
        draw(work, result, comparison)
        step.result = f"{comparison.compared:,} streamed scores beside offline, {comparison.differing} differ"
    summarise(
        console,
        result,
        comparison,
        {
            "report of the model": near(work / "checkpoint" / "report.html"),
            "plots": f"{PARITY}, {LATENCY}",
            "commands": LOG,
            "logs": "scorer.log, board.log, kafka/kafka.log, triton",
            "model": f"artifact, version {manifest['model_version']}",
            "data": "data, features, dataset, history",
            "these lie in": near(work),
        },
    )
    if found := faults(result, comparison):
        raise DemoFailed("; ".join(found))
    if options.keep:
        wait_for_user(broker, shop, config, board, http_port, predict_port, replay, stack)
    status = scorer.stop()
    if status:
        raise DemoFailed(f"the scorer exited with status {status}: {scorer.tail()}")


def start_board(config: Path, held: socket.socket, stack: contextlib.ExitStack) -> int:
    """Starts the board on the port that was held for it.

    Returns:
        The port where it looks for the predict server, which KEEP=1 adds at the end.
    """
    port, predict_port = held.getsockname()[1], free_ports(1)[0]
    held.close()
    words = ["board", "--config", str(config), "--port", str(port), "--predict", f"http://127.0.0.1:{predict_port}"]
    argv = [str(interpreter("scorer")), "-m", "streaming", *words]
    board = stack.enter_context(Process("the board", argv, config.with_name("board.log"), cwd=REPOSITORY))
    board.wait_ready(lambda: answers(f"http://127.0.0.1:{port}/healthz"), 120)
    return predict_port


def wait_for_user(
    broker: Broker,
    shop: Shop,
    config: Path,
    board: str,
    http_port: int,
    port: int,
    replay: Replay,
    stack: contextlib.ExitStack,
) -> None:
    """KEEP=1: adds the predict server of the tutorial, and leaves all running until Ctrl-C.

    Args:
        board: its address.
        port: where the board looks for the predict server.
    """
    argv = [str(interpreter("scorer")), "-m", "streaming", "serve", "--config", str(config), "--port", str(port)]
    server = stack.enter_context(Process("the predict server", argv, config.with_name("serve.log"), cwd=REPOSITORY))
    server.wait_ready(lambda: answers(f"http://127.0.0.1:{port}/readyz"), 120)
    command = interpreter("scorer").parent / "jd-intent-score"
    last = next(event for event in reversed(replay.events) if event.request_id)
    of = shop.topics.streams[last.topic]
    event = json.loads(last.value)
    for name in (of.event_time, of.request_id):  # of its own, and now
        event.pop(name, None)
    row = shop.request_row(last)
    console.print(
        f"\nRunning until Ctrl-C: the board {board}, Kafka {broker.bootstrap}, "
        f"metrics http://127.0.0.1:{http_port}/metrics, predict server http://127.0.0.1:{port}/docs\n"
        f"{open_shop(broker, shop, replay, stack)}\n"
        f"An event of your own, and its score:\n"
        f"  {command} send --config {config} --stream {of.name} '{json.dumps(event)}'\n"
        f"A request row, its features and its probability, as in the tutorial:\n"
        f"  {command} predict --url http://127.0.0.1:{port} '{json.dumps(row)}'",
        soft_wrap=True,
    )
    while True:
        signal.pause()


def open_shop(broker: Broker, shop: Shop, replay: Replay, stack: contextlib.ExitStack) -> str:
    """Lets the shop go on, so that there is something to see.

    Returns:
        What it does, for people.
    """
    weeks = weeks_of(replay.events)
    later = "a week" if weeks == 1 else f"{weeks} weeks"
    if replay.events[0].time + weeks * WEEK_MS > time.time() * 1000:
        return f"No more events come by themselves: those streamed, {later} later, would be of times to come."
    stack.enter_context(OpenShop(broker.bootstrap, shop, replay.events, timed=len(shop.topics.events) > 1))
    return f"The shop stays open: some {EVENTS_PER_S:.0f} events a second, those streamed once more, {later} later."


def interrupt(*_: object) -> None:
    """The first Ctrl-C ends the demo; more of them must not end its cleaning up."""
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--app", default="sql/jd", help="the folder of the application")
    parser.add_argument("--data", type=Path, help="a folder of tables, or of events; default: a generated world")
    parser.add_argument("--users", type=int, default=6000, help="size of the generated world")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="leave all running until Ctrl-C")
    parser.add_argument("--force", action="store_true", help="write to --work though other things lie there")
    parser.add_argument("--zk", default="", metavar="HOST:PORT", help="an OpenMLDB cluster's ZooKeeper: use that store")
    parser.add_argument("--zk-path", default="/openmldb", help="OpenMLDB's path in it")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build" / "demo", help="where everything is written")
    words = parser.parse_args()
    if words.data is not None and not words.data.is_dir():
        parser.error(f"--data {words.data}: there is no such folder")
    options = DemoOptions(
        words.app,
        words.data and words.data.resolve(),
        words.users,
        words.seed,
        words.keep,
        words.work.resolve(),
        words.force,
        words.zk,
        words.zk_path,
    )
    for number in ENDS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # ignored: by nohup
            signal.signal(number, interrupt)
    started = time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            demo(options, stack)
    except KeyboardInterrupt:
        console.print(f"stopped after {time.monotonic() - started:.0f} s, with everything that was started")
        return
    except (OutputRefused, WrongApp) as error:
        console.print(f"[red]demo refused[/red]: {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except (
        DemoFailed,
        ProcessFailed,
        TrafficError,
        BadInput,
        ConfigError,
        KafkaException,
        pa.ArrowException,
        OSError,
    ) as error:
        console.print(f"[red]demo failed[/red]: {escape(str(error))}", soft_wrap=True)  # a log's brackets are no markup
        if full := full_disk(options.work):
            console.print(escape(full), soft_wrap=True)
        sys.exit(1)
    console.print(f"[green]done[/green] in {time.monotonic() - started:.0f} s; everything that was started is stopped")
