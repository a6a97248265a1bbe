"""What `make bench` and `make bench-latency` stand on: models, events, the clock, and the peers that run beside."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition, libversion

from batch.dataset.fit_encoder import fit
from batch.dataset.folder_hash import digest
from batch.replay import Message, Replay
from batch.train.checkpoint import read_shape
from batch.train.export import write_repository
from benchmarks.records import Written
from benchmarks.sample import jd
from deploy.environments import REPOSITORY, folder, interpreter
from deploy.kafka.broker import Broker
from deploy.process import Process
from streaming.app.decoding import StreamDecoder
from streaming.events.batch import EventBatch
from streaming.model.encoder import Encoder
from streaming.store.embedded import EmbeddedStore

__all__ = [
    "BATCH",
    "NO_PEERS",
    "QuixOptions",
    "constant_artifact",
    "decoded",
    "filled_store",
    "has_peers",
    "machine",
    "net_artifact",
    "new_topic",
    "quix",
    "rate",
    "scorer_config",
    "send",
    "written",
]

BATCH = 2048
FIT_ROWS = 20_000
PATIENCE_S = 300.0
NO_PEERS = "Quix Streams is left out: its environment is not made (`make bench-environment`)"

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


def decoded(messages: list[Message]) -> EventBatch:
    """What the scorer makes of messages of one topic."""
    (topic,) = {message.topic for message in messages}
    stream = jd().stream_of(topic)
    if stream is None:
        raise ValueError(f"{topic} is no topic of the application")
    events, _ = StreamDecoder(jd(), stream, 65_536, 300).decode([Written(m.key, m.value, topic) for m in messages])
    return events


def filled_store(rows: Sequence[Message]) -> EmbeddedStore:
    """An engine with the tutorial's tables and, in them, these messages."""
    store = EmbeddedStore(jd())
    store.load()
    for _, some in itertools.groupby(sorted(rows, key=_topic), key=_topic):
        store.restore(decoded(list(some)))
    return store


def _topic(message: Message) -> str:
    return message.topic


def constant_artifact(folder: Path, replay: Replay) -> Path:
    """An encoder fitted on some of the stream, and a model that answers 0.5: what is left is the pipeline."""
    encoder = fit(filled_store([]).answer(decoded(replay.events[:FIT_ROWS])))
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


def net_artifact(folder: Path, constant: Path) -> Path:
    """The demo's network with random weights, behind the constant artifact's encoder.

    It knows none of the ids: they all meet one row of its tables. What costs are its layers, and these are the demo's.
    """
    folder.mkdir()
    shutil.copytree(constant / "encoder", folder / "encoder")
    for name in ("features.sql", "manifest.json"):
        shutil.copy(constant / name, folder / name)
    argv = [str(interpreter("model")), "-m", "benchmarks.training", "--checkpoint", str(folder / "checkpoint")]
    subprocess.run(argv, cwd=REPOSITORY, check=True, stderr=subprocess.DEVNULL)
    shape = read_shape(folder / "checkpoint")
    write_repository(folder / "triton", folder / "checkpoint", shape, version=1)
    config = folder / "triton" / "embedding" / "config.pbtxt"
    config.write_text(config.read_text().replace(shape.encoder_sha256, Encoder.load(folder / "encoder").digest))
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


def new_topic(broker: Broker, name: str) -> str:
    """Makes a topic of two partitions whose records have the broker's time, whatever a producer says."""
    broker.create_topics({name: 2}, {"message.timestamp.type": "LogAppendTime"})
    return name


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


def scorer_config(
    file: Path, bootstrap: str, triton: str, artifact: Path, events: str, scores: str, port: int, more: str = ""
) -> Path:
    """Writes the configuration of a scorer whose group is called as its topic of scores.

    Args:
        triton: its URL.
        port: of /metrics.
        more: lines of `[kafka]`, after which other tables may stand.
    """
    file.write_text(
        f"""[kafka.topics]
actions = "{events}"
scores = "{scores}"
[model]
url = "{triton}"
artifact = {json.dumps(str(artifact))}
[http]
port = {port}
[kafka]
bootstrap_servers = "{bootstrap}"
group_id = "{scores}"
transactional_id_prefix = "{scores}"
{more}
"""
    )
    return file


def has_peers() -> bool:
    """Is the environment of the peers made?"""
    return (folder() / "peers.stamp").exists()


@dataclass(frozen=True)
class QuixOptions:
    """How a Quix Streams application commits; see `benchmarks/peers/quix.py`.

    Attributes:
        commit_s: at the latest so many seconds after the last commit.
        commit_every: or after so many records; 0: only by time.
        model: ask Triton for each record.
    """

    commit_s: float = 1.0
    commit_every: int = BATCH
    model: bool = True


def quix(where: Path, bootstrap: str, triton: str, events: str, out: str, options: QuixOptions) -> Process:
    """The Quix Streams application as a process, which runs from now on."""
    argv = [str(interpreter("peers")), str(REPOSITORY / "benchmarks" / "peers" / "quix.py"), bootstrap, events, out]
    argv += ["--state", str(where / f"{out}-state"), "--commit-s", str(options.commit_s)]
    argv += ["--commit-every", str(options.commit_every)]
    argv += ["--triton", triton] if options.model else []
    return Process("Quix Streams", argv, where / f"{out}.log", cwd=where)


def machine() -> dict[str, Any]:
    """What a run's figures belong to: processor, versions, commit."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    versions = {name: importlib.metadata.version(name) for name in ("confluent-kafka", "numpy", "tritonclient")}
    if has_peers():
        ask = "import importlib.metadata as m; print(m.version('quixstreams'))"
        told = subprocess.run([str(interpreter("peers")), "-c", ask], capture_output=True, text=True, check=True)
        versions["quixstreams"] = told.stdout.strip()
    git = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    said = subprocess.run(git, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return {
        "cpu": models[0] if models else platform.processor(),
        "cpus": len(models),
        "versions": {**versions, "librdkafka": libversion()[0], "python": platform.python_version()},
        "commit": said.stdout.strip(),
    }
