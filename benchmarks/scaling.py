"""What an event costs each part, at 1, 2 and 4 workers × partitions, and what a rate needs: `make bench-scaling`.

    python -m benchmarks.scaling [--events N] [--workers N …] [--partitions N …] [--rounds N] [--json FILE]
                                 [--per-s N] [--keys N] [--kept N]

One real Kafka and two Tritons (a constant model, which the scorers ask; the demo's network, asked by itself). Each run
has topics and a group of its own. `jd-intent-score run --workers N` is started first; once all workers are ready, the
events are sent, as fast as they go. The rate is by the broker's times of the scores; the CPU of scorers, broker and
Triton is what they spend from the first event sent to the last score read. All of it shares this machine's cores: the
rate of several workers says what these cores do, the CPU of an event is what the arithmetic goes on with:

    cores   = rate × CPU of an event / 0.7: the rest is for bursts, and for a host that is lost
    scorers = rate / (what one alone does × 0.7)

`--per-s`, `--keys` and
`--kept` (events of a key that its windows still hold) are what the last table is for.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from batch.replay import Message, Replay
from batch.world.generate import generate_world
from batch.world.tutorial_replay import period
from benchmarks.rig import (
    BATCH,
    constant_artifact,
    decoded,
    filled_store,
    machine,
    net_artifact,
    rate,
    scorer_config,
    send,
    written,
)
from benchmarks.sample import jd
from benchmarks.start import cpu_s
from deploy.environments import REPOSITORY
from deploy.kafka.broker import Broker, topics_of
from deploy.process import Process, free_ports
from deploy.triton.server import Triton
from streaming.app.topics import TopicNames
from streaming.model.encoder import Encoder
from streaming.model.triton import Model

__all__: list[str] = []

USED = 0.7  # of a core at most: the rest is for bursts, and for a host that is lost
REPLICAS = 3
BROKER_MB_S = 300  # what one broker's disk and network are trusted with, in and out together
NET_S = 5.0
READY_S = 120.0

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True)
class Run:
    """One run: events a second, and CPU in µs an event of the scorers, the broker and Triton."""

    workers: int
    partitions: int
    per_s: float
    scorers_us: float
    broker_us: float
    triton_us: float


@dataclass(frozen=True)
class Costs:
    """Of an event.

    Attributes:
        alone_per_s: events a second of one scorer, which leaves cores idle here: it waits for itself.
        scorer_us, broker_us: CPU.
        net_us: CPU of Triton with the demo's network.
        event_bytes, score_bytes: in the broker's log.
        state_bytes: what its rows take of a scorer's memory.
    """

    alone_per_s: float
    scorer_us: float
    broker_us: float
    net_us: float
    event_bytes: float
    score_bytes: float
    state_bytes: float


def family_cpu_s(pid: int) -> float:
    """CPU seconds of a process and of those below it that live."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return cpu_s(pid) + sum(family_cpu_s(int(child)) for child in children)


def log_bytes(folder: Path, topic: str) -> int:
    """Of all partitions of a topic."""
    return sum(file.stat().st_size for file in folder.glob(f"**/{topic}-*/*.log"))


@dataclass(frozen=True)
class Stage:
    """What all runs share."""

    folder: Path
    broker: Broker
    triton: Triton
    artifact: Path
    actions: Sequence[Message]

    def run(self, number: int, workers: int, partitions: int) -> Run:
        """Scores the actions out of a topic of so many partitions."""
        run = f"{number}-{workers}-{partitions}"
        name, events, port, count = f"scores-{run}", f"actions-{run}", free_ports(1)[0], len(self.actions)
        self.broker.create_topics({name: partitions}, {"message.timestamp.type": "LogAppendTime"})
        self.broker.create_topics({events: partitions})
        config = scorer_config(
            self.folder / f"{name}.toml",
            self.broker.bootstrap,
            self.triton.grpc_url,
            self.artifact,
            events,
            name,
            port,
            'instance_id = "one"',
        )
        argv = [sys.executable, "-m", "streaming", "run", "--config", str(config)]
        argv += ["--workers", str(workers)] if workers > 1 else []
        if self.broker.process is None:
            raise SystemExit("the broker does not run")
        with Process("the scorers", argv, self.folder / f"{name}.log", cwd=REPOSITORY) as process:
            parts = (process.popen.pid, self.broker.process.popen.pid, self.triton.process.popen.pid)
            process.wait_ready(lambda: _is_ready(port), READY_S)
            before = [family_cpu_s(pid) for pid in parts]
            send(self.broker, list(self.actions), {self.actions[0].topic: events})
            times = list(written(self.broker.bootstrap, name, count))
            spent = [family_cpu_s(pid) - cpu for pid, cpu in zip(parts, before, strict=True)]
        return Run(workers, partitions, rate(times), *(cpu / count * 1e6 for cpu in spent))


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return True
    except OSError:
        return False


def net_us(artifact: Path, triton: Triton) -> tuple[float, float]:
    """CPU in µs a row of Triton with the demo's network, and rows a second of its instance, two batches under way."""
    fields = len(Encoder.load(artifact / "encoder").fields)
    ids = np.random.default_rng(1).integers(0, 2**62, (BATCH, fields), dtype=np.int64)
    rows = 0
    with Model(triton.grpc_url, timeout_s=60.0) as model:
        model.score(ids)
        began, cpu = time.perf_counter(), family_cpu_s(triton.process.popen.pid)
        ahead = model.submit(ids)
        while time.perf_counter() - began < NET_S:
            ahead, ready = model.submit(ids), ahead
            rows += len(ready.result().probabilities)
        rows += len(ahead.result().probabilities)
        spent = family_cpu_s(triton.process.popen.pid) - cpu
        return spent / rows * 1e6, rows / (time.perf_counter() - began)


def state_bytes(replay: Replay, actions: Sequence[Message]) -> float:
    """Bytes of a scorer's tables and texts that an event adds."""
    store = filled_store(replay.dimensions)

    def size() -> int:
        return sum(bytes_ for _, bytes_ in store.sizes().values())

    empty = size()
    for at in range(0, len(actions), BATCH):
        store.answer(decoded(list(actions[at : at + BATCH])))
    return (size() - empty) / len(actions)


def needs(costs: Costs, per_s: float, keys: float, kept: float) -> list[tuple[str, str, str]]:
    """What a rate needs: the part, how many, and out of what."""
    scorers = math.ceil(per_s / (costs.alone_per_s * USED))
    scorer_cores = per_s * costs.scorer_us / 1e6 / USED
    partitions = 2 * scorers
    broker_cores = per_s * costs.broker_us * REPLICAS / 1e6 / USED
    # Each byte is written by all replicas, fetched by the others and by one reader.
    mb_s = per_s * (costs.event_bytes + costs.score_bytes) * (2 * REPLICAS) / 1e6
    triton = per_s * costs.net_us / 1e6 / USED
    memory = keys * kept * costs.state_bytes
    transactions, each = per_s / BATCH, partitions / scorers + 1
    return [
        ("scorers", f"{scorers:,}", f"one alone did {costs.alone_per_s:,.0f} events/s"),
        ("scorers, cores", f"{math.ceil(scorer_cores):,}", f"{costs.scorer_us:.1f} µs an event"),
        ("partitions of events", f"{partitions:,}", "two for each scorer"),
        ("Triton, cores", f"{math.ceil(triton):,}", f"{costs.net_us:.1f} µs a row, the demo's network"),
        ("brokers, cores", f"{math.ceil(broker_cores):,}", f"{costs.broker_us:.1f} µs an event × {REPLICAS} replicas"),
        (
            f"brokers of {BROKER_MB_S} MB/s",
            f"{math.ceil(mb_s / BROKER_MB_S):,}",
            f"{costs.event_bytes:.0f} + {costs.score_bytes:.0f} bytes, {REPLICAS} replicas: {mb_s:,.0f} MB/s",
        ),
        ("transactions a second", f"{transactions:,.0f}", f"full batches of {BATCH:,}"),
        (
            "markers a second",
            f"{transactions * each:,.0f}",
            f"scores and events of as many partitions: {each:.0f} a transaction, one of them for the offsets",
        ),
        (
            "memory of the scorers",
            f"{memory / 2**30:,.0f} GiB",
            f"{costs.state_bytes:.0f} bytes an event × {kept:,.0f} kept × {keys:,.0f} keys",
        ),
        ("and each of them", f"{memory / 2**30 / scorers:,.1f} GiB", "besides all dimensions"),
    ]


def show(runs: Sequence[Run], costs: Costs, rows_s: float, words: argparse.Namespace) -> None:
    """The runs' medians, and what the rate needs."""
    table = Table("workers", "partitions", "events/s", "least–most", "scorers µs", "broker µs", "Triton µs", "cores")
    for workers, partitions in dict.fromkeys((run.workers, run.partitions) for run in runs):
        of = [run for run in runs if (run.workers, run.partitions) == (workers, partitions)]
        per_s = statistics.median(run.per_s for run in of)
        us = [statistics.median(getattr(run, name) for run in of) for name in ("scorers_us", "broker_us", "triton_us")]
        table.add_row(
            str(workers),
            str(partitions),
            f"{per_s:,.0f}",
            f"{min(run.per_s for run in of):,.0f}–{max(run.per_s for run in of):,.0f}",
            *(f"{one:.1f}" for one in us),
            f"{per_s * sum(us) / 1e6:.2f}",
        )
    console.print(table)
    console.print(f"the demo's network in Triton: {costs.net_us:.1f} µs a row, {rows_s:,.0f} rows/s of one instance")
    table = Table(f"for {words.per_s:,.0f} events/s", "", "out of")
    for row in needs(costs, words.per_s, words.keys, words.kept):
        table.add_row(*row)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--partitions", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--per-s", type=float, default=1e6, help="the rate to plan for")
    parser.add_argument("--keys", type=float, default=50e6, help="how many keys there are")
    parser.add_argument("--kept", type=float, default=40, help="events of a key that are kept")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate_world(folder / "data", users=max(200, words.events // 25), seed=1)
        replay = period(folder / "data", 0, 2**62)
        actions = replay.events[: words.events]
        constant = constant_artifact(folder / "constant", replay)
        net = net_artifact(folder / "net", constant)
        with Triton(net / "triton", folder / "triton-net") as triton:
            of_net, rows_s = net_us(net, triton)
        runs = []
        with Broker(folder / "kafka") as broker, Triton(constant / "triton", folder / "triton") as triton:
            broker.create_topics(topics_of(TopicNames.of(jd(), {})))
            send(broker, replay.dimensions, {})
            stage = Stage(folder, broker, triton, constant, actions)
            for number in range(words.rounds):
                for partitions in words.partitions:
                    runs += [stage.run(number, workers, partitions) for workers in words.workers]
                console.print(f"round {number + 1} of {words.rounds} done")
            first = f"0-{words.workers[0]}-{words.partitions[0]}"
            events, scores = (
                log_bytes(folder / "kafka", f"{topic}-{first}") / len(actions) for topic in ("actions", "scores")
            )
        alone = [run for run in runs if run.workers == min(words.workers)]
        costs = Costs(
            statistics.median(run.per_s for run in alone),
            statistics.median(run.scorers_us for run in alone),
            statistics.median(run.broker_us for run in alone),
            of_net,
            events,
            scores,
            state_bytes(replay, actions),
        )
    show(runs, costs, rows_s, words)
    if words.json:
        told = {"events": len(actions), "costs": asdict(costs), "net_rows_s": rows_s, "runs": [asdict(r) for r in runs]}
        words.json.write_text(json.dumps({**machine(), **told}, indent=1))


if __name__ == "__main__":
    main()
