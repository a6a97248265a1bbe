"""What the log says of a broker that is away."""

from __future__ import annotations

import logging
import socket
import time

import pytest

from streaming.config import Kafka
from streaming.kafka.clients import LIBRDKAFKA
from streaming.ops.log import Seldom


def test_a_broker_that_is_away_is_told_in_a_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    consumer = LIBRDKAFKA.consumer({**Kafka(bootstrap_servers=f"127.0.0.1:{port}").client(), "group.id": "g"})
    consumer.subscribe(["t"])
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        consumer.poll(0.05)
    consumer.close()
    told = [line for line in caplog.messages if "Connection refused" in line]
    assert 1 <= len(told) <= 3


def test_lines_of_a_kind_are_counted_and_told_every_ten_seconds() -> None:
    now = 0.0
    seldom = Seldom(lambda: now)

    def told(words: str, *arguments: object) -> str | None:
        record = logging.LogRecord("librdkafka", logging.ERROR, "", 0, words, arguments, None)
        return record.getMessage() if seldom.filter(record) else None

    line = "FAIL [%s] [thrd:b/bootstrap]: Connect failed (after %dms in state CONNECT)"
    assert told(line, "one", 0) == line % ("one", 0)
    assert told(line, "one", 3) is None
    assert told(line, "two", 0) == line % ("two", 0)  # another client
    assert told("FAIL [%s] [thrd:b/bootstrap]: Disconnected", "one")
    now = 9.9
    assert told(line, "one", 0) is None
    now = 10.0
    assert told(line, "one", 1) == f"{line % ('one', 1)} (2 more like it)"
    now = 20.0
    assert told(line, "one", 1) == line % ("one", 1)
    for number in range(3000):  # what never comes again is forgotten
        assert told("line %d", number)
    assert len(seldom._seen) <= 1000
