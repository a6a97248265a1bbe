"""The local broker: what the other tests stand on."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from fixtures.applications import make

from deploy.environments import REPOSITORY
from deploy.kafka.broker import Broker
from deploy.process import ProcessFailed


def test_records_survive_a_killed_broker(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        broker.create_topics({"t": 1})
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        producer.produce("t", b"kept")
        assert producer.flush(10) == 0
        broker.kill()
        broker.start()
        consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "g", "auto.offset.reset": "earliest"})
        consumer.subscribe(["t"])
        record = consumer.poll(30)
        consumer.close()
        assert record is not None
        assert record.error() is None
        assert record.value() == b"kept"


def test_an_occupied_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ProcessFailed, match=f"port {port}"):
            Broker(tmp_path, port).start()


@pytest.mark.parametrize("words", [["deploy.kafka.broker", "--folder"], ["deploy.demo", "--work"]])
def test_a_wrong_application_is_one_line(tmp_path: Path, words: list[str]) -> None:
    app = make(tmp_path / "bank", features=("amount,", "amont,"))
    argv = [sys.executable, "-m", *words, str(tmp_path / "out"), "--app", str(app)]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if line]
    assert line.endswith(f"{app / 'features.sql'}:1:12: unknown column amont")
    assert not (tmp_path / "out").exists()
