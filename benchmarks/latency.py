"""From the producer's call to the moment a `read_committed` subscriber has the score, beside a raw transactional echo.

    python -m benchmarks.latency [--artifact DIR] [--seconds S] [--rounds N] [--load NAME] [--json FILE] [--plot SVG]

One real Kafka and one real Triton serve all of it. Each system (the echo; the scorer, exactly once and at least once;
Quix Streams) reads a topic of its own and stays up; they are measured in turn, a load after the other, round by round.
The echo consumes, produces the same bytes unchanged and commits, with one transactional producer: what Kafka's
transaction costs. What the scorer takes longer is our own share. Quix Streams (benchmarks/peers/quix.py says what it
does and leaves out) runs exactly once where `make bench-environment` has made its environment, once for each
`--quix-commit-ms`: so long after a commit comes the next. Short intervals are soon there, long ones take more. A load
above what a system took of the flood has no latency to be measured, and is left out for it.

The load is open: events have their moments from a Poisson process, and a latency counts from that moment, whether the
producer was late or not, so a stall is seen by all events that it delays. The subscriber waits for one record and takes
what is there. Figures drift with the machine; what is beside each other in one run is to be compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka import Message as Record
from rich.console import Console
from rich.table import Table

from batch.plots.latency import LatencyFigures, Measured, write_latency
from batch.plots.latency import Load as PlottedLoad
from batch.replay import Message
from batch.world.generate import generate_world
from batch.world.tutorial_replay import period
from benchmarks.rig import NO_PEERS, QuixOptions, constant_artifact, has_peers, machine, quix, scorer_config, send
from benchmarks.sample import jd
from deploy.kafka.broker import Broker, topics_of
from deploy.process import Process, free_ports
from deploy.triton.server import Triton
from streaming.app.topics import TopicNames
from streaming.ops.log import place

__all__: list[str] = []

REPOSITORY = Path(__file__).resolve().parent.parent
PARTITIONS = 2
ALONE_S = 0.1  # between two events that are alone
WARM_UP_S = 1.0  # of each measurement's beginning, which does not count
FLOOD = 20_000  # events of the step from idle to flood
SHARES = (0.01, 0.1, 0.5, 0.9)  # of the scorer's maximum
PER_S = (200, 1000)  # events/s that are measured besides
PATIENCE_S = 120.0
QUIX_COMMIT_MS = (5.0, 100.0)
QUANTILES = (0.5, 0.9, 0.99, 0.999)

Latencies = npt.NDArray[np.float64]

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True)
class System:
    """What is measured: reads `events`, writes `scores`.

    Attributes:
        port: of its /metrics; 0: it has none.
    """

    name: str
    events: str
    scores: str
    port: int = 0


@dataclass
class Figures:
    """What one system did under one load.

    Attributes:
        load: its name.
        per_s: events per second that were sent.
        quantiles: of each round, milliseconds by quantile.
        stages: of the last round, milliseconds per batch by stage.
        batch: events per batch, of the last round.
    """

    system: str
    load: str
    per_s: float
    quantiles: list[dict[str, float]] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    batch: float = 0.0

    def median(self, quantile: float) -> float:
        """Over the rounds."""
        return statistics.median(of[f"{quantile:g}"] for of in self.quantiles)

    def spread(self, quantile: float) -> tuple[float, float]:
        """Least and greatest of the rounds."""
        values = [of[f"{quantile:g}"] for of in self.quantiles]
        return min(values), max(values)


class Subscriber:
    """A `read_committed` subscriber of all systems' scores, in a process of its own."""

    def __init__(self, bootstrap: str, topics: Sequence[str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_subscribe, args=(bootstrap, list(topics), other), daemon=True)
        self._process.start()
        self._pipe.recv()

    def seen(self) -> dict[str, int]:
        """When each score came, monotonic nanoseconds by its event's place; those that were not asked for yet."""
        self._pipe.send("seen")
        seen: dict[str, int] = self._pipe.recv()
        return seen

    def close(self) -> None:
        self._pipe.send("close")
        self._process.join(10)


def _subscribe(bootstrap: str, topics: list[str], pipe: Connection) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "latency-subscriber",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 100,
        }
    )
    consumer.assign([TopicPartition(topic, number, 0) for topic in topics for number in range(PARTITIONS)])
    consumer.consume(1, 0.5)
    pipe.send("ready")
    seen: dict[str, int] = {}
    while True:
        records = consumer.consume(1, 0.05)
        if records:
            records += consumer.consume(100_000, 0.0)
            now = time.monotonic_ns()
            for record in records:
                for name, value in list(record.headers() or ()):
                    if name == "ce_id":
                        seen[_text(value)] = now
        if pipe.poll():
            if pipe.recv() == "close":
                consumer.close()
                return
            pipe.send(seen)
            seen = {}


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


class Load:
    """An open-loop producer of actions.

    Args:
        messages: are sent one after the other, over and over.
    """

    def __init__(self, bootstrap: str, messages: Sequence[Message]) -> None:
        self._messages, self._next = messages, 0
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "linger.ms": 1,  # a request per event would be a measurement of the broker
                "partitioner": "murmur2_random",
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        self._due: dict[str, int] = {}

    def send(self, topic: str, gaps_s: npt.NDArray[np.float64]) -> dict[str, int]:
        """Sends an event after each gap.

        Returns:
            When each was due, monotonic nanoseconds by its place.
        """
        self._due = {}
        due = time.monotonic_ns() + np.cumsum(gaps_s * 1e9).astype(np.int64) + 1_000_000
        produce, poll = self._producer.produce, self._producer.poll
        for moment in due.tolist():
            while (early := moment - time.monotonic_ns()) > 0:
                poll(0)
                if early > 150_000:
                    time.sleep(min(0.05, (early - 100_000) / 1e9))
            message = self._messages[self._next % len(self._messages)]
            self._next += 1
            produce(topic, message.value, message.key, on_delivery=partial(self._delivered, moment))
        if self._producer.flush(PATIENCE_S):
            raise SystemExit("the broker did not take the events")
        return self._due

    def _delivered(self, moment: int, error: KafkaError | None, record: Record) -> None:
        if error is not None:
            raise SystemExit(f"the broker did not take an event: {error.str()}")
        self._due[place(record.topic() or "", record.partition() or 0, record.offset() or 0)] = moment


def echo(bootstrap: str, events: str, out: str) -> None:
    """consume → produce → commit, nothing else: what is there when the last transaction is over is the next one."""
    common = {"bootstrap.servers": bootstrap}
    group = {"group.id": f"group-{out}", "auto.offset.reset": "earliest", "enable.auto.commit": False}
    consumer = Consumer({**common, **group, "isolation.level": "read_committed"})
    same = {"linger.ms": 5, "retry.backoff.ms": 2, "partitioner": "murmur2_random"}  # as the scorer
    producer = Producer({**common, "transactional.id": out, **same})
    producer.init_transactions()
    consumer.subscribe([events])
    while True:
        records = consumer.consume(1, 0.2)
        records += consumer.consume(2047, 0.0) if records else []
        if not records:
            continue
        producer.begin_transaction()
        ends: dict[int, int] = {}
        for record in records:
            number, offset = record.partition() or 0, record.offset() or 0
            headers: list[tuple[str, str | bytes | None]] = [("ce_id", place(events, number, offset))]
            producer.produce(out, record.value(), record.key(), headers=headers)
            ends[number] = offset + 1
        producer.send_offsets_to_transaction(
            [TopicPartition(events, number, offset) for number, offset in ends.items()],
            consumer.consumer_group_metadata(),
        )
        producer.commit_transaction()


def stages(system: System) -> dict[str, tuple[float, float]]:
    """Seconds and number of batches of each stage so far."""
    if not system.port:
        return {}
    with urllib.request.urlopen(f"http://127.0.0.1:{system.port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found: dict[str, dict[str, float]] = {}
    for kind in ("sum", "count"):
        prefix = f'jd_intent_stage_seconds_{kind}{{stage="'
        for line in lines:
            if line.startswith(prefix):
                stage, value = line.removeprefix(prefix).split('"} ')
                found.setdefault(stage, {})[kind] = float(value)
    return {stage: (of["sum"], of["count"]) for stage, of in found.items()}


def measure(load: Load, subscriber: Subscriber, system: System, gaps_s: npt.NDArray[np.float64]) -> Latencies:
    """Latencies in milliseconds, of all events after the warm-up, in the order in which they were due."""
    due = load.send(system.events, gaps_s)
    seen: dict[str, int] = {}
    until = time.monotonic() + PATIENCE_S
    while not due.keys() <= seen.keys():
        seen |= subscriber.seen()
        if time.monotonic() > until:
            raise SystemExit(f"{system.name}: {len(due.keys() - seen.keys())} scores are missing")
        time.sleep(0.05)
    moments = np.array(sorted((moment, seen[name]) for name, moment in due.items()))
    moments = moments[moments[:, 0] >= moments[0, 0] + int(min(WARM_UP_S, gaps_s.sum() / 4) * 1e9)]
    latencies: Latencies = (moments[:, 1] - moments[:, 0]) / 1e6
    return latencies


def maximum(load: Load, subscriber: Subscriber, system: System) -> float:
    """Events per second out of a flood."""
    latencies = measure(load, subscriber, system, np.full(FLOOD, 1e-9))
    return len(latencies) / (float(latencies.max()) / 1000)


def gaps(per_s: float, seconds: float, seed: int) -> npt.NDArray[np.float64]:
    """Of a Poisson process; of events that are alone even ones."""
    if per_s * ALONE_S <= 1:
        return np.full(int((seconds + WARM_UP_S) / ALONE_S), ALONE_S)
    return np.random.default_rng(seed).exponential(1 / per_s, int((seconds + WARM_UP_S) * per_s))


@contextlib.contextmanager
def systems(
    folder: Path,
    broker: Broker,
    triton: Triton,
    artifact: Path,
    deliveries: Sequence[str],
    quix_commit_ms: Sequence[float],
) -> Iterator[list[System]]:
    """Starts what is measured."""
    echo_system = System("echo", "events-echo", "scores-echo")
    scorers = [
        System(name.replace("_", " "), f"events-{name}", f"scores-{name}", free_ports(1)[0]) for name in deliveries
    ]
    peers = {
        System(f"Quix Streams, {ms:g} ms", f"events-quix-{ms:g}", f"scores-quix-{ms:g}"): ms for ms in quix_commit_ms
    }
    found = [echo_system, *scorers, *peers]
    broker.create_topics({topic: PARTITIONS for of in found for topic in (of.events, of.scores)})
    with contextlib.ExitStack() as stack:
        argv = [
            sys.executable,
            "-m",
            "benchmarks.latency",
            "--echo",
            broker.bootstrap,
            echo_system.events,
            echo_system.scores,
        ]
        stack.enter_context(Process("the echo", argv, folder / "echo.log", cwd=REPOSITORY))
        for system, delivery in zip(scorers, deliveries, strict=True):
            config = scorer_config(
                folder / f"{system.name}.toml",
                broker.bootstrap,
                triton.grpc_url,
                artifact,
                system.events,
                system.scores,
                system.port,
                f'delivery = "{delivery}"',
            )
            argv = [sys.executable, "-m", "streaming", "run", "--config", str(config)]
            stack.enter_context(Process(system.name, argv, folder / f"{system.name}.log", cwd=REPOSITORY))
        for peer, ms in peers.items():
            options = QuixOptions(commit_s=ms / 1000)
            stack.enter_context(quix(folder, broker.bootstrap, triton.grpc_url, peer.events, peer.scores, options))
        yield found


def bench(
    load: Load, subscriber: Subscriber, found: Sequence[System], seconds: float, rounds: int, chosen: Sequence[str]
) -> list[Figures]:
    """All systems under all loads, `rounds` times."""
    for system in found:  # once, so that connections, caches and code are warm
        measure(load, subscriber, system, gaps(500, 2.0, 0))
    most = {system.name: maximum(load, subscriber, system) for system in found}
    for name, per_s in most.items():
        console.print(f"{name}: {per_s:,.0f} events/s out of a flood of {FLOOD:,}")
    limit = most[found[1].name]
    loads = {"alone": 1 / ALONE_S}
    loads |= {f"{per_s:,}/s": float(per_s) for per_s in PER_S}
    loads |= {f"{share:.0%} of maximum": share * limit for share in SHARES}
    loads = {name: per_s for name, per_s in loads.items() if not chosen or any(c in name for c in chosen)}
    figures = {
        (s.name, name): Figures(s.name, name, per_s)
        for name, per_s in loads.items()
        for s in found
        if per_s < most[s.name]  # else it waits in a queue that only grows: a figure of how long was measured
    }
    figures |= {(s.name, "flood"): Figures(s.name, "flood", most[s.name]) for s in found}
    for number in range(rounds):
        for name in [*loads, "flood"]:
            for system in found:
                if (of := figures.get((system.name, name))) is None:
                    continue
                before = stages(system)
                moments = np.full(FLOOD, 1e-9) if name == "flood" else gaps(loads[name], seconds, number)
                latencies = measure(load, subscriber, system, moments)
                of.quantiles.append({f"{q:g}": float(np.quantile(latencies, q)) for q in QUANTILES})
                after = stages(system)
                spent = {
                    s: (after[s][0] - before.get(s, (0, 0))[0], after[s][1] - before.get(s, (0, 0))[1]) for s in after
                }
                of.stages = {s: seconds_ / count * 1000 for s, (seconds_, count) in spent.items() if count}
                of.batch = len(moments) / spent["publish"][1] if spent.get("publish", (0, 0))[1] else 0.0
        console.print(f"round {number + 1} of {rounds} done")
    return list(figures.values())


def show(figures: Sequence[Figures], model: str) -> None:
    """A line per load and system: medians over the rounds, their spread, and beside the echo."""
    table = Table(title=f"Latency in ms, medians of {len(figures[0].quantiles)} rounds; model: {model}")
    for name in ("load", "system", "p50", "rounds", "p99", "p99.9", "p50 − echo", "p99 / echo", "batch"):
        table.add_column(name, justify="left" if name in ("load", "system") else "right")
    echoes = {of.load: of for of in figures if of.system == "echo"}
    for of in figures:
        beside = echoes.get(of.load, of)
        low, high = of.spread(0.5)
        mine = of is not beside
        table.add_row(
            f"{of.load}\n{of.per_s:,.0f}/s" if not mine else "",
            of.system,
            f"{of.median(0.5):.1f}",
            f"{low:.1f}–{high:.1f}",
            f"{of.median(0.99):.1f}",
            f"{of.median(0.999):.1f}",
            f"{of.median(0.5) - beside.median(0.5):+.1f}" if mine else "",
            f"{of.median(0.99) / beside.median(0.99):.2f}×" if mine else "",
            f"{of.batch:.1f}" if of.batch else "",
        )
    console.print(table)
    for of in figures:
        if of.stages:
            spent = ", ".join(f"{stage} {ms:.2f}" for stage, ms in of.stages.items())
            console.print(f"{of.system}, {of.load}: ms per batch: {spent}")


def as_json(figures: Sequence[Figures], settings: Mapping[str, Any]) -> str:
    """All that was measured."""
    return json.dumps({**settings, "figures": [asdict(of) for of in figures]}, indent=1)


def plotted(figures: Sequence[Figures], model: str) -> LatencyFigures:
    """Latency against load, medians over the rounds; without the flood, which is no load that lasts."""
    series: dict[str, list[PlottedLoad]] = {}
    for of in sorted(figures, key=lambda of: of.per_s):
        if of.load != "flood":
            ms = {f"{q * 100:g}": of.median(q) for q in QUANTILES}
            series.setdefault(of.system, []).append(PlottedLoad(of.per_s, ms))
    systems = [Measured(name, loads) for name, loads in series.items()]
    return LatencyFigures("From the producer's call to a subscriber", systems, f"model: {model}; all on one machine")


def main() -> None:
    if sys.argv[1:2] == ["--echo"]:
        with contextlib.suppress(KeyboardInterrupt):
            echo(*sys.argv[2:5])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, help="of `jd-intent-batch export`; default: a model that answers 0.5")
    parser.add_argument("--seconds", type=float, default=6.0, help="how long each load lasts; default: 6")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--plot", type=Path, help="where to write latency against load, as SVG")
    parser.add_argument("--load", action="append", help="only these loads, by a part of their names; default: all")
    parser.add_argument("--delivery", action="append", help="default: exactly_once and at_least_once")
    parser.add_argument(
        "--quix-commit-ms", type=float, action="append", help="Quix Streams' commit interval; default: 5 and 100"
    )
    arguments = parser.parse_args()
    model = str(arguments.artifact or "answers 0.5")
    deliveries = arguments.delivery or ["exactly_once", "at_least_once"]
    commit_ms = arguments.quix_commit_ms or QUIX_COMMIT_MS
    if not has_peers():
        commit_ms = ()
        console.print(NO_PEERS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate_world(folder / "data", users=2000, seed=1)
        replay = period(folder / "data", 0, 2**62)
        artifact = arguments.artifact or constant_artifact(folder / "artifact", replay)
        with Broker(folder / "kafka") as broker, Triton(artifact / "triton", folder / "triton", private=True) as triton:
            broker.create_topics(topics_of(TopicNames.of(jd(), {})))
            send(broker, replay.dimensions, {})
            with systems(folder, broker, triton, artifact, deliveries, commit_ms) as found:
                subscriber = Subscriber(broker.bootstrap, [system.scores for system in found])
                load = Load(broker.bootstrap, replay.events)
                figures = bench(load, subscriber, found, arguments.seconds, arguments.rounds, arguments.load or ())
                subscriber.close()
    show(figures, model)
    if arguments.plot:
        write_latency(arguments.plot, plotted(figures, model))
    if arguments.json:
        settings = {"model": model, "seconds": arguments.seconds, "quix_commit_ms": commit_ms}
        arguments.json.write_text(as_json(figures, {**machine(), **settings}))


if __name__ == "__main__":
    main()
