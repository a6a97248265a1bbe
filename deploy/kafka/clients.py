"""Clients for traffic: one that follows topics on a thread of its own, and one call that waits for room to send."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

__all__ = ["PARTITIONER", "Follower", "produce"]

PARTITIONER = "murmur2_random"
"""As any Java producer: a key has one partition, whoever sends."""


class Follower:
    """Reads what is committed in partitions, from their beginning and as it comes, on a thread of its own.

    Args:
        name: of the thread and of the consumer's group, which commits nothing.
        bootstrap: addresses of the brokers.
        places: (topic, partition) of all that is read; each must be there.
        take: gets each record and when it came (monotonic seconds), on that thread.
        poll_s: seconds for which records are gathered before they are taken.

    Attributes:
        covered: (topic, partition) → up to which offset everything was taken.
        failure: what ended the thread: an error of `take`, a fatal one of Kafka's, or an offset that is gone.
    """

    def __init__(
        self,
        name: str,
        bootstrap: str,
        places: Iterable[tuple[str, int]],
        take: Callable[[Message, float], None],
        poll_s: float = 0.05,
    ) -> None:
        self.covered: dict[tuple[str, int], int] = {}
        self.failure: BaseException | None = None
        self._name, self._bootstrap, self._places, self._take_one, self._poll_s = name, bootstrap, places, take, poll_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=name, daemon=True)

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def close(self) -> None:
        """Reads no more; look at `failure` then."""
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": self._name,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 5,
                "enable.partition.eof": True,
                "log_level": 0,
            }
        )
        try:
            consumer.assign([TopicPartition(topic, number, 0) for topic, number in self._places])
            while not self._stop.is_set():
                messages = consumer.consume(1000, self._poll_s)
                now = time.monotonic()
                for message in messages:
                    self._take(message, now)
        except BaseException as error:
            self.failure = error
        finally:
            consumer.close()

    def _take(self, message: Message, now: float) -> None:
        error, place, offset = message.error(), (message.topic() or "", message.partition() or 0), message.offset() or 0
        if error is None:
            self._take_one(message, now)
            self.covered[place] = offset + 1
        elif error.code() == KafkaError._PARTITION_EOF:
            self.covered[place] = max(self.covered.get(place, 0), offset)
        elif error.fatal() or error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise KafkaException(error)


def produce(
    producer: Producer,
    topic: str,
    key: str | bytes | None,
    value: bytes | None,
    headers: dict[str, str | bytes | None] | None = None,
    on_delivery: Callable[[KafkaError | None, Message], None] | None = None,
    time_ms: int = 0,
) -> None:
    """Hands a record to a producer, and waits for room while its queue is full: the broker is slow, or away.

    Args:
        time_ms: the record's own time, epoch ms; 0: now.
    """
    while True:
        try:
            producer.produce(topic, value, key, headers=headers, on_delivery=on_delivery, timestamp=time_ms)
        except BufferError:
            producer.poll(0.05)
        else:
            producer.poll(0)
            return
