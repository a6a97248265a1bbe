"""One Kafka broker in KRaft mode: broker and controller in one process, its own data folder, ports on loopback.

    python -m deploy.kafka.broker --folder build/kafka --port 9092     # runs until Ctrl-C

Meant for the demo, tests and benchmarks; a production cluster is somebody else's work (docs/how-to/configure.md).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from deploy.environments import java, kafka_jars
from deploy.process import Process, ProcessFailed, free_ports, is_free, one_line
from deploy.process import port as port_number
from streaming.app.folder import load_app
from streaming.app.topics import TopicNames
from streaming.errors import ConfigError
from streaming.shipped_files import app_folder

__all__ = ["Broker", "Listener", "topics_of"]

# A message as large as the scorer's own limit plus headers must fit (a dead letter keeps the bytes as they came).
MESSAGE_BYTES_MAX = 8 * 1024 * 1024


def topics_of(topics: TopicNames) -> dict[str, int]:
    """The topics of an application, with their partition counts on one machine."""
    two = {*topics.events, topics.scores}
    return {name: 2 if name in two else 1 for name in (*topics.inputs, topics.scores, topics.dead_letters)}


READY_TIMEOUT_S = 60.0
TOPICS_S = 30.0  # until topics that were created are known


@dataclass(frozen=True)
class Listener:
    """A door of the broker.

    Attributes:
        protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
        advertised_port: as of `Broker`; 0: `port`.
    """

    protocol: str
    port: int
    advertised_port: int = 0


class Broker:
    """A broker that keeps its data in `folder` over restarts.

    Args:
        folder: data, config and log of this broker; made where it is missing.
        port: the client port; a free one by default.
        heap_mb: the JVM's heap.
        advertised_port: what clients are told to connect to, where something stands in between; default: `port`.
        listeners: further listeners on loopback, by name.
        settings: further server properties, e.g. of those listeners.
    """

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        heap_mb: int = 512,
        advertised_port: int | None = None,
        listeners: Mapping[str, Listener] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        ports = free_ports(2)
        self.port = port or ports[0]
        self._controller_port = ports[1]
        self._heap_mb = heap_mb
        self._advertised_port = advertised_port or self.port
        self._listeners, self._settings = dict(listeners or {}), dict(settings or {})
        self.process: Process | None = None

    @property
    def bootstrap(self) -> str:
        """`bootstrap.servers` for clients."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> Broker:
        """Formats the data folder the first time, starts the broker and waits until it answers.

        Raises:
            ProcessFailed: the port is taken, or the broker died; the message carries the end of its log.
            OSError: `folder` cannot be made.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not is_free(self.port):
            raise ProcessFailed(f"Kafka cannot listen on 127.0.0.1 port {self.port}: another process does")
        config = self._write_config()
        if not (self.folder / "data" / "meta.properties").exists():
            cluster = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
            argv = self._java("kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "--config", str(config))
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ProcessFailed(f"formatting {self.folder / 'data'} failed: {done.stdout}{done.stderr}")
        self.process = Process("kafka", self._java("kafka.Kafka", str(config)), self.folder / "kafka.log")
        try:
            self.process.wait_ready(self._answers, READY_TIMEOUT_S)
        except BaseException:
            self.process.kill()
            raise
        return self

    def create_topics(self, topics: Mapping[str, int], config: Mapping[str, str] | None = None) -> None:
        """Creates the topics (name → partitions) that are not there yet."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient, NewTopic

        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        there = admin.list_topics(timeout=10).topics
        new = [
            NewTopic(name, partitions, 1, config=dict(config or {}))
            for name, partitions in topics.items()
            if name not in there
        ]
        # `admin` stays referenced until the futures are done: they die with it.
        for name, future in (admin.create_topics(new) if new else {}).items():
            try:
                future.result(30)
            except KafkaException as error:
                raise ProcessFailed(f"topic {name} was not created: {error}") from error
        # A topic that was created is not known at once to who asks about it.
        until = time.monotonic() + TOPICS_S
        while not topics.keys() <= admin.list_topics(timeout=10).topics.keys():
            if time.monotonic() > until:
                late = ", ".join(topics)
                raise ProcessFailed(f"topics are not known {TOPICS_S:.0f} s after they were created: {late}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Shuts the broker down in order (SIGTERM)."""
        if self.process is not None:
            self.process.stop()

    def kill(self) -> None:
        """SIGKILL: what a crash of the broker looks like."""
        if self.process is not None:
            self.process.kill()

    def __enter__(self) -> Broker:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _java(self, *words: str) -> list[str]:
        log4j = Path(__file__).with_name("log4j2.properties")
        # A broker that lives for minutes beside the rest on a few cores: the optimizing compiler and a concurrent
        # collector would take more from the others than they give back (half a core for its first minutes).
        options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"]
        options += [f"-Xmx{self._heap_mb}m", f"-Xms{min(256, self._heap_mb)}m"]
        return [java(), *options, f"-Dlog4j2.configurationFile={log4j}", "-cp", f"{kafka_jars()}/*", *words]

    def _answers(self) -> bool:
        """True once the broker serves metadata: an open port alone may refuse the first requests."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        quiet: dict[str, str | int | float | bool] = {
            "bootstrap.servers": self.bootstrap,
            "log_level": 0,
            "socket.connection.setup.timeout.ms": 1000,
        }
        try:
            return bool(AdminClient(quiet, logger=_SILENT).list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def _write_config(self) -> Path:
        listeners = {"PLAINTEXT": Listener("PLAINTEXT", self.port, self._advertised_port), **self._listeners}
        bound = {name: f"{name}://127.0.0.1:{listener.port}" for name, listener in listeners.items()}
        told = {name: f"{name}://127.0.0.1:{of.advertised_port or of.port}" for name, of in listeners.items()}
        protocols = {"CONTROLLER": "PLAINTEXT", **{name: of.protocol for name, of in listeners.items()}}
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join([*bound.values(), f"CONTROLLER://127.0.0.1:{self._controller_port}"]),
            "advertised.listeners": ",".join(told.values()),
            "listener.security.protocol.map": ",".join(map(":".join, protocols.items())),
            "log.dirs": str((self.folder / "data").resolve()),
            "auto.create.topics.enable": "false",
            "message.max.bytes": str(MESSAGE_BYTES_MAX),
            "replica.fetch.max.bytes": str(MESSAGE_BYTES_MAX),
            # one node: every internal topic has one replica, and few partitions start faster
            "offsets.topic.num.partitions": "4",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            # a broker that comes back after SIGKILL is let in again only when its old session has run out (default 9 s)
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "500",
            "group.initial.rebalance.delay.ms": "0",
            # the coordinator gathers offset commits and transaction markers for this long: each batch would wait twice
            "group.coordinator.append.linger.ms": "0",
            "group.coordinator.rebalance.protocols": "classic,consumer",
            **self._settings,
        }
        path = self.folder / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        return path


class _Silent:
    """A logger for clients that are expected to fail to connect."""

    def log(self, *_: object) -> None:
        return None


_SILENT = _Silent()


def main() -> None:
    parser = argparse.ArgumentParser(description="Run one Kafka broker (KRaft) until Ctrl-C.")
    parser.add_argument("--folder", type=Path, default=Path("build/kafka"))
    parser.add_argument("--port", type=port_number, default=9092)
    parser.add_argument("--app", default="sql/jd", help="folder of the application whose topics are made")
    arguments = parser.parse_args()
    try:
        topics = topics_of(TopicNames.of(load_app(app_folder(arguments.app)), {}))
    except ConfigError as error:
        parser.exit(2, f"deploy.kafka.broker: {error}\n")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        one_line("deploy.kafka.broker"),
        contextlib.suppress(KeyboardInterrupt),
        Broker(arguments.folder, arguments.port) as broker,
    ):
        broker.create_topics(topics, {"retention.ms": "-1"})  # events that are sent again may be years old
        print(f"Kafka at {broker.bootstrap}, pid {os.getpid()}, log {broker.folder / 'kafka.log'}")
        print(f"topics: {', '.join(topics)}", flush=True)
        while True:
            signal.pause()


if __name__ == "__main__":
    main()
