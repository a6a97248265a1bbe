"""What CloudEvents cost: scores to a real Kafka in each of the three forms (`kafka.cloudevents`): `make bench-headers`.

    python -m benchmarks.headers [--events N] [--rounds N] [--json FILE]

Each way encodes the same scores and publishes them in transactions of 2,048, to a topic of its own, in turn, round by
round. `produce` is a call for each record, `produce_batch` one for a transaction, which cannot take headers. A
structured value without its one header is no form of the scorer's: it shows what that header costs.

    encode, produce   CPU of the thread that calls, µs a score: what the scorer's publishing thread spends
    all               CPU of the whole process, librdkafka's threads too, µs a score
    scores/s          from the first transaction's begin to the last one's commit, encoding included
    log               bytes a score in the broker's log, not compressed
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from batch.world.generate import generate_world
from batch.world.tutorial_replay import period
from benchmarks.rig import BATCH, decoded, machine
from benchmarks.sample import jd
from deploy.kafka.broker import Broker
from streaming.app.scores import score_encoder
from streaming.config import CloudEvents
from streaming.events.batch import EventBatch
from streaming.kafka.producer import produce_all

__all__: list[str] = []

FIGURES = ("encode", "produce", "all", "scores/s", "log")

console = Console(highlight=False)


@dataclass(frozen=True)
class Way:
    """How scores are published.

    Attributes:
        batch: by `produce_batch`, without headers.
    """

    name: str
    form: CloudEvents
    batch: bool = False


WAYS = (
    Way("binary, produce", "binary"),
    Way("structured, produce", "structured"),
    Way("structured, no header, produce_batch", "structured", batch=True),
    Way("none, produce", "none"),
    Way("none, produce_batch", "none", batch=True),
)


@dataclass
class Measured:
    """Of each round, by figure."""

    way: str
    rounds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in FIGURES})


def publish(producer: Producer, topic: str, way: Way, batches: Sequence[EventBatch]) -> tuple[float, float]:
    """Encodes and publishes all of it.

    Returns:
        CPU seconds of this thread: encoding, and handing to the producer.
    """
    encoder = score_encoder(jd(), way.form)
    encoding = producing = 0.0
    for events in batches:
        began = time.thread_time()
        scores = encoder(events, np.full(len(events), 0.25, np.float32), "1")
        encoding += time.thread_time() - began
        producer.begin_transaction()
        began = time.thread_time()
        if not way.batch:
            produce_all(producer, topic, scores, lambda: None)
        elif producer.produce_batch(topic, [{"value": value, "key": key} for key, value, _ in scores]) < len(scores):
            raise SystemExit("the producer's queue is full")
        producing += time.thread_time() - began
        producer.commit_transaction()
    return encoding, producing


def measure(broker: Broker, log: Path, number: int, way: Way, batches: Sequence[EventBatch]) -> dict[str, float]:
    """One way, once; `log` is the folder of the broker's logs."""
    topic = f"scores-{number}-{WAYS.index(way)}"
    broker.create_topics({topic: 1})
    settings = {"bootstrap.servers": broker.bootstrap, "transactional.id": topic, "linger.ms": 5, "retry.backoff.ms": 2}
    producer = Producer(settings)
    producer.init_transactions()
    publish(producer, topic, way, batches[:1])  # connections and metadata
    count = sum(len(events) for events in batches)
    began, cpu = time.perf_counter(), time.process_time()
    encoding, producing = publish(producer, topic, way, batches)
    took, spent = time.perf_counter() - began, time.process_time() - cpu
    written = sum(file.stat().st_size for file in log.glob(f"**/{topic}-0/*.log"))
    return {
        "encode": encoding / count * 1e6,
        "produce": producing / count * 1e6,
        "all": spent / count * 1e6,
        "scores/s": count / took,
        "log": written / (count + len(batches[0])),
    }


def show(found: Sequence[Measured]) -> None:
    """Medians over the rounds with least and most of the rate, and beside the first way."""
    table = Table("", "encode µs", "produce µs", "all µs", "scores/s", "least–most", "× the first", "log bytes")
    first = found[0].rounds["scores/s"]
    for one in found:
        rates = one.rounds["scores/s"]
        ratio = statistics.median(mine / its for mine, its in zip(rates, first, strict=True))
        table.add_row(
            one.way,
            *(f"{statistics.median(one.rounds[name]):.2f}" for name in ("encode", "produce", "all")),
            f"{statistics.median(rates):,.0f}",
            f"{min(rates):,.0f}–{max(rates):,.0f}",
            f"{ratio:.2f}",
            f"{statistics.median(one.rounds['log']):.0f}",
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate_world(folder / "data", users=max(200, words.events // 25), seed=1)
        actions = period(folder / "data", 0, 2**62).events[: words.events]
        batches = [decoded(actions[at : at + BATCH]) for at in range(0, len(actions), BATCH)]
        gc.collect()
        gc.freeze()  # else each round's garbage collection walks the batches that wait here, at whoever's cost
        found = [Measured(way.name) for way in WAYS]
        with Broker(folder / "kafka") as broker:
            for number in range(words.rounds):
                for way, one in zip(WAYS, found, strict=True):
                    for figure, value in measure(broker, folder / "kafka", number, way, batches).items():
                        one.rounds[figure].append(value)
                console.print(f"round {number + 1} of {words.rounds} done")
    show(found)
    if words.json:
        about = {**machine(), "events": len(actions), "transaction": BATCH}
        words.json.write_text(json.dumps({**about, "ways": [asdict(one) for one in found]}, indent=1))


if __name__ == "__main__":
    main()
