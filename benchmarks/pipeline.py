"""Events per second of the whole pipeline, beside a raw transactional echo and Triton's ceiling, on this machine, now.

    python -m benchmarks.pipeline [--artifact DIR] [--events N] [--rounds N]

One real Kafka and one real Triton serve all of it, one measurement at a time. The echo consumes the same actions,
produces them unchanged and commits, in transactions of the same size: what Kafka's client allows in one Python process.
The pipeline is `jd-intent-score run` as a process of its own. Both are timed by the records that they wrote: from the
first record of the topic to the last. Figures drift with the machine; the ratios are what to compare.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from rich.console import Console
from rich.table import Table

from batch.dataset.fit_encoder import fit
from batch.dataset.folder_hash import digest
from batch.replay import Message, Replay
from batch.world.generate import generate_world
from batch.world.tutorial_replay import period
from benchmarks.records import Written
from benchmarks.sample import jd
from deploy.kafka.broker import Broker, topics_of
from deploy.process import Process, free_ports
from deploy.triton.server import Triton
from streaming.app.decoding import StreamDecoder
from streaming.app.topics import TopicNames
from streaming.model.encoder import Encoder
from streaming.model.triton import Model
from streaming.store.embedded import EmbeddedStore

REPOSITORY = Path(__file__).resolve().parent.parent
BATCH = 2048
FIT_ROWS = 20_000
TRITON_SECONDS = 3.0
PATIENCE_S = 300.0

CONSTANT_MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        counts = [pb_utils.get_input_tensor_by_name(request, "INPUT_0").shape()[0] for request in requests]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT_0", np.full((count, 1), 0.5, np.float32))])
            for count in counts
        ]
"""

console = Console(highlight=False)


@dataclass(frozen=True)
class Place:
    """What a round runs on."""

    broker: Broker
    triton: Triton
    artifact: Path
    folder: Path


def constant_artifact(folder: Path, replay: Replay) -> Path:
    """An encoder fitted on some of the stream, and a model that answers 0.5: what is left is the pipeline."""
    store = EmbeddedStore(jd())
    store.load()
    decoder = StreamDecoder(jd(), jd().scored[0], 65_536, 300)
    events, _ = decoder.decode([Written(m.key, m.value) for m in replay.events[:FIT_ROWS]])
    encoder = fit(store.answer(events))
    encoder.save(folder / "encoder")
    sql = Path(shutil.copy(REPOSITORY / "sql" / "jd" / "features.sql", folder / "features.sql"))
    (folder / "manifest.json").write_text(json.dumps({"sql_sha256": digest(sql)}))
    model = folder / "triton" / "embedding"
    (model / "1").mkdir(parents=True)
    config = (REPOSITORY / "deploy" / "triton" / "config.pbtxt").read_text()
    config = config.replace("$instances", "1").replace("$encoder_sha256", encoder.digest)
    config = config.replace("$fields", str(len(encoder.fields)))
    (model / "config.pbtxt").write_text(config)
    (model / "1" / "model.py").write_text(CONSTANT_MODEL)
    return folder


def send(broker: Broker, messages: list[Message], topics: dict[str, str]) -> None:
    """Produces all of it; `topics` renames topics."""
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "linger.ms": 20,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": len(messages) + 1,
        }
    )
    for message in messages:
        producer.produce(topics.get(message.topic, message.topic), message.value, message.key)
    if producer.flush(PATIENCE_S):
        raise SystemExit("the broker did not take the events")


def written(bootstrap: str, topic: str, count: int) -> Iterator[int]:
    """Timestamps (ms) of the first `count` records of a topic that a `read_committed` subscriber sees."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        deadline = time.monotonic() + PATIENCE_S
        while count:
            if time.monotonic() > deadline:
                raise SystemExit(f"{topic}: {count} records are missing after {PATIENCE_S:.0f} s")
            for record in consumer.consume(min(count, 10_000), 0.5):
                if record.error() is None:
                    count -= 1
                    yield record.timestamp()[1]
    finally:
        consumer.close()


def rate(timestamps: list[int]) -> float:
    """Records per second. The first instant's records are what the clock starts with, not what it measured."""
    times = np.sort(np.array(timestamps))
    later = int((times > times[0]).sum())
    return later / (float(times[-1] - times[0]) / 1000)


def echo(place: Place, topic: str, number: int, events: int) -> float:
    """consume → produce → commit, nothing else, in transactions of `BATCH`."""
    out = f"echo-{number}"
    place.broker.create_topics({out: 2})
    common = {"bootstrap.servers": place.broker.bootstrap}
    group = {"group.id": f"echo-{number}", "auto.offset.reset": "earliest", "enable.auto.commit": False}
    consumer = Consumer({**common, **group, "isolation.level": "read_committed"})
    same = {"linger.ms": 5, "retry.backoff.ms": 2, "partitioner": "murmur2_random"}  # as the scorer: a fair ceiling
    producer = Producer({**common, "transactional.id": out, **same})
    producer.init_transactions()
    consumer.subscribe([topic])
    left = events
    while left:
        records = [record for record in consumer.consume(BATCH, 0.05) if record.error() is None]
        if not records:
            continue
        producer.begin_transaction()
        for record in records:
            producer.produce(out, record.value(), record.key())
        ends = {record.partition() or 0: (record.offset() or 0) + 1 for record in records}
        producer.send_offsets_to_transaction(
            [TopicPartition(topic, partition, offset) for partition, offset in ends.items()],
            consumer.consumer_group_metadata(),
        )
        producer.commit_transaction()
        left -= len(records)
    consumer.close()
    return rate(list(written(place.broker.bootstrap, out, events)))


def pipeline(place: Place, topic: str, number: int, events: int) -> tuple[float, dict[str, float]]:
    """`jd-intent-score run` on the same topic; also seconds per stage."""
    scores, port = f"scores-{number}", free_ports(1)[0]
    place.broker.create_topics({scores: 2})
    config = place.folder / f"scorer-{number}.toml"
    config.write_text(
        f"""[kafka]
bootstrap_servers = "{place.broker.bootstrap}"
group_id = "pipeline-{number}"
[kafka.topics]
actions = "{topic}"
scores = "{scores}"
[batch]
messages_max = {BATCH}
[model]
url = "{place.triton.grpc_url}"
artifact = {json.dumps(str(place.artifact))}
[http]
port = {port}
"""
    )
    argv = [sys.executable, "-m", "streaming", "run", "--config", str(config)]
    with Process("the scorer", argv, place.folder / f"scorer-{number}.log", cwd=REPOSITORY):
        measured = rate(list(written(place.broker.bootstrap, scores, events)))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
    prefix = 'jd_intent_stage_seconds_sum{stage="'
    stages = (line.removeprefix(prefix).split('"} ') for line in lines if line.startswith(prefix))
    return measured, {stage: float(seconds) for stage, seconds in stages}


def ceiling(place: Place) -> float:
    """Rows per second of Triton with two requests of `BATCH` rows under way, as the loop has them at most."""
    encoder = Encoder.load(place.artifact / "encoder")
    ids = np.random.default_rng(1).integers(0, 2**62, (BATCH, len(encoder.fields)), dtype=np.int64)
    rows = 0
    with Model(place.triton.grpc_url, timeout_s=60.0) as model:
        model.score(ids)
        start = time.perf_counter()
        ahead = model.submit(ids)
        while time.perf_counter() - start < TRITON_SECONDS:
            ahead, ready = model.submit(ids), ahead
            rows += len(ready.result().probabilities)
        return rows / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, help="of `jd-intent-batch export`; default: a model that answers 0.5")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate_world(folder / "data", users=max(200, arguments.events // 25), seed=1)
        replay = period(folder / "data", 0, 2**62)
        actions = replay.events[: arguments.events]
        artifact = arguments.artifact or constant_artifact(folder / "artifact", replay)
        with Broker(folder / "kafka") as broker, Triton(artifact / "triton", folder / "triton", private=True) as triton:
            broker.create_topics(topics_of(TopicNames.of(jd(), {})))
            place = Place(broker, triton, artifact, folder)
            send(broker, replay.dimensions, {})
            send(broker, actions, {})
            console.print(
                f"{len(actions):,} actions, {len(replay.dimensions):,} dimension rows, {BATCH} a transaction; "
                f"model: {arguments.artifact or 'answers 0.5'}"
            )
            echoes, pipelines, ceilings = [], [], []
            stages: dict[str, float] = {}
            for number in range(arguments.rounds):
                echoes.append(echo(place, "user-actions", number, len(actions)))
                speed, stages = pipeline(place, "user-actions", number, len(actions))
                pipelines.append(speed)
                ceilings.append(ceiling(place))
                console.print(
                    f"round {number + 1}: echo {echoes[-1]:,.0f}/s, pipeline {speed:,.0f}/s "
                    f"({speed / echoes[-1]:.2f}×), Triton {ceilings[-1]:,.0f} rows/s"
                )
    show(echoes, pipelines, ceilings, {name: s / len(actions) * 1e6 for name, s in stages.items()})


def show(echoes: list[float], pipelines: list[float], ceilings: list[float], stages: dict[str, float]) -> None:
    """Medians, ratios round by round, and where the last round's time went."""
    table = Table("", "events/s", "pipeline beside it", title="Medians")
    pairs = {"raw transactional echo": echoes, "Triton alone": ceilings}
    for name, other in pairs.items():
        ratio = statistics.median(mine / its for mine, its in zip(pipelines, other, strict=True))
        table.add_row(name, f"{statistics.median(other):,.0f}", f"{ratio:.2f}×")
    table.add_row("pipeline", f"{statistics.median(pipelines):,.0f}", "")
    console.print(table)
    console.print("µs per event and stage, last round: " + ", ".join(f"{n} {s:.1f}" for n, s in stages.items()))


if __name__ == "__main__":
    main()
