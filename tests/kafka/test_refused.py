"""Records that are dead letters already stay out of the state, on a real broker: whoever could read them now."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from fixtures.artifact import probabilities
from fixtures.scorer import PARTITIONS, Shop, Stage, answers, check, loaded_store, running, wait_until

from streaming.app.configured import application
from streaming.errors import BadEvent, BrokerUnavailable
from streaming.events.dead_letter import dead_letter
from streaming.events.record import Malformed, Record
from streaming.kafka.connection import Connection
from streaming.kafka.refused_records import Refused
from streaming.model.encoder import Encoder
from streaming.predict.state_replica import Follower

TAKEN_BYTES = 600


def padded(row: dict[str, Any]) -> dict[str, Any]:
    """Too large for a scorer that takes `TAKEN_BYTES`; another ignores fields that it does not know."""
    return {**row, "note": "x" * 1000}


@pytest.mark.parametrize("snapshots", [False, True])
def test_a_mended_scorer_has_the_state_whose_scores_are_published(
    snapshots: bool, stage: Stage, shop: Shop, scorer_encoder: Encoder, tmp_path: Path
) -> None:
    folder = {"folder": str(tmp_path), "every_s": 0.05} if snapshots else {}
    kept = [action for n, action in enumerate(shop.actions) if n % 5]
    half = len(shop.actions) // 2
    first = [action if n % 5 else padded(action) for n, action in enumerate(shop.actions[:half])]
    sold = shop.products[3:]
    stage.send_shop(Shop(first, shop.users, [*map(padded, shop.products[:3]), *sold], shop.comments))
    dead = half // 5 + 3
    with running(stage.config(events={"message_bytes_max": TAKEN_BYTES}, snapshots=folder), scorer_encoder):
        stage.collect(half - half // 5, dead)
    features = answers(Shop(kept, shop.users, sold, shop.comments))
    truth = dict(
        zip(
            (action["request_id"] for action in kept),
            probabilities(scorer_encoder.encode(features)).tolist(),
            strict=True,
        )
    )
    with running(stage.config(snapshots=folder), scorer_encoder):
        stage.send_actions([action for n, action in enumerate(shop.actions[half:], half) if n % 5])
        found = stage.collect(len(kept), dead)
    check(found, truth)
    config = stage.config()
    follower = Follower(config, *application(config), store := loaded_store())
    follower.start()
    wait_until(lambda: follower.missing() is None, "the predict server is ready")
    follower.stop()
    rows = {table: rows for table, (rows, _) in store.sizes().items()}
    assert (rows["JD_db.bo_action"], rows["JD_db.bo_product"]) == (len(kept), len(sold))

    # Not even when the group's offsets are reset: everything else is scored a second time then, by another truth.
    consumer = Consumer({"bootstrap.servers": stage.bootstrap, "group.id": f"group-{stage.name}"})
    beginnings = [TopicPartition(stage.topics["actions"], number, 0) for number in range(PARTITIONS)]
    consumer.commit(offsets=beginnings, asynchronous=False)
    consumer.close()
    with running(stage.config(snapshots=folder), scorer_encoder) as scorer:
        found = stage.collect(2 * len(kept), dead)
        assert scorer.store.sizes()["JD_db.bo_action"][0] == len(kept)
    assert found.scores.keys() == truth.keys()
    assert sorted(found.doubled) == sorted(truth)
    assert len(found.dead) == dead


class Letter:
    """A record as a consumer gives it."""

    def __init__(self, topic: str, offset: int, value: bytes) -> None:
        self._topic, self._offset, self._value = topic, offset, value

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return 1

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return b"key"

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_459_419_080_000


def write(producer: Producer, topic: str, record: Record, group: str) -> None:
    """A dead letter of the record."""
    error: BadEvent = Malformed("decode", "by the test")
    key, value, headers = dead_letter(record, error, 1_000_000, group)
    producer.produce(topic, value, key, headers=headers)  # type: ignore[arg-type]  # list is invariant
    producer.flush()


def test_only_committed_letters_of_this_group_count_and_open_transactions_are_waited_for(stage: Stage) -> None:
    config = stage.config(kafka={"give_up_after_s": 0.5, "transaction_timeout_s": 0.5})
    topic, group = stage.topics["dead_letters"], config.kafka.group_id
    refused = Refused(config.kafka, topic, Connection(threading.Event()))
    assert list(refused.update()) == []
    one, two, three, four = (Letter("actions", offset, b"{") for offset in (3, 5, 5, 9))
    three._value = b"["  # at the same place in a topic that was made anew
    settings = {"bootstrap.servers": stage.bootstrap, "transaction.timeout.ms": 60_000}
    open_one, aborted, done = (Producer({**settings, "transactional.id": f"{stage.name}-{n}"}) for n in range(3))
    for producer in (open_one, aborted, done):
        producer.init_transactions(30)
        producer.begin_transaction()
    write(open_one, topic, two, group)
    write(aborted, topic, four, group)
    write(done, topic, one, group)
    write(done, topic, one, "another group")
    done.commit_transaction(30)
    aborted.abort_transaction(30)
    with pytest.raises(BrokerUnavailable, match="or a transaction is open there"):
        list(refused.update())
    assert refused.drop([one, two]) == [one, two]
    asked = Refused(stage.config().kafka, topic, Connection(threading.Event())).update()
    assert [next(asked) for _ in range(5)] == [0] * 5  # it waits
    open_one.commit_transaction(30)
    assert sum(refused.update()) == sum(asked) == 3
    assert refused.drop([one, two, three, four]) == [three, four]
    assert refused.reaches(("actions", 1), 5)
    assert not refused.reaches(("actions", 1), 6)
    assert not refused.reaches(("actions", 0), 0)
    assert list(refused.update()) == []
