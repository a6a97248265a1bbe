"""An application with topics, types and tables of its own, as a process that is killed: each event once, and right.

Payments and logins come on two topics, and a payment's features count the logins before it: the two are merged by their
records' times. Records that constraints refuse are dead letters.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from confluent_kafka import Producer
from fixtures.artifact import probabilities, save_artifact
from fixtures.cards import CARDS, Sent, card_records
from fixtures.records import Fake
from places import REPOSITORY

from batch.dataset.fit_encoder import fit
from deploy.kafka.broker import Broker, topics_of
from deploy.kafka.clients import PARTITIONER, Follower, produce
from deploy.process import Process
from deploy.triton.server import Triton
from streaming.app.folder import load_app
from streaming.app.inputs import InputDecoder
from streaming.app.topics import TopicNames
from streaming.config import Events
from streaming.events.dead_letter import ERRORS
from streaming.events.record import reason_of
from streaming.store.embedded import EmbeddedStore

APP = load_app(CARDS)
PATIENCE_S = 120.0
PARTITIONS = 2


class Truth(NamedTuple):
    """What must come of the records.

    Attributes:
        scores: of each payment its probability.
        refused: the reason and a part of the message of each dead letter.
    """

    scores: dict[str, float]
    refused: list[tuple[str, str]]


@pytest.fixture(scope="module")
def records() -> dict[str, list[Sent]]:
    """In the order of their times: of a partition whose times go back, the later record comes when it is its turn."""
    made = card_records(23, cards=60)
    return {stream: sorted(sent, key=lambda one: one.time_ms) for stream, sent in made.items()}


@pytest.fixture(scope="module")
def artifact(records: dict[str, list[Sent]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    """Encoder and model, and the truth: the events one after the other, in the order of their records' times."""
    names = TopicNames.of(APP, {})
    decoder = InputDecoder(APP, Events(), names)
    topics = {stream.name: topic for topic, stream in names.streams.items()}
    order = {topic: place for place, topic in enumerate(names.inputs)}

    def fakes(stream: str) -> list[Fake]:
        return [
            Fake(sent.key, sent.value, None, (topics[stream], 0, number), sent.time_ms)
            for number, sent in enumerate(records[stream])
        ]

    cards, _ = decoder.decode(fakes("card_master"))
    store = EmbeddedStore(APP)
    store.load()
    store.restore(cards)
    coming = [*fakes("authorizations"), *fakes("card_activity")]
    coming.sort(key=lambda record: (record.written_ms, order[record.topic()], record.offset()))
    events, _ = decoder.decode(coming)
    answers = store.answer(events)
    encoder = fit(answers, "seed", APP)
    folder = tmp_path_factory.mktemp("cards") / "artifact"
    save_artifact(folder, encoder, CARDS)
    ids = events.rows[APP.main]["payment_id"].to_pylist()
    scores = dict(zip(ids, probabilities(encoder.encode(answers)).tolist(), strict=True))
    refused = [sent.refusal for sent_of in records.values() for sent in sent_of if sent.refusal is not None]
    return folder, Truth(scores, refused)


@pytest.fixture(scope="module")
def triton(artifact: tuple[Path, Truth], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with Triton(artifact[0] / "triton", tmp_path_factory.mktemp("cards-triton")) as server:
        yield server


class Seen:
    """What a `read_committed` subscriber sees."""

    def __init__(self, names: TopicNames) -> None:
        self.names = names
        self.scores: dict[str, dict[str, Any]] = {}
        self.doubled: list[str] = []
        self.dead: list[tuple[str, str]] = []

    def take(self, record: Any, _: float) -> None:
        if record.topic() == self.names.scores:
            score = json.loads(record.value())
            if score["txn"] in self.scores:
                self.doubled.append(score["txn"])
            assert record.key() == str(score["pan"]).encode()
            self.scores[score["txn"]] = score
            return
        headers = {name: value.decode() for name, value in record.headers()}
        kind = reason_of(headers[f"{ERRORS}exception.class.name"], headers[f"{ERRORS}stage"])
        self.dead.append((kind, headers[f"{ERRORS}exception.message"]))


def send(bootstrap: str, names: TopicNames, records: dict[str, list[Sent]]) -> None:
    """All of it, each record written at its own time."""
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": PARTITIONER, "linger.ms": 5})
    topics = {stream.name: topic for topic, stream in names.streams.items()}
    for stream in ("card_master", "authorizations", "card_activity"):
        for sent in records[stream]:
            produce(producer, topics[stream], sent.key, sent.value, time_ms=sent.time_ms)
    assert producer.flush(30) == 0


def test_kills_lose_double_and_change_nothing(
    broker: Broker, triton: Triton, artifact: tuple[Path, Truth], records: dict[str, list[Sent]], tmp_path: Path
) -> None:
    folder, truth = artifact
    run = uuid.uuid4().hex[:8]
    keys = [*(stream.name for stream in APP.streams), "scores", "dead_letters"]
    names = TopicNames.of(APP, {key: f"{key}-{run}" for key in keys})
    broker.create_topics(topics_of(names), {"retention.ms": "-1"})
    send(broker.bootstrap, names, records)
    overrides = "\n".join(f'{key} = "{key}-{run}"' for key in keys)
    file = tmp_path / "scorer.toml"
    file.write_text(
        f"""app = {json.dumps(str(CARDS))}
[kafka]
bootstrap_servers = "{broker.bootstrap}"
group_id = "cards-{run}"
instance_id = "one"
transactional_id_prefix = "{run}"
static_membership = true
merge_wait_ms = 5000
[kafka.topics]
{overrides}
[batch]
messages_max = 40
[snapshots]
folder = {json.dumps(str(tmp_path / "state"))}
every_s = 0.5
[model]
url = "{triton.grpc_url}"
artifact = {json.dumps(str(folder))}
[http]
port = 0
"""
    )
    seen = Seen(names)
    counts = topics_of(names)
    places = [(topic, number) for topic in (names.scores, names.dead_letters) for number in range(counts[topic])]
    subscriber = Follower(f"cards-{run}", broker.bootstrap, places, seen.take, poll_s=0.02)
    subscriber.start()
    luck = np.random.default_rng(1)
    expected = len(truth.scores)
    argv = [sys.executable, "-m", "streaming", "run", "-c", str(file)]
    deadline = time.monotonic() + PATIENCE_S
    for share in (0.1, 0.4, 0.7, 1.0):
        with Process("scorer", argv, tmp_path / "scorer.log", cwd=REPOSITORY) as scorer:
            while len(seen.scores) < share * expected or (share == 1.0 and len(seen.dead) < len(truth.refused)):
                assert scorer.running(), scorer.tail()
                assert time.monotonic() < deadline, (len(seen.scores), expected, len(seen.dead), scorer.tail())
                time.sleep(0.005)
            if share < 1.0:
                time.sleep(float(luck.uniform(0, 0.05)))
                scorer.kill()
    time.sleep(0.5)
    subscriber.close()
    assert seen.doubled == []
    assert seen.scores.keys() == truth.scores.keys()
    wrong = [name for name, score in seen.scores.items() if score["risk"] != truth.scores[name]]
    assert wrong == []
    assert {type(score["pan"]) for score in seen.scores.values()} == {int}
    assert len(seen.dead) == len(truth.refused)
    assert sorted(kind for kind, _ in seen.dead) == sorted(kind for kind, _ in truth.refused)
    for _, message in truth.refused:
        assert any(message in told for _, told in seen.dead), message
