"""KEEP=1: the shop stays open. What was streamed happens again and again, each time weeks later, at a shop's pace."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
import uuid
from collections.abc import Iterator, Sequence

from confluent_kafka import KafkaException

from batch.replay import Message
from deploy.demo.shop import Shop
from deploy.demo.traffic import producer_to
from deploy.kafka.clients import produce
from streaming.app.streams import Stream, spell_time
from streaming.engine.types import Type

__all__ = ["EVENTS_PER_S", "WEEK_MS", "OpenShop", "again", "weeks_of"]

EVENTS_PER_S = 20.0
"""On average: they come as people do, at random."""

WEEK_MS = 7 * 86_400_000


def weeks_of(events: Sequence[Message]) -> int:
    """Whole weeks after which the first of some events comes behind the last, at least one.

    Args:
        events: in the order of their times, one at least.
    """
    return (events[-1].time - events[0].time) // WEEK_MS + 1


def again(shop: Shop, events: Sequence[Message], now_ms: int) -> Iterator[Message]:
    """The events once more, over and over: each time whole weeks later, so that hours and weekdays stay what they are.

    Args:
        shop: whose events they are.
        events: in the order of their times, one at least.
        now_ms: ends it: what is later than now has not happened, and no scorer takes it.
    """
    later_ms = weeks_of(events) * WEEK_MS
    for round_number in itertools.count(1):
        for event in events:
            moved = event.time + round_number * later_ms
            if moved > now_ms:
                return
            yield _at(shop.topics.streams[event.topic], event, moved)


def _at(stream: Stream, event: Message, time_ms: int) -> Message:
    """An event at another time, and, where its request has a name, with another name."""
    value = json.loads(event.value)
    value[stream.event_time] = spell_time(time_ms, stream.timestamp_format)
    named = stream.request_id
    if named is not None and value.get(named) is not None and stream.column(named).type == Type.STRING:
        value[named] = str(uuid.uuid4())
    text = json.dumps(value, ensure_ascii=False).encode()
    return Message(event.topic, event.key, text, time_ms, event.request_id)


class OpenShop:
    """Sends events on a thread of its own, until it is closed, none is left, or Kafka refuses them for good.

    Args:
        bootstrap: addresses of the brokers.
        shop: whose events they are.
        events: what happens again.
        timed: each record is written at its event's time, as `EventSender` does.
    """

    def __init__(self, bootstrap: str, shop: Shop, events: Sequence[Message], *, timed: bool) -> None:
        self._producer = producer_to(bootstrap)
        self._events = again(shop, events, int(time.time() * 1000))
        self._timed = timed
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._sell, name="open-shop", daemon=True)

    def __enter__(self) -> OpenShop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def _sell(self) -> None:
        draw = random.Random(1)
        for event in self._events:
            if self._closed.wait(draw.expovariate(EVENTS_PER_S)):
                return
            try:
                produce(self._producer, event.topic, event.key, event.value, time_ms=event.time if self._timed else 0)
            except KafkaException:
                return
