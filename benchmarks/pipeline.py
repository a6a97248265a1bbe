"""Events per second of the whole pipeline, beside its ceilings and its peers, on this machine, now: `make bench`.

    python -m benchmarks.pipeline [--artifact DIR] [--events N] [--rounds N] [--json FILE]

One real Kafka and two real Tritons (a model that answers a constant, and the demo's network) serve all of it; one
measurement at a time, in turns, round by round. What writes to Kafka is timed by the broker's times of what it wrote,
from the first record of its topic to the last. Figures drift with the machine: the ratios are what to compare.

echo            consumes the same actions, produces them unchanged and commits, in transactions of the same size: what
                Kafka's client allows in one Python process
ours, constant  `jd-intent-score run`, whose model answers 0.5
ours, net       the same with the demo's network (untrained: its weights cost what a trained one's do)
features        the embedded engine in this process: rows in, 41 features out
model           the demo's network in Triton, two batches under way, through our own client
Quix Streams    exactly once, one window per key, the same constant model row by row: `benchmarks/peers/quix.py`
no model        the same without a call to Triton
tutorial        frame, hash, HTTP, row by row, the same constant model: `benchmarks/peers/tutorial.py`

Peers call the constant model, which is kind to them: one row through the network costs more than through a constant.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from rich.console import Console
from rich.table import Table

from batch.dataset.fit_encoder import seed_order
from batch.replay import Message
from batch.world.generate import generate_world
from batch.world.tutorial_replay import period
from benchmarks.ratios import Run, ratios
from benchmarks.rig import (
    BATCH,
    NO_PEERS,
    QuixOptions,
    constant_artifact,
    decoded,
    filled_store,
    has_peers,
    machine,
    net_artifact,
    new_topic,
    quix,
    rate,
    scorer_config,
    send,
    written,
)
from benchmarks.sample import jd
from deploy.environments import REPOSITORY, interpreter
from deploy.kafka.broker import Broker, topics_of
from deploy.process import Process, free_ports
from deploy.triton.server import Triton
from streaming.app.topics import TopicNames
from streaming.model.encoder import Encoder
from streaming.model.triton import Model

__all__: list[str] = []

EVENTS = "user-actions"
TRITON_SECONDS = 3.0
PEER_EVENTS = 10_000  # what Quix Streams is timed over: it takes as long as the scorer for all
TUTORIAL_ROWS = 500

console = Console(highlight=False)


@dataclass
class Bench:
    """What a round runs on.

    Attributes:
        constant, net: artifacts, each with the Triton that serves it.
        rows: features, for the tutorial's way.
    """

    folder: Path
    broker: Broker
    dimensions: list[Message]
    actions: list[Message]
    constant: tuple[Path, Triton]
    net: tuple[Path, Triton]
    rows: Path
    stages: dict[str, dict[str, float]] = field(default_factory=dict)

    def round(self, number: int) -> dict[str, float]:
        """Events (or rows) per second of each system, one after the other."""
        found = {
            "echo": self.echo(number),
            "ours, constant": self.ours("constant", self.constant, number),
            "ours, net": self.ours("net", self.net, number),
            "features": self.features(),
            "model": self.model(),
        }
        if has_peers():
            found["Quix Streams"] = self.quix(number, model=True)
            found["Quix Streams, no model"] = self.quix(number, model=False)
            found["tutorial"] = self.tutorial()
        return found

    def echo(self, number: int) -> float:
        """consume → produce → commit, nothing else, in transactions of `BATCH`."""
        out = new_topic(self.broker, f"echo-{number}")
        common = {"bootstrap.servers": self.broker.bootstrap}
        group = {"group.id": out, "auto.offset.reset": "earliest", "enable.auto.commit": False}
        consumer = Consumer({**common, **group, "isolation.level": "read_committed"})
        same = {"linger.ms": 5, "retry.backoff.ms": 2, "partitioner": "murmur2_random"}  # as the scorer: a fair ceiling
        producer = Producer({**common, "transactional.id": out, **same})
        producer.init_transactions()
        consumer.subscribe([EVENTS])
        left = len(self.actions)
        while left:
            records = [record for record in consumer.consume(BATCH, 0.05) if record.error() is None]
            if not records:
                continue
            producer.begin_transaction()
            for record in records:
                producer.produce(out, record.value(), record.key())
            ends = {record.partition() or 0: (record.offset() or 0) + 1 for record in records}
            producer.send_offsets_to_transaction(
                [TopicPartition(EVENTS, partition, offset) for partition, offset in ends.items()],
                consumer.consumer_group_metadata(),
            )
            producer.commit_transaction()
            left -= len(records)
        consumer.close()
        return rate(list(written(self.broker.bootstrap, out, len(self.actions))))

    def ours(self, name: str, model: tuple[Path, Triton], number: int) -> float:
        """`jd-intent-score run` on the same topic; keeps µs per event and stage."""
        artifact, triton = model
        scores, port = new_topic(self.broker, f"scores-{name}-{number}"), free_ports(1)[0]
        config = scorer_config(
            self.folder / f"{scores}.toml",
            self.broker.bootstrap,
            triton.grpc_url,
            artifact,
            EVENTS,
            scores,
            port,
            f"[batch]\nmessages_max = {BATCH}",
        )
        argv = [sys.executable, "-m", "streaming", "run", "--config", str(config)]
        with Process("the scorer", argv, self.folder / f"{scores}.log", cwd=REPOSITORY):
            measured = rate(list(written(self.broker.bootstrap, scores, len(self.actions))))
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
        prefix = 'jd_intent_stage_seconds_sum{stage="'
        spent = (line.removeprefix(prefix).split('"} ') for line in lines if line.startswith(prefix))
        self.stages[name] = {stage: float(seconds) / len(self.actions) * 1e6 for stage, seconds in spent}
        return measured

    def features(self) -> float:
        """Requests per second of the embedded engine, in batches of `BATCH`, each inserted as the scorer does."""
        store = filled_store(self.dimensions)
        batches = [decoded(self.actions[at : at + BATCH]) for at in range(0, len(self.actions), BATCH)]
        began = time.perf_counter()
        rows = sum(int(store.answer(events).num_rows) for events in batches)
        return rows / (time.perf_counter() - began)

    def model(self) -> float:
        """Rows per second of Triton with two requests of `BATCH` rows under way, as the loop has them at most."""
        artifact, triton = self.net
        fields = len(Encoder.load(artifact / "encoder").fields)
        ids = np.random.default_rng(1).integers(0, 2**62, (BATCH, fields), dtype=np.int64)
        rows = 0
        with Model(triton.grpc_url, timeout_s=60.0) as model:
            model.score(ids)
            start = time.perf_counter()
            ahead = model.submit(ids)
            while time.perf_counter() - start < TRITON_SECONDS:
                ahead, ready = model.submit(ids), ahead
                rows += len(ready.result().probabilities)
            return rows / (time.perf_counter() - start)

    def quix(self, number: int, *, model: bool) -> float:
        """Quix Streams on the same topic."""
        out = new_topic(self.broker, f"quix-{'model' if model else 'bare'}-{number}")
        triton = self.constant[1].grpc_url
        with quix(self.folder, self.broker.bootstrap, triton, EVENTS, out, QuixOptions(model=model)):
            return rate(list(written(self.broker.bootstrap, out, min(PEER_EVENTS, len(self.actions)))))

    def tutorial(self) -> float:
        """The tutorial's way, row by row."""
        url = self.constant[1].http_url.removeprefix("http://")
        argv = [str(interpreter("peers")), str(REPOSITORY / "benchmarks" / "peers" / "tutorial.py"), url]
        done = subprocess.run([*argv, str(self.rows)], check=True, stdout=subprocess.PIPE, text=True)
        return float(json.loads(done.stdout)["rows_s"])


def write_rows(file: Path, dimensions: list[Message], actions: list[Message]) -> Path:
    """The model's 41 features of some events, as JSON, in the tutorial's order."""
    answers = filled_store(dimensions).answer(decoded(actions[:TUTORIAL_ROWS])).select(seed_order(jd()))
    file.write_text(json.dumps(answers.to_pylist(), default=str))
    return file


def show(run: Run, stages: Mapping[str, Mapping[str, float]]) -> None:
    """Medians with least and most, ratios round by round, and where the last round's time went."""
    table = Table("", "events/s", "least", "most", title=f"Medians of {run.rounds} interleaved rounds")
    for name, values in run.per_s.items():
        table.add_row(name, *(f"{of(values):,.0f}" for of in (statistics.median, min, max)))
    console.print(table)
    table = Table("ratio", "median", "least", "most")
    for name, values in ratios(run.per_s).items():
        table.add_row(name, *(f"{of(values):.2f}" for of in (statistics.median, min, max)))
    console.print(table)
    for name, spent in stages.items():
        parts = ", ".join(f"{stage} {us:.1f}" for stage, us in spent.items())
        console.print(f"ours, {name}: µs per event and stage, last round: {parts}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, help="of `jd-intent-batch export`; default: an untrained network")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    words = parser.parse_args()
    if not has_peers():
        console.print(NO_PEERS + "; so is the tutorial's own way")
    about: dict[str, Any] = {**machine(), "events": words.events, "model": str(words.artifact or "untrained")}
    per_s: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate_world(folder / "data", users=max(200, words.events // 25), seed=1)
        replay = period(folder / "data", 0, 2**62)
        actions = replay.events[: words.events]
        constant = constant_artifact(folder / "constant", replay)
        net = words.artifact or net_artifact(folder / "net", constant)
        rows = write_rows(folder / "rows.json", replay.dimensions, actions)
        with (
            Broker(folder / "kafka") as broker,
            Triton(constant / "triton", folder / "triton-constant") as of_constant,
            Triton(net / "triton", folder / "triton-net") as of_net,
        ):
            broker.create_topics(topics_of(TopicNames.of(jd(), {})))
            send(broker, replay.dimensions, {})
            send(broker, actions, {})
            console.print(f"{len(actions):,} actions, {len(replay.dimensions):,} dimension rows, {BATCH} a transaction")
            bench = Bench(folder, broker, replay.dimensions, actions, (constant, of_constant), (net, of_net), rows)
            for number in range(words.rounds):
                found = bench.round(number)
                for system, speed in found.items():
                    per_s.setdefault(system, []).append(speed)
                said = ", ".join(f"{system} {speed:,.0f}" for system, speed in found.items())
                console.print(f"round {number + 1}: {said}")
    run = Run(about, per_s)
    show(run, bench.stages)
    if words.json:
        run.write(words.json)


if __name__ == "__main__":
    main()
