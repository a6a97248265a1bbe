"""`jd-intent-score run`: checks that all parts are there and belong together, then lets the loop go round.

Its exit status is of `streaming.ops.exits`: 0 told to stop, 1 a defect, whose state the next start rebuilds.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TypeVar

import structlog

from streaming.app.configured import application
from streaming.config import Config, load, masked
from streaming.errors import ModelUnavailable, Stopped, StoreUnavailable
from streaming.kafka.connection import Connection
from streaming.kafka.dimension_source import DimensionSource
from streaming.kafka.event_source import EventSource
from streaming.kafka.lineage import Lineages
from streaming.kafka.login import Login
from streaming.kafka.output import open_output
from streaming.kafka.rights import check_topics, named, of_run
from streaming.kafka.topics import Topics
from streaming.loop.poison.detection import open_poison
from streaming.loop.runtime import Runtime
from streaming.loop.scorer import Scorer
from streaming.model.artifact import check_sql
from streaming.model.encoder import Encoder
from streaming.model.served_encoder import refuse_other_encoder
from streaming.model.triton import Model
from streaming.ops import log
from streaming.ops.exits import exit_status
from streaming.ops.health import Health, HttpServer
from streaming.ops.metrics import Metrics
from streaming.ops.waiting import Waiting, doubling, steady
from streaming.ops.watchdog import watched
from streaming.ops.workers import supervise
from streaming.state.snapshots import load_state
from streaming.store.open import open_store

__all__ = ["main", "run"]

MODEL_POLL_S = 0.5
SWITCH_S = 0.0002  # how long a thread may keep another one waiting for Python

T = TypeVar("T")

_log = structlog.stdlib.get_logger("streaming.loop.run")


def main(file: Path | None, workers: int | None = None) -> None:
    """The command: reads the configuration, and runs until it is told to stop.

    Args:
        file: the configuration; none: defaults and the environment.
        workers: processes under a supervisor; default: `workers.count` of the configuration. 0: this one alone.
    """
    config = load(file)
    log.configure(config.log)
    count = config.workers.count if workers is None else workers
    if count and "JD_INTENT_WORKER" not in os.environ:
        supervise(config, file, count)
    else:
        stop = threading.Event()
        _stop_on_signals(stop)
        run(config, stop)


def run(config: Config, stop: threading.Event, step: Callable[[str], None] = lambda _: None) -> None:
    """Runs a scorer in this thread until `stop` is set.

    Args:
        step: see `Scorer`.

    Raises:
        ConfigError, ArtifactMismatch, UnsupportedSQL: it does not start.
        ScorerError, KafkaException: it cannot go on.
    """
    _log.info("starting", pid=os.getpid(), config=masked(config))
    app, topics = application(config)
    metrics, health = Metrics(), Health(config.http.stalled_s)
    with (
        contextlib.suppress(Stopped),
        named(config.kafka, of_run(config.kafka, topics)),
        _watched(health, config.http.stalled_s),
        HttpServer(config.http, health, metrics.registry) as server,
        contextlib.ExitStack() as stack,
    ):
        _log.info("http", host=config.http.host, port=server.port)
        connection = Connection(stop, health.beat, Login(config.kafka))
        check_topics(config.kafka, of_run(config.kafka, topics), connection, keys=topics.keys)
        # Before anything is read: what is read later is of these topics, or it is not used.
        lineages = Lineages(config, Topics(config.kafka, topics, connection))
        lineages.read_notes()
        if config.store.kind == "embedded":
            lineages.refuse_ahead()
        # Early: a producer that has only just been made has no connection to ask for its coordinator by, and librdkafka
        # asks again after half a second.
        output = open_output(config.kafka, topics, connection)
        encoder = Encoder.load(Path(config.model.artifact) / "encoder")
        store = open_store(config.store, app, health.beat, config.dedup)
        stack.callback(store.close)
        start = time.monotonic()
        with leaving_at_once(stop):
            snapshots, restored = wait_for_store(
                config, lambda: load_state(config, app, store, lineages, metrics), health, stop
            )
        if snapshots is not None:
            stack.callback(snapshots.close)
        poison = open_poison(config, topics.dimensions)
        stack.callback(poison.close)
        _log.info("tables are there", seconds=round(time.monotonic() - start, 2), tables=dict(store.sizes()))
        check_sql(app, Path(config.model.artifact))
        encoder.encode(store.schema().empty_table())  # refuses a deployment that lacks its columns
        model = Model(
            url=config.model.url,
            name=config.model.name,
            timeout_s=config.model.timeout_s,
            batch_size_max=config.batch.messages_max,
        )
        stack.callback(model.close)
        wait_for_model(config, model, encoder, health, stop)
        # Before the group is joined: it ends a transaction that this instance's last run has left open.
        output.start()
        _log.info("output is ready", delivery=config.kafka.delivery)
        scorer = Scorer(
            config,
            app,
            source=functools.partial(EventSource, config.kafka, connection, lineages),
            dimensions=DimensionSource(config.kafka, connection, lineages),
            store=store,
            encoder=encoder,
            model=model,
            lineages=lineages,
            output=output,
            runtime=Runtime(metrics, health, stop, step),
            snapshots=snapshots,
            restored=restored,
            poison=poison,
        )
        # The thread that publishes waits for its turn with Python after each answer of the broker: not for 5 ms.
        sys.setswitchinterval(SWITCH_S)
        # What is there now stays: the collector need not walk it again with every batch.
        gc.collect()
        gc.freeze()
        scorer.run()
    _log.info("stopped")


def _watched(health: Health, stalled_s: float) -> contextlib.AbstractContextManager[None]:
    if threading.current_thread() is not threading.main_thread():
        return contextlib.nullcontext()  # a test's
    return watched(health, stalled_s, exit_status)


def wait_for_store(config: Config, load_store: Callable[[], T], health: Health, stop: threading.Event) -> T:
    """Loads the store; a cluster that is not there is waited for.

    Raises:
        StoreUnavailable: for longer than `store.give_up_after_s`.
        ArtifactMismatch, ConfigError, UnsupportedSQL: it has not what is asked of it.
        Stopped: told to stop before it was there.
    """
    settings = config.store
    waits = doubling(settings.backoff_ms / 1000, settings.backoff_ms_max / 1000)
    waiting = Waiting(settings.give_up_after_s, waits, stop.wait)
    while True:
        health.beat()
        try:
            loaded = load_store()
        except StoreUnavailable as error:
            health.not_ready("store", str(error))
            if waiting.is_over:
                raise StoreUnavailable(f"gave up after {settings.give_up_after_s:.0f} s: {error}") from error
            _log.warning("waiting for the store", why=str(error), again_in_s=round(waiting.next_s, 2))
        else:
            health.ready("store")
            return loaded
        if waiting.rest():
            raise Stopped("while the store was waited for")


def wait_for_model(config: Config, model: Model, encoder: Encoder, health: Health, stop: threading.Event) -> None:
    """Waits until the model answers, and checks that it was trained on this encoder's ids.

    Raises:
        ArtifactMismatch: the model names another encoder, or none.
        ModelUnavailable: for longer than `model.give_up_after_s`.
        Stopped: told to stop before it answered.
    """
    waiting = Waiting(config.model.give_up_after_s, steady(0.5 * MODEL_POLL_S, 1.5 * MODEL_POLL_S), stop.wait)
    told = False
    while not stop.is_set():
        health.beat()
        try:
            if model.ready():
                digest = model.encoder_digest()
                break
            why = f"model {config.model.name!r} at {config.model.url} is not ready"
        except ModelUnavailable as error:
            why = str(error)
        health.not_ready("model", why)
        if waiting.is_over:
            raise ModelUnavailable(f"gave up after {config.model.give_up_after_s:.0f} s: {why}")
        if not told:
            _log.warning("waiting for the model", why=why)
            told = True
        waiting.rest()
    else:
        raise Stopped("while the model was waited for")
    served, ours = f"model {config.model.name!r} at {config.model.url}", f"{Path(config.model.artifact) / 'encoder'} is"
    refuse_other_encoder(digest, encoder.digest, served, ours)
    health.ready("model")


@contextlib.contextmanager
def leaving_at_once(stop: threading.Event) -> Iterator[None]:
    """A signal to stop ends the block where it is: the state that it makes, for minutes perhaps, goes with the process.

    Raises:
        Stopped: told to stop.
    """
    if stop.is_set():
        raise Stopped("before the state was loaded")
    numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in numbers}

    def leave(number: int, frame: FrameType | None) -> None:
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        if stop.is_set():
            raise Stopped("while the state was loaded")

    for number in numbers:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is leave:  # the first one lets the second Ctrl-C kill
                signal.signal(number, handler)


def _stop_on_signals(stop: threading.Event) -> None:
    """SIGTERM and the first Ctrl-C finish the batches under way; the second Ctrl-C kills."""

    def handle(number: int, _: object) -> None:
        # Before the log says so: who reads it and presses Ctrl-C again means the second.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        stop.set()
        _log.info("told to stop", signal=signal.Signals(number).name)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
