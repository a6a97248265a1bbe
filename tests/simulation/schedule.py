"""One schedule of the simulator: the shop that sends, the supervisor that starts and ends scorers, and the scorers."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import random
import re
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from confluent_kafka import KafkaException

from simulation.application import simulated_app
from simulation.bench import bench
from simulation.broker import Broker, Entry, Log, Place
from simulation.checks import check_output, named, output
from simulation.clients import SimulatedClients
from simulation.cluster import CLUSTER_FAULTS, LOST_S, Calls, Cluster
from simulation.servers import DeadlyDecoder, DeadlyStore, Model, simulated_disk
from simulation.workload import HORIZON_MS, TOPICS, has_deadly, has_repeats, is_deadly
from simulation.world import FAULTS, Defect, Flag, Process, Stuck, Task, Work, World
from streaming.app.inputs import InputDecoder
from streaming.config import Events
from streaming.errors import LogNotWhole, ScorerError
from streaming.kafka.connection import Connection
from streaming.kafka.dimension_source import DimensionSource
from streaming.kafka.event_source import EventSource
from streaming.kafka.lineage import Lineages
from streaming.kafka.output import open_output
from streaming.kafka.topics import Topics
from streaming.loop.kept_state import KeptState
from streaming.loop.poison.detection import open_poison
from streaming.loop.runtime import Runtime
from streaming.loop.scorer import Scorer
from streaming.ops.health import Health
from streaming.state.snapshots import Snapshots
from streaming.store.embedded import EmbeddedStore
from streaming.store.openmldb.cluster import ClusterStore

__all__ = ["PROCESSES", "REFUSALS_MAX", "Schedule"]

PROCESSES = 2
WORKLOADS = 32  # streams of events, whose truth is computed once each
TROUBLE_S = 40.0  # simulated; faults end then
REPORT_S = 5.0  # nobody looks at it
REFUSALS_MAX = 6  # of starts: then a schedule counts as refused for good
MEMORY = Path("/dev/shm")  # snapshots of a schedule live there: the disk is not what is tested
HARMS = {
    "retention": "are gone|out of range|begins at",
    "topic made anew": "made anew",
    "partition added": "had 3 partitions and has 4",
    "group deleted": "has no offset of",
}
"""What is done to the log or the group in some schedules, and what a scorer that refuses to go on must say then."""


class Schedule:
    """One seed: the shop, the supervisor and the scorers.

    Args:
        mutate: changes each scorer before it runs, to see that a wrong one is caught.
        snapshots: whether snapshots are taken; default: the seed says it.
        harm: what is done to the log; "": nothing; default: the seed says it.
        delivery: `kafka.delivery`.
        store: `store.kind`: "embedded", or "openmldb": a cluster, which takes no snapshots and leaves out no repeats.
    """

    def __init__(
        self,
        seed: int,
        faults: bool | Mapping[str, float],
        mutate: Callable[[Scorer], None],
        snapshots: bool | None = None,
        harm: str | None = None,
        delivery: str = "exactly_once",
        store: str = "embedded",
    ) -> None:
        self.world = World(seed, faults, FAULTS if store == "embedded" else FAULTS | CLUSTER_FAULTS)
        self.delivery, self.store, self.app = delivery, store, simulated_app(store)
        self.cluster = None if store == "embedded" else Cluster(bench().take())
        self.broker = Broker(self.world, TOPICS, eager=self.world.random.random() < 0.3)
        self.clients, self.disk = SimulatedClients(self.broker), simulated_disk(self.world)
        self.form = "structured" if seed % 2 else "binary"  # no draw: seeds of before name the same schedules
        self.number = seed % WORKLOADS
        self.workload = bench().workload(self.number)
        all_taken = bench().truth(self.number, frozenset(), store)
        self.horizon_ms = HORIZON_MS if has_repeats(self.number) and self.cluster is None else 0
        self.refused_rows = sum(place[0] != "actions" for place, _ in all_taken.refused)
        self.deadly = has_deadly(self.number)
        self.mutate = mutate
        luck = random.Random(seed)
        mended_at = luck.uniform(0.0, TROUBLE_S / 2) if luck.random() < 0.5 else 0.0
        # What a batch that came through in part has left is repeated by a scorer of the same settings, or is another.
        self.mended_at = mended_at if delivery == "exactly_once" else 0.0
        self.action_logs = [(place, log) for place, log in self.broker.logs.items() if place[0] == "actions"]
        self.messages_max = self.world.random.choice((2, 3, 5, 8, 20))
        self.scorers: dict[str, tuple[Process, Flag, Task, Scorer | None]] = {}
        self.stores: list[EmbeddedStore] = []
        self.sent = False
        self.given: list[Entry] = []  # actions that were sent
        # A quarter of the schedules take snapshots, far more often than anybody would.
        drawn = self.world.random.random() < 1 / 4
        self._folder = TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        snapshots = (drawn and self.cluster is None) if snapshots is None else snapshots
        self.folder = Path(self._folder.name) if snapshots else None
        # In an eighth of the schedules something is done to the log: then scorers may refuse, but never be wrong.
        kinds = [kind for kind in HARMS if self.folder or kind != "group deleted"]
        drawn_harm = luck.choice(kinds) if luck.random() < 1 / 8 and faults else ""
        self.harm = drawn_harm if harm is None else harm
        self.harm_at = luck.uniform(0.0, 8.0)
        self.harmed = self.holds = False
        self.refusals = 0
        self.moved: Place | None = None

    def run(self) -> None:
        world = self.world
        with world.draws_jitter():
            self._append(self.workload.dimensions)
            if self.cluster is not None:
                self._load(self.cluster)
            keeper = Process("world")
            world.spawn(keeper, self._shop)
            world.spawn(keeper, self._supervise)
            try:
                world.run(self._over)
            except Stuck:
                self._check(whole=not self.harmed)  # what is missing says more
                raise
            else:
                self._check(whole=self.refusals < REFUSALS_MAX)
            finally:
                for process, *_ in self.scorers.values():
                    world.kill(process)
                    world.bury(process)
                self._folder.cleanup()
                for store in self.stores:
                    store.clear()
                    store.load_history()
                bench().stores[self.horizon_ms] += self.stores
                if self.cluster is not None:
                    bench().stores[0].append(self.cluster.engine)

    def _load(self, cluster: Cluster) -> None:
        """As `jd-intent-score load` does before the first scorer: over a cluster one of them reads the dimension
        topics, and the others do not wait for it."""
        decoder = InputDecoder(self.app, Events(), bench().topics)
        events, _ = decoder.decode([entry for entry in self.workload.dimensions if not is_deadly(entry)])
        for table, rows in events.rows.items():
            cluster.insert(table, rows, at=-math.inf)

    def _check(self, *, whole: bool) -> None:
        once = self.delivery == "exactly_once"
        check_output(self.broker, self.number, whole=whole, once=once, store=self.store)

    def _over(self) -> bool:
        """All is answered; or all refuse, which they must after most harms."""
        if self.refusals >= REFUSALS_MAX:
            return True
        answered = self.world.calm and self.sent and self._answered()
        return answered and (not self.harmed or self.harm == "retention")

    def _append(self, entries: list[Entry], gaps: Mapping[int, int] = types.MappingProxyType({})) -> None:
        for number, entry in enumerate(entries):
            log = self.broker.logs[entry.place]
            log.append(entry)
            log.end += gaps.get(number, 0)

    def _shop(self) -> None:
        """Sends the actions in bursts and singly."""
        world, left = self.world, list(zip(self.workload.actions, self.workload.gaps, strict=True))
        later = list(self.workload.later)
        while left or later:
            count = world.random.choice((1, 2, 6, 12))
            for entry, gap in left[:count]:
                if self.moved and entry.key() in (b"0", b"1"):
                    entry = dataclasses.replace(entry, place=self.moved)  # noqa: PLW2901 - as a producer has it now
                self._append([entry], {0: gap})
                self.given.append(entry)
            del left[:count]
            if later and world.random.random() < 0.3:
                self._append([later.pop(0)])
            world.sleep(world.random.choice((0.0, 0.01, 0.5, 5.0)))
        self.sent = True

    def _supervise(self) -> None:
        """Starts what has ended; ends the trouble."""
        world = self.world
        while True:
            if 0 < self.mended_at <= world.now:
                self.mended_at = 0.0
                world.tell("the scorers are mended")
                for process, *_ in self.scorers.values():
                    world.kill(process)
            harm_to_come = self.harm and not self.harmed
            if not world.calm and (world.now > TROUBLE_S or (self.sent and self._answered() and not harm_to_come)):
                world.calm = True
                world.tell("no more faults")
            if harm_to_come and world.now > self.harm_at and (self.holds or not world.calm):
                self.harmed = self._do_harm()
            for number in range(0 if self.holds else PROCESSES):
                name = f"scorer-{number}"
                if name not in self.scorers:
                    self._start(name)
                    continue
                process, stop, task, _ = self.scorers[name]
                if process.dead:
                    world.bury(process)
                elif not task.done:
                    if world.luck("stop"):
                        stop.set()
                    continue
                else:
                    world.kill(process)  # its hung threads end with it
                    world.bury(process)
                self._start(name)
            world.sleep(world.random.choice((0.2, 2.0)))

    def _do_harm(self) -> bool:
        """False: not yet."""
        broker, luck = self.broker, self.world.random
        noted = {topic for topic, _ in broker.notes}
        if "actions" not in noted or len(noted) == 1:
            return False  # nobody has begun yet: whatever is done now is how it was before
        match self.harm:
            case "retention":
                lows = {place: luck.randint(0, self._not_needed(place, log)) for place, log in self.action_logs}
                if not any(lows.values()):
                    return False
                for place, low in lows.items():
                    broker.logs[place].trim(low)
                self.world.tell(f"broker: retention {lows}")
            case "topic made anew":
                broker.make_anew("actions")
                self.action_logs = [(place, log) for place, log in broker.logs.items() if place[0] == "actions"]
                # Filled past the old offsets, with other records at them.
                self._append([dataclasses.replace(entry) for entry in reversed(self.given)])
            case "partition added":
                self.moved = broker.add_partition("actions")
            case "group deleted":
                return self._delete_group()
        return True

    def _not_needed(self, place: Place, log: Log) -> int:
        """Up to where retention may delete: what is committed. Over a cluster only what is in it for good: who comes
        after a scorer that hangs inserts from the log what that one owed."""
        committed = self.broker.committed.get(place, 0)
        if self.cluster is None:
            return committed
        kept = self.cluster.kept(self.world.now - LOST_S)
        events, _ = InputDecoder(self.app, Events(), bench().topics).decode(
            [entry for entry in log.entries if entry.at < committed and not is_deadly(entry)]
        )
        requests = events.rows.get(self.app.main)
        if requests is None:
            return committed
        names = requests[self.app.settings.request.id].to_pylist()
        owed = [
            events.records[of].offset()
            for of, name in zip(events.events_of[self.app.main].tolist(), names, strict=True)
            if name not in kept
        ]
        return int(min([committed, *owed]))

    def _delete_group(self) -> bool:
        """Ends all scorers, waits until the group has missed them, and deletes it; only where all have snapshots."""
        broker = self.broker
        if not self.holds:
            if not all(map(self._has_snapshot, range(PROCESSES))):
                return False
            self.holds = True
            for process, *_ in self.scorers.values():
                self.world.kill(process)
        if broker.members or broker.open:
            broker.expire()
            return False
        broker.delete_group()
        self.holds = False
        return True

    def _has_snapshot(self, number: int) -> bool:
        """Of some action, at least."""
        manifests = sorted(Path(self._folder.name, f"scorer-{number}").glob("snapshot-*/manifest.json"))
        stands = json.loads(manifests[-1].read_text())["snapshot"]["actions"] if manifests else []
        return any(offset > 0 for *_, offset in stands)

    def _start(self, name: str) -> None:
        process, stop = Process(name), Flag(self.world)
        task = self.world.spawn(process, lambda: self._scorer(name, process, stop))
        self.scorers[name] = process, stop, task, None
        self.world.tell(f"{name}: starts")

    def _scorer(self, name: str, process: Process, stop: Flag) -> None:
        """What `streaming.loop.run` does, and how it may end."""
        config = bench().config(name, self.messages_max, not self.mended_at)
        kafka = config.kafka.model_copy(update={"delivery": self.delivery, "cloudevents": self.form})
        kept = config.store.model_copy(update={"kind": self.store, "give_up_after_s": 30.0})
        config = config.model_copy(update={"kafka": kafka, "store": kept})
        world, health = self.world, Health(60)
        event: Any = stop
        store: EmbeddedStore | ClusterStore
        if self.cluster is not None:
            store = ClusterStore(self.app, Calls(world, self.cluster, is_deadly=self.deadly))
        else:
            store = bench().take(self.horizon_ms)
            self.stores.append(store)
        try:
            connection = Connection(event, health.beat, clients=self.clients, clock=world.clock)
            lineages = Lineages(config, Topics(config.kafka, bench().topics, connection))
            output = open_output(config.kafka, bench().topics, connection)
            output.start()
            health.ready("model")
            metrics, snapshots, restored = bench().metrics, None, None
            if isinstance(store, ClusterStore):
                store.load()
            elif self.folder is not None:
                store.clear()
                folder = config.snapshots.model_copy(update={"folder": str(self.folder)})
                config = config.model_copy(update={"snapshots": folder})
                snapshots = process.snapshots = Snapshots(
                    config, store, {"simulated": "yes"}, metrics, self.disk, world.clock
                )
                restored = snapshots.restore()
                world.tell(f"{name}: restored {restored and (restored.actions, restored.dimensions)}")
                if restored is None:
                    store.load_history()
            if self.deadly:
                journals = config.poison.model_copy(update={"folder": f"{self._folder.name}/poison"})
                journaled = config.model_copy(update={"poison": journals})
                process.poison = open_poison(journaled, bench().topics.dimensions)
            beside = functools.partial(Work, world)
            scorer = Scorer(
                config,
                self.app,
                source=functools.partial(EventSource, config.kafka, connection, lineages, start=beside),
                dimensions=DimensionSource(config.kafka, connection, lineages),
                store=self._deadly(store),
                decoder=DeadlyDecoder(world, self.app, config, bench().topics) if self.deadly else None,
                encoder=bench().encoder,
                model=Model(world, config, bench().encoder.digest),
                lineages=lineages,
                output=output,
                runtime=Runtime(metrics, health, event, world.point, beside, world.clock),
                snapshots=snapshots,
                restored=restored,
                poison=process.poison,
                report_s=REPORT_S,
            )
            if isinstance(scorer.state, KeptState):
                scorer.state.halved_min = world.random.choice((2, 32))  # no schedule has so many events
            self.mutate(scorer)
            self.scorers[name] = (*self.scorers[name][:3], scorer)
            scorer.run()
        except LogNotWhole as refusal:
            if not (self.harmed and re.search(HARMS[self.harm], str(refusal))):
                raise
            self.refusals += 1
            world.tell(f"{name}: refuses: {refusal}")
        except (ScorerError, KafkaException, Defect) as error:
            world.tell(f"{name}: exits: {type(error).__name__}: {error}")

    def _deadly(self, store: EmbeddedStore | ClusterStore) -> EmbeddedStore | ClusterStore:
        """Of an engine whose rows may be deadly; over a cluster it is the calls that strike."""
        if isinstance(store, ClusterStore) or not self.deadly:
            return store
        return cast(EmbeddedStore, DeadlyStore(self.world, store))

    def _answered(self) -> bool:
        """Everything that was sent is committed, and whoever is there is at rest.

        The answers to actions come with their offsets; the dimension topics' offsets say nothing.
        """
        broker = self.broker
        if self.mended_at or broker.open:
            return False
        for place, log in self.action_logs:
            if log.entries and broker.committed.get(place, 0) <= log.entries[-1].at:
                return False
        letters = {at for at, _ in map(named, output(self.broker, "dead_letters"))}
        return sum(at[0][0] != "actions" for at in letters) >= self.refused_rows
