"""A dead letter fits its topic, whatever its record has, and still names it."""

from __future__ import annotations

import bisect
import hashlib

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from fixtures.jd import jd
from fixtures.records import Fake
from fixtures.scorer import Shop, Stage, check, running, wait_until
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.kafka.broker import Broker
from streaming.app.configured import application
from streaming.app.topics import TopicNames
from streaming.dlq.letters import LetterFilter, find_letters
from streaming.dlq.replay import replay
from streaming.errors import BadEvent, ConfigError
from streaming.events.dead_letter import (
    FINGERPRINT,
    GROUP,
    VALUE_SHA256,
    check_room,
    dead_letter,
    fingerprint,
    origin_headers,
)
from streaming.events.scores import Headers
from streaming.model.encoder import Encoder


def varint(number: int) -> int:
    """Bytes of a zigzag varint."""
    number, size = (number << 1) ^ (number >> 63), 1
    while number >= 128:
        number, size = number >> 7, size + 1
    return size


def part(text: bytes | None) -> int:
    return varint(-1) if text is None else varint(len(text)) + len(text)


def batch_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Of a record batch (version 2) of this one record, as a broker counts it."""
    body = 1 + varint(0) + varint(0) + part(key) + part(value) + varint(len(headers))
    body += sum(part(name.encode()) + part(text) for name, text in headers)
    return 61 + varint(body) + body


def least(topics: TopicNames, group: str) -> int:
    """The smallest max.message.bytes that `check_room` takes."""

    def takes(bytes_max: int) -> bool:
        try:
            check_room(topics.dead_letters, topics.inputs, group, bytes_max)
        except ConfigError:
            return False
        return True

    return bisect.bisect_left(range(2000), True, key=takes)


Text = st.one_of(st.none(), st.integers(0, 3000).map(lambda n: b"x" * n))


@settings(deadline=None)
@given(
    key=Text,
    value=Text,
    extra=st.integers(0, 4000),
    message=st.text(max_size=1500),
    headers=st.lists(st.tuples(st.sampled_from(["a", "trace", "ü" * 40]), Text), max_size=4),
    topic=st.sampled_from(["t", "user-actions", "t" * 249]),
    group=st.sampled_from(["g", "scorers", "g" * 249]),
)
@example(key=b"k" * 3000, value=b"", extra=0, message="", headers=[], topic="t" * 249, group="g" * 249)
def test_it_fits_and_names_its_record(
    key: bytes | None, value: bytes | None, extra: int, message: str, headers: Headers, topic: str, group: str
) -> None:
    limit = least(TopicNames.of(jd(), {"actions": topic}), group) + extra
    record = Fake(key, value, headers, (topic, 2**31 - 1, 2**63 - 1))
    got_key, got_value, got = dead_letter(record, BadEvent("decode", message), limit, group)
    assert batch_bytes(got_key, got_value, got) <= limit
    own, why = origin_headers(Fake(got_key, got_value, got))
    assert (why["__connect.errors.topic"], why["__connect.errors.partition"]) == (topic, str(2**31 - 1))
    assert (why["__connect.errors.offset"], why[GROUP]) == (str(2**63 - 1), group)
    assert why[FINGERPRINT] == fingerprint(record)
    gone = {name.removeprefix("jd_intent.truncated.") for name in why if name.startswith("jd_intent.truncated.")}
    parts = {"key_bytes": (got_key, key), "value_bytes": (got_value, value), "headers": (own, headers)}
    assert gone == {name for name, (now, before) in parts.items() if now != before}
    assert (got_key is None, got_value is None) == (key is None, value is None)
    assert (key or b"").startswith(got_key or b"")
    assert (value or b"").startswith(got_value or b"")
    if VALUE_SHA256 in why:
        assert why[VALUE_SHA256] == hashlib.sha256(value or b"").hexdigest()
    if not gone or extra > 1500:
        assert why["__connect.errors.exception.class.name"] == "streaming.errors.BadEvent"


def test_a_topic_that_takes_too_little_is_refused_at_the_start(
    stage: Stage, broker: Broker, scorer_encoder: Encoder
) -> None:
    stage.topics["dead_letters"] += "-tiny"
    broker.create_topics({stage.topics["dead_letters"]: 1}, {"max.message.bytes": "100"})
    admin = AdminClient({"bootstrap.servers": stage.bootstrap})
    wait_until(lambda: stage.topics["dead_letters"] in admin.list_topics(timeout=10).topics, "the broker knows it")
    said = r"takes records of at most 100 bytes; what a dead letter says of its record needs \d+ more: raise its max"
    with pytest.raises(ConfigError, match=said), running(stage.config(), scorer_encoder):
        pass


@pytest.mark.parametrize("compression", ["producer", "gzip"])
def test_letters_whose_headers_alone_are_too_large_stop_nothing(
    stage: Stage, broker: Broker, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, compression: str
) -> None:
    stage.topics["dead_letters"] += "-small"
    config = stage.config()
    _, topics = application(config)
    limits = {"max.message.bytes": str(least(topics, config.kafka.group_id)), "compression.type": compression}
    broker.create_topics({stage.topics["dead_letters"]: 1}, limits)
    producer = Producer({"bootstrap.servers": stage.bootstrap})
    values = [b"\xff" * size for size in (1, 10, 200, 5000)] * 3
    for value in values:
        producer.produce(stage.topics["actions"], value, b"k" * 300, headers=[("trace", b"t" * 500)])
    assert producer.flush(30) == 0
    stage.send_shop(shop)
    with running(config, scorer_encoder):
        found = stage.collect(len(shop.actions), len(values))
    check(found, truth)
    letters, _ = find_letters(config, topics, LetterFilter(), 100)
    assert len({letter.origin for letter in letters}) == len(values)
    assert all("key_bytes 300" in letter.cut for letter in letters)
    outcome = replay(config, topics, LetterFilter(), limit=100)
    assert not outcome.sent
    assert {why.partition(":")[0] for _, why in outcome.refused} == {"it was cut"}
