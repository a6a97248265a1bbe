"""Restart with a large state: `python -m benchmarks.restart [--rows N …]` (`make bench-restart`).

A real Kafka and Triton; a topic of actions that were scored already (their offsets are committed), two rows of state
each. The scorer is started as a process: seconds from its start to the first 200 of /readyz, once from the log alone
and once, killed, from the snapshot that it has taken meanwhile; in brackets the seconds of CPU that the process used
until then, which a busy machine does not change as much. Beside it the snapshot's size, the seconds that it took, and
the longest that the flow waited for it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from rich.console import Console
from rich.table import Table

from batch.world.generate import generate_world
from batch.world.tutorial_replay import period
from benchmarks.rig import constant_artifact, scorer_config
from benchmarks.sample import jd
from deploy.kafka.broker import Broker, topics_of
from deploy.process import Process, free_ports
from deploy.triton.server import Triton
from streaming.app.topics import TopicNames

REPOSITORY = Path(__file__).resolve().parents[1]
PARTITIONS = 4
START_MS = 1_459_419_080_000
SNAPSHOT = "snapshot written"
PATIENCE_S = 1_800.0

console = Console(highlight=False)


def actions(count: int, seed: int = 1) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of actions: users come back about 40 times, one in twenty actions is late."""
    random = np.random.default_rng(seed)
    for first in range(0, count, 100_000):
        n = min(100_000, count - first)
        users = random.integers(0, max(count // 40, 100), n).tolist()
        skus = random.integers(0, 30_000, n).tolist()
        late = np.where(random.random(n) < 0.05, random.integers(0, 3_600_000, n), 0)
        times = (START_MS + np.arange(first, first + n) * 100 - late).tolist()
        for user, sku, at in zip(users, skus, times, strict=True):
            yield (
                b"%d" % user,
                b'{"user_id":"%d","sku_id":"%d","time":%d,"type":"1","model_id":"216","cate":"8","br":"545"}'
                % (user, sku, at),
            )


def fill(broker: Broker, topic: str, group: str, count: int) -> None:
    """Produces the actions, and commits that they were scored."""
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "linger.ms": 50,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
        }
    )
    for key, value in actions(count):
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(PATIENCE_S):
        raise SystemExit("the broker did not take the actions")
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": group})
    ends = [TopicPartition(topic, n) for n in range(PARTITIONS)]
    for end in ends:
        end.offset = consumer.get_watermark_offsets(end)[1]
    consumer.commit(offsets=ends, asynchronous=False)
    consumer.close()


@dataclass(frozen=True)
class Start:
    """Seconds until a process was ready, and what it used of the CPU until then."""

    wall_s: float
    cpu_s: float

    def __str__(self) -> str:
        return f"{self.wall_s:.1f} s ({self.cpu_s:.1f})"


def cpu_s(pid: int) -> float:
    """User and system time of a process, from Linux's /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def started(argv: list[str], log: Path, port: int) -> tuple[Process, Start]:
    """The scorer, once it is ready, and how long that took."""
    begin = time.monotonic()
    process = Process("the scorer", argv, log, cwd=REPOSITORY).__enter__()
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                    return process, Start(time.monotonic() - begin, cpu_s(process.popen.pid))
            except (urllib.error.URLError, OSError):
                if not process.running():
                    raise SystemExit(f"the scorer ended:\n{process.tail()}") from None
                if time.monotonic() - begin > PATIENCE_S:
                    raise SystemExit(f"the scorer was not ready after {PATIENCE_S:.0f} s") from None
                time.sleep(0.02)
    except BaseException:
        process.__exit__(None, None, None)
        raise


def measure(broker: Broker, triton: Triton, folder: Path, rows: int) -> tuple[Start, Start, dict[str, float]]:
    """Starts from the log and from the snapshot, and what the log says of the snapshot."""
    topic, group = f"actions-{rows}", f"restart-{rows}"
    broker.create_topics({topic: PARTITIONS, group: PARTITIONS})
    fill(broker, topic, group, rows // 2)
    port, config, log = free_ports(1)[0], folder / f"{rows}.toml", folder / f"{rows}.log"
    state = json.dumps(str(folder / f"state-{rows}"))
    more = f'instance_id = "one"\nstatic_membership = true\n[snapshots]\nfolder = {state}\nevery_s = 1.0'
    artifact = folder / "artifact"
    scorer_config(config, broker.bootstrap, triton.grpc_url, artifact, topic, group, port, more)
    argv = [sys.executable, "-m", "streaming", "run", "--config", str(config)]
    process, replayed = started(argv, log, port)
    with process:
        while SNAPSHOT not in log.read_text():
            time.sleep(0.1)
        process.kill()
    line = next(line for line in log.read_text().splitlines() if SNAPSHOT in line)
    told = {name: float(json.loads(line)[name]) for name in ("bytes", "rows", "seconds", "longest_pause_ms")}
    if told["rows"] < rows:
        raise SystemExit(f"the snapshot has {told['rows']:,.0f} of {rows:,} rows")
    log.unlink()
    process, restored = started(argv, log, port)
    with process:
        if "snapshot restored" not in log.read_text():
            raise SystemExit(f"it did not start from the snapshot:\n{process.tail()}")
    return replayed, restored, told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000, 10_000_000])
    arguments = parser.parse_args()
    table = Table(
        "rows of state", "from the log", "from a snapshot", "ratio", "snapshot", "written in", "longest pause"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate_world(folder / "data", users=200, seed=1)
        artifact = constant_artifact(folder / "artifact", period(folder / "data", 0, 2**62))
        with Broker(folder / "kafka") as broker, Triton(artifact / "triton", folder / "triton") as triton:
            broker.create_topics(topics_of(TopicNames.of(jd(), {})))
            for rows in arguments.rows:
                replayed, restored, told = measure(broker, triton, folder, rows)
                table.add_row(
                    f"{rows:,}",
                    str(replayed),
                    str(restored),
                    f"{replayed.wall_s / restored.wall_s:.1f}×",
                    f"{told['bytes'] / 2**20:,.0f} MiB",
                    f"{told['seconds']:.1f} s",
                    f"{told['longest_pause_ms']:.0f} ms",
                )
                console.print(f"{rows:,} rows: {replayed} from the log, {restored} from a snapshot")
    console.print(table)


if __name__ == "__main__":
    main()
