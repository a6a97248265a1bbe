"""How fast a scorer over a cluster is that takes as long for its calls as a real one: `-m slow`, figures by `-s`."""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from fixtures.jd import jd
from fixtures.scorer import PARTITIONS, START_MS, Shop, Stage, running, wait_until
from rigs.fake_openmldb import REAL_PACE, Cluster, running_cluster

from streaming.model.encoder import Encoder
from streaming.store.openmldb.cluster import ClusterStore
from streaming.store.openmldb.sdk import Client, connect_options

pytestmark = pytest.mark.slow

EVENTS, WARM = 4000, 200
RATE, SECONDS = 300, 15
OPEN = 200  # sessions at a time


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("openmldb"), jd()) as made:
        yield made


@pytest.fixture
def store(cluster: Cluster) -> Iterator[ClusterStore]:
    cluster.clear()
    cluster.pace = REAL_PACE
    config = Stage.store_settings(openmldb={"zk": "zk:2181", "connections": int(os.environ.get("CONNECTIONS", "4"))})
    client = Client(connect_options(config, "JD_db", "rigs.fake_openmldb:cluster_sdk"), "demo")
    with closing(ClusterStore(jd(), client)) as made:
        made.load()
        yield made


def sessions(count: int, seed: int = 5) -> list[dict[str, Any]]:
    """Actions of 2,000 users, in sessions of one to eight clicks, `OPEN` of them at a time."""
    random = np.random.default_rng(seed)
    sample = Shop.seeded(1).actions[0]
    open_now: list[tuple[str, int]] = []
    actions = []
    for number in range(count):
        while len(open_now) < OPEN:
            open_now.append((str(int(random.integers(0, 2000))), int(random.integers(1, 9))))
        at = int(random.integers(0, len(open_now)))
        user, left = open_now[at]
        open_now[at : at + 1] = [(user, left - 1)] if left > 1 else []
        sku = str(int(random.integers(0, 300)))
        moment = START_MS + number * 10
        actions.append({**sample, "user_id": user, "sku_id": sku, "time": moment, "request_id": f"r{number}"})
    return actions


class Watching:
    """Notes when scores can be read, by key, from a thread of its own."""

    def __init__(self, stage: Stage) -> None:
        self.seen: dict[str, list[float]] = {}
        self._stop, self._stage = threading.Event(), stage
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        settings = {"group.id": f"read-{self._stage.name}", "isolation.level": "read_committed", "fetch.wait.max.ms": 5}
        consumer = Consumer({"bootstrap.servers": self._stage.bootstrap, **settings})
        consumer.assign([TopicPartition(self._stage.topics["scores"], n, 0) for n in range(PARTITIONS)])
        while not self._stop.is_set():
            record = consumer.poll(0.1)
            if record is not None:
                self.seen.setdefault((record.key() or b"").decode(), []).append(time.monotonic())
        consumer.close()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def test_a_backlog(stage: Stage, scorer_encoder: Encoder, store: ClusterStore, cluster: Cluster) -> None:
    actions = sessions(WARM + EVENTS)
    stage.send_actions(actions[:WARM])
    config = stage.config(store={"backoff_ms": 50}, batch={"messages_max": 2048})
    with running(config, scorer_encoder, store) as scorer:
        wait_until(lambda: scorer.metrics.scores._value.get() >= WARM, "warm")
        calls = len(cluster.calls)
        started = time.monotonic()
        stage.send_actions(actions[WARM:])
        wait_until(lambda: scorer.metrics.scores._value.get() >= WARM + EVENTS, "all scores")
        took = time.monotonic() - started
    asked = cluster.calls[calls:]
    print(f"\nbacklog: {EVENTS / took:,.0f} events/s; {len(asked)} calls of {statistics.mean(asked):.0f} requests")


def test_a_steady_rate(stage: Stage, scorer_encoder: Encoder, store: ClusterStore) -> None:
    actions = sessions(WARM + RATE * SECONDS)
    stage.send_actions(actions[:WARM])
    config = stage.config(store={"backoff_ms": 50}, batch={"messages_max": 2048})
    producer = Producer({"bootstrap.servers": stage.bootstrap, "linger.ms": 2, "partitioner": "murmur2_random"})
    sent: dict[str, list[float]] = {}
    with closing(Watching(stage)) as watching, running(config, scorer_encoder, store) as scorer:
        wait_until(lambda: scorer.metrics.scores._value.get() >= WARM, "warm")
        wait_until(lambda: sum(map(len, watching.seen.values())) >= WARM, "warm scores are read")
        watching.seen.clear()
        began = time.monotonic()
        for number, action in enumerate(actions[WARM:]):
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
            sent.setdefault(action["user_id"], []).append(time.monotonic())
            producer.produce(stage.topics["actions"], json.dumps(action).encode(), action["user_id"].encode())
            producer.poll(0)
        behind = len(actions) - scorer.metrics.scores._value.get()
        assert producer.flush(10) == 0
        wait_until(lambda: sum(map(len, watching.seen.values())) >= RATE * SECONDS, "all scores")
    waits = [b - a for user, times in sent.items() for a, b in zip(times, watching.seen[user], strict=True)]
    late = np.quantile(np.array(waits) * 1000, [0.5, 0.99])
    print(f"\n{RATE}/s: p50 {late[0]:.0f} ms, p99 {late[1]:.0f} ms; {behind:.0f} behind at the end")
