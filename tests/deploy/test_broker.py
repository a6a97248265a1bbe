"""The local broker: what the other tests stand on."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, ConfigResource
from fixtures.applications import make

from deploy.environments import REPOSITORY
from deploy.kafka.broker import Broker
from deploy.process import ProcessFailed, free_ports


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


def test_topics_of_an_application_keep_events_that_are_years_old(tmp_path: Path) -> None:
    app, (port,) = make(tmp_path / "bank"), free_ports(1)
    argv = [sys.executable, "-m", "deploy.kafka.broker", "--folder", str(tmp_path / "kafka"), "--port", str(port)]
    with subprocess.Popen([*argv, "--app", str(app)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert f"127.0.0.1:{port}" in server.stdout.readline()
            assert server.stdout.readline() == "topics: paid, card_rows, scores, paid.dlq\n"
            asked = ConfigResource(ConfigResource.Type.TOPIC, "paid")
            admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{port}"})
            (answer,) = admin.describe_configs([asked]).values()
            assert answer.result(30)["retention.ms"].value == "-1"
        finally:
            server.terminate()
