"""From the start of `jd-intent-score run` to its first committed score: `make bench-start`.

    python -m benchmarks.start [--rounds N] [--json FILE]

A real Kafka and Triton (a model that answers a constant); the topic holds one event more than the group has committed.
The scorer is started as a process, and a `read_committed` subscriber that polls all the while says when the score is
there: with warm kernels, round by round, and once with an empty folder for them, where all are compiled first. Beside
the seconds the CPU that process and children used until then, which a busy machine does not change as much; cold less
warm is what compiling costs. Python's bytecode is there, as pip leaves it in an installation: a first start, which is
not counted, makes it, whatever PYTHONDONTWRITEBYTECODE says to who measures.

The test broker gives partitions at once; Kafka's own `group.initial.rebalance.delay.ms` of 3 s comes on top for the
first scorer of a group in which nobody is.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

from confluent_kafka import Consumer, TopicPartition
from rich.console import Console

from batch.replay import Message
from batch.world.generate import generate_world
from batch.world.tutorial_replay import period
from benchmarks.rig import constant_artifact, machine, scorer_config, send
from benchmarks.sample import jd
from deploy.environments import REPOSITORY
from deploy.kafka.broker import Broker, topics_of
from deploy.process import Process, free_ports
from deploy.triton.server import Triton
from streaming.app.topics import TopicNames
from streaming.engine.native.warm import warm_up

__all__: list[str] = []

PARTITIONS = 2
PATIENCE_S = 300.0

console = Console(highlight=False)


def cpu_s(pid: int) -> float:
    """User and system time of a process and the children that it has waited for, from Linux's /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


class FirstScore:
    """A subscriber that stands at the end of a topic."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        settings = {"bootstrap.servers": bootstrap, "group.id": "first", "isolation.level": "read_committed"}
        self._consumer = Consumer({**settings, "enable.auto.commit": False, "fetch.wait.max.ms": 100})
        places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        for place in places:
            place.offset = self._consumer.get_watermark_offsets(place, timeout=10)[1]
        self._consumer.assign(places)
        self._consumer.poll(0.2)

    def wait(self, process: Process) -> None:
        """Until a score comes.

        Raises:
            SystemExit: the process ends first, or none comes.
        """
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            record = self._consumer.poll(0.05)
            if record is not None and record.error() is None:
                return
            if not process.running():
                raise SystemExit(f"the scorer ended:\n{process.tail()}")
        raise SystemExit(f"no score in {PATIENCE_S:.0f} s:\n{process.tail()}")

    def close(self) -> None:
        self._consumer.close()


def bytecode_in(folder: Path) -> dict[str, str]:
    """This process's environment, but for where Python keeps bytecode, and that it does."""
    rest = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**rest, "PYTHONPYCACHEPREFIX": str(folder)}


def start(broker: Broker, config: Path, event: Message, topic: str) -> tuple[float, float]:
    """Seconds, and seconds of CPU, from the process's start to the score of an event that waits for it."""
    send(broker, [event], {})
    first = FirstScore(broker.bootstrap, topic)
    began = time.monotonic()
    argv = [sys.executable, "-m", "streaming", "run", "--config", str(config)]
    environment = bytecode_in(config.with_name("bytecode"))
    with Process("the scorer", argv, config.with_suffix(".log"), environment, cwd=REPOSITORY) as process:
        first.wait(process)
        found = time.monotonic() - began, cpu_s(process.popen.pid)
    first.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    words = parser.parse_args()
    warm_up()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate_world(folder / "data", users=200, seed=1)
        replay = period(folder / "data", 0, 2**62)
        artifact = constant_artifact(folder / "artifact", replay)
        with Broker(folder / "kafka") as broker, Triton(artifact / "triton", folder / "triton") as triton:
            topics = TopicNames.of(jd(), {})
            broker.create_topics(topics_of(topics))
            send(broker, replay.dimensions, {})
            config = scorer_config(
                folder / "scorer.toml",
                broker.bootstrap,
                triton.grpc_url,
                artifact,
                topics.events[0],
                topics.scores,
                free_ports(1)[0],
                'instance_id = "one"',
            )
            events = iter(replay.events)
            start(broker, config, next(events), topics.scores)  # the group is made, and topics have leaders
            warm = [start(broker, config, next(events), topics.scores) for _ in range(words.rounds)]
            cache = folder / "cache"
            cache.mkdir()
            with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(cache)}):
                cold = start(broker, config, next(events), topics.scores)
    wall, cpu = (statistics.median(of) for of in zip(*warm, strict=True))
    low, high = min(at for at, _ in warm), max(at for at, _ in warm)
    console.print(f"warm: {wall:.2f} s to the first score ({low:.2f}–{high:.2f}), {cpu:.2f} s of CPU; goal 1.5 s")
    console.print(f"cold: {cold[0]:.1f} s, {cold[1]:.1f} s of CPU: {cold[1] - cpu:.1f} s compile; goal 10 s")
    if words.json:
        figures = {"warm": warm, "cold": cold, "columns": ["seconds", "cpu_s"]}
        words.json.write_text(json.dumps({**machine(), **figures}, indent=1))


if __name__ == "__main__":
    main()
