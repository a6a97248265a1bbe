"""One scorer over an OpenMLDB cluster: events per second out of a flood, and how long a score takes at steady rates.

    python -m benchmarks.cluster --zk HOST:PORT [--zk-path PATH] [--rounds N] [--seconds S] [--per-s N ...] [--flood N]

Beside it, in the same run and over the same client, what the cluster does by itself: a request alone, requests in calls
of 500, rows inserted over as many connections as the scorer has. The model answers 0.5; the events are a made world's
in their order, so a user's come in sessions, and wait for each other. Latencies count from the moment when an event was
due to the moment when a `read_committed` subscriber has its score (`benchmarks.latency`). The database is one of the
run's own, and dropped at its end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from batch.replay import Message
from batch.world.generate import generate_world
from batch.world.tutorial_replay import period
from benchmarks.latency import PARTITIONS, Load, Subscriber, System, gaps, measure, stages
from benchmarks.rig import constant_artifact, decoded, machine, scorer_config, send
from benchmarks.sample import jd
from deploy.demo.cluster import DemoCluster
from deploy.kafka.broker import Broker, topics_of
from deploy.process import Process, free_ports
from deploy.triton.server import Triton
from streaming.app.topics import TopicNames
from streaming.config import OpenMLDB, Store
from streaming.store.open import open_cluster
from streaming.store.openmldb.parts import parts_of

__all__: list[str] = []

REPOSITORY = Path(__file__).resolve().parent.parent
ALONE, CALL = 50, 500  # requests, one by one; and in one call
INSERTED = 2_000  # events whose rows are inserted

console = Console(highlight=False)


@dataclass
class Round:
    """What was measured, once.

    Attributes:
        alone_ms: of a request alone.
        requests_per_s: in calls of `CALL`.
        rows_per_s: inserted over all connections of the scorer.
        flood_per_s: events that the scorer did out of a flood.
        latencies: by events per second, p50 and p99 in milliseconds.
        stages: by load, milliseconds per batch by stage; and events per batch.
    """

    alone_ms: float = 0.0
    requests_per_s: float = 0.0
    rows_per_s: float = 0.0
    flood_per_s: float = 0.0
    latencies: dict[int, tuple[float, float]] = field(default_factory=dict)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)


class Bench:
    """A cluster, a broker, a scorer; events that nobody has sent yet."""

    def __init__(self, cluster: DemoCluster, load: Load, subscriber: Subscriber, system: System) -> None:
        self.cluster, self.load, self.subscriber, self.system = cluster, load, subscriber, system

    def bare(self, events: Sequence[Message], into: Round) -> None:
        """What the cluster does by itself. The events' rows get in."""
        app = self.cluster.app
        settings = Store(kind="openmldb", openmldb=OpenMLDB(zk=self.cluster.zk, zk_path=self.cluster.zk_path))
        batch = decoded(list(events))
        requests = batch.rows[app.main]
        with open_cluster(settings, app) as client:
            client.request(requests.slice(0, 1))
            took = []
            for number in range(ALONE):
                began = time.perf_counter()
                client.request(requests.slice(number, 1))
                took.append(time.perf_counter() - began)
            into.alone_ms = statistics.median(took) * 1000
            began = time.perf_counter()
            for first in range(0, requests.num_rows - CALL + 1, CALL):
                client.request(requests.slice(first, CALL))
            into.requests_per_s = requests.num_rows // CALL * CALL / (time.perf_counter() - began)
            parts = parts_of(app.query.contract, batch.rows, client.connections, client.part_rows_min)
            client.insert_parts([(table, rows.slice(0, 1)) for table, rows in parts])
            began = time.perf_counter()
            client.insert_parts(parts)
            into.rows_per_s = sum(rows.num_rows for _, rows in parts) / (time.perf_counter() - began)

    def scored(self, name: str, gaps_s: np.typing.NDArray[np.float64], into: Round) -> np.typing.NDArray[np.float64]:
        """Latencies of events that are sent with such gaps."""
        before = stages(self.system)
        latencies = measure(self.load, self.subscriber, self.system, gaps_s)
        after = stages(self.system)
        spent = {s: (a - before.get(s, (0, 0))[0], b - before.get(s, (0, 0))[1]) for s, (a, b) in after.items()}
        into.stages[name] = {s: seconds / count * 1000 for s, (seconds, count) in spent.items() if count}
        into.stages[name]["events per batch"] = len(gaps_s) / max(1, spent.get("publish", (0, 0))[1])
        return latencies


def one_round(bench: Bench, number: int, words: argparse.Namespace, own: Sequence[Message]) -> Round:
    """Everything once.

    Args:
        own: events for the cluster by itself.
    """
    found = Round()
    bench.bare(own, found)
    latencies = bench.scored("flood", np.full(words.flood, 1e-9), found)
    found.flood_per_s = len(latencies) / (float(latencies.max()) / 1000)
    for per_s in words.per_s:
        latencies = bench.scored(f"{per_s}/s", gaps(per_s, words.seconds, number), found)
        found.latencies[per_s] = float(np.quantile(latencies, 0.5)), float(np.quantile(latencies, 0.99))
    return found


def show(rounds: Sequence[Round], rows_per_event: float) -> None:
    """Medians of the rounds, and their spread."""
    table = Table(title=f"One scorer over a cluster, medians of {len(rounds)} rounds")
    for name in ("what", "median", "rounds"):
        table.add_column(name, justify="left" if name == "what" else "right")

    def line(what: str, values: Sequence[float], form: str) -> None:
        table.add_row(what, format(statistics.median(values), form), f"{min(values):{form}} … {max(values):{form}}")

    line("cluster: a request alone, ms", [of.alone_ms for of in rounds], ".1f")
    line(f"cluster: requests/s in calls of {CALL}", [of.requests_per_s for of in rounds], ",.0f")
    line("cluster: rows inserted/s", [of.rows_per_s for of in rounds], ",.0f")
    line("scorer: events/s out of a flood", [of.flood_per_s for of in rounds], ",.0f")
    bound = [1 / (1 / of.requests_per_s + rows_per_event / of.rows_per_s) for of in rounds]
    shares = [of.flood_per_s / most for of, most in zip(rounds, bound, strict=True)]
    line("… / what the cluster takes and answers, one after the other", shares, ".2f")
    for per_s in rounds[0].latencies:
        line(f"scorer: {per_s}/s, p50 ms", [of.latencies[per_s][0] for of in rounds], ".0f")
        line(f"scorer: {per_s}/s, p99 ms", [of.latencies[per_s][1] for of in rounds], ".0f")
    console.print(table)
    for name, spent in rounds[-1].stages.items():
        console.print(f"{name}: ms per batch: {', '.join(f'{stage} {value:.1f}' for stage, value in spent.items())}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zk", required=True, metavar="HOST:PORT", help="ZooKeeper of the cluster")
    parser.add_argument("--zk-path", default="/openmldb")
    parser.add_argument("--rest", default="", metavar="URL", help="the scorer goes over this API server of the cluster")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each rate lasts; default: 10")
    parser.add_argument("--per-s", type=int, nargs="*", default=[100, 300], help="steady rates; default: 100 300")
    parser.add_argument("--flood", type=int, default=5_000, help="events of the flood; default: 5,000")
    parser.add_argument("--users", type=int, default=3_000, help="of the world; more is a longer stream")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    words = parser.parse_args()
    cluster = DemoCluster.prepared(words.zk, words.zk_path, REPOSITORY / "sql" / "jd")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        generate_world(folder / "data", users=words.users, seed=1)
        replay = period(folder / "data", 0, 2**62)
        needed = words.rounds * (words.flood + sum(int((words.seconds + 2) * n) for n in words.per_s) + INSERTED) + 2000
        if needed > len(replay.events):
            parser.error(f"--users {words.users} make {len(replay.events):,} events, {needed:,} are needed")
        own, events = replay.events[: words.rounds * INSERTED], replay.events[words.rounds * INSERTED :]
        artifact = constant_artifact(folder / "artifact", replay)
        broker = stack.enter_context(Broker(folder / "kafka"))
        triton = stack.enter_context(Triton(artifact / "triton", folder / "triton", private=True))
        broker.create_topics(topics_of(TopicNames.of(jd(), {})))
        send(broker, replay.dimensions, {})
        system = System("scorer", "events", "scores", free_ports(1)[0])
        broker.create_topics(dict.fromkeys((system.events, system.scores), PARTITIONS))
        config = scorer_config(
            folder / "scorer.toml",
            broker.bootstrap,
            triton.grpc_url,
            artifact,
            system.events,
            system.scores,
            system.port,
        )
        without = config.read_text()
        config.write_text(without + cluster.table())
        argv = [sys.executable, "-m", "streaming", "deploy", "--config", str(config)]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        stack.callback(cluster.drop, console.print)
        if words.rest:
            store = f'[store]\nkind = "openmldb-rest"\ndatabase = "{cluster.database}"\n'
            table = f'{store}[store.rest]\nurl = "{words.rest}"\n'
            config.write_text(without + table)
        argv = [sys.executable, "-m", "streaming", "run", "--config", str(config)]
        stack.enter_context(Process("the scorer", argv, folder / "scorer.log", cwd=REPOSITORY))
        subscriber = Subscriber(broker.bootstrap, [system.scores])
        stack.callback(subscriber.close)
        bench = Bench(cluster, Load(broker.bootstrap, events), subscriber, system)
        bench.scored("warm-up", gaps(100, 4.0, 0), Round())
        rounds = []
        for number in range(words.rounds):
            rounds.append(one_round(bench, number, words, own[number * INSERTED : (number + 1) * INSERTED]))
            console.print(f"round {number + 1} of {words.rounds} done")
    batch = decoded(list(own[:INSERTED]))
    show(rounds, sum(rows.num_rows for rows in batch.rows.values()) / len(batch))
    if words.json:
        words.json.write_text(json.dumps({**machine(), "rounds": [vars(of) for of in rounds]}, indent=1))


if __name__ == "__main__":
    main()
