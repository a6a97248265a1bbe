"""A seeded simulator of scorers that fail: the real loop, source, publisher and engine; Kafka, time and the model not.

    PYTHONPATH=.:tests python -m simulation.simulator --seeds 1000 [--first N]       (`make simulate SEEDS=1000`)
    PYTHONPATH=.:tests python -m simulation.simulator --replay 4711                  what happened under a seed,
    step by step

A schedule is drawn from its seed: which faults it has and how often, what is sent when, who runs when. Every task (a
scorer's loop, its publishing, the shop, the supervisor) is a greenlet that hands over at every call to Kafka or to the
model and after every step of the loop, so that a process dies, freezes or loses its partitions between any two of them.
A quarter of the schedules take snapshots all the time; in half the scorers are mended at some time, and take from then
on records that they have refused until then; in an eighth, which cost the most, there are records that kill whoever
prepares them; in half records that repeat a request are left out. After a while the faults end; then all must be
answered: every event once, in its partition's order, with exactly the score that its features have when it is answered
alone; every refused record in the dead letters once, and in no window; what repeats neither here nor there.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import gc
import itertools
import json
import logging
import math
import multiprocessing
import os
import random
import re
import sys
import threading
import time
import types
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import structlog
import xxhash
from confluent_kafka import KafkaException
from fixtures.scorer import START_MS, Shop, loaded_store, probabilities
from greenlet import getcurrent, greenlet
from places import SQL

import streaming.kafka.producer
import streaming.kafka.reader
import streaming.loop.scorer
import streaming.state.snapshots
from simulation.kafka import Admin, Broker, Consumer, Entry, Place, Producer
from streaming.config import Config
from streaming.errors import ArtifactMismatch, LogNotWhole, ModelUnavailable, ScorerError
from streaming.events.decode import (
    Actions,
    Decoder,
    Record,
    action_columns,
    action_decoder,
    dimension_columns,
    dimension_decoders,
    reason,
    reason_of,
)
from streaming.kafka.lineage import Lineages
from streaming.kafka.producer import Publisher
from streaming.kafka.reader import Waiting
from streaming.kafka.source import ActionSource, DimensionSource
from streaming.kafka.topics import Topics
from streaming.loop.poison.detection import Poison, open_poison
from streaming.loop.scorer import Scorer
from streaming.model.triton import Scores
from streaming.ops.health import Health
from streaming.ops.metrics import Metrics
from streaming.state.snapshot_folder import Writing
from streaming.state.snapshots import Snapshots
from streaming.store.feature_store import EmbeddedStore, FeatureStore

__all__ = ["Violation", "simulate"]

PARTITIONS = 3
PROCESSES = 2
ACTIONS = 16
WORKLOADS = 32  # streams of events, whose truth is computed once each
TROUBLE_S = 40.0  # simulated; faults end then
PATIENCE_S = 400.0  # simulated; all must be answered then
SWITCHES_MAX = 60_000
TRIES_MAX = 5  # of deaths by poison: so often no innocent record is in hand alone when a crash comes
DEADLY = ("decode kills", "decode fails", "features kill", "features fail")
"""Texts in a record, and what happens to who decodes it, or inserts its row: SIGKILL, or a defect that ends it."""
MEMORY = Path("/dev/shm")  # snapshots of a schedule live there: the disk is not what is tested
HORIZON_MS = 8_000  # of `dedup`, where it is on
TAKEN_BYTES = 600  # of a value, until the scorers are mended
PIECE = 50  # schedules that a process takes at a time
REFUSALS_MAX = 6  # of starts: then a schedule counts as refused for good
HARMS = {
    "retention": "are gone|out of range|begins at",
    "topic made anew": "made anew",
    "partition added": "had 3 partitions and has 4",
    "group deleted": "has no offset of",
}
"""What is done to the log or the group in some schedules, and what a scorer that refuses to go on must say then."""
TRACE = 100_000  # lines that a violation shows at most

Origin = tuple[Place, int]

TABLES = {"users": ("bo_user", "user_id"), "products": ("bo_product", "sku_id"), "comments": ("bo_comment", "sku_id")}
TOPICS = {"actions": PARTITIONS, "users": 1, "products": 1, "comments": 2, "scores": 1, "dead_letters": 1}

FAULTS = {
    "crash": 0.008,
    "freeze": 0.008,
    "rebalance": 0.02,
    "stop": 0.004,
    "abort": 0.03,
    "broker away": 0.02,
    "lost answer": 0.05,
    "lost producer": 0.004,
    "hang": 0.01,
    "id forgotten": 0.01,
    "queue full": 0.02,
    "noise": 0.02,
    "seek too early": 0.1,
    "model away": 0.05,
    "model slow": 0.05,
    "model mad": 0.015,
    "clock jump": 0.01,
    "snapshot fails": 0.1,
}
"""How often a fault comes, for each time that it can, in a schedule that has it."""


class Violation(AssertionError):
    """What must never happen has; the message names the seed and ends with what went before."""


class Stuck(Violation):
    """It does not come to an end."""


class Defect(Exception):
    """What nobody has foreseen: the process ends with status 1."""


class Killed(BaseException):
    """SIGKILL: no `finally` of the dead has any effect any more, because every call of it raises this again."""


@dataclass(eq=False)
class Process:
    """A scorer's process: dies whole."""

    name: str
    dead: bool = False
    frozen_until: float = 0.0
    silent_since: float | None = None
    """Since when the group has not heard of it."""
    snapshots: Snapshots | None = None
    poison: Poison | None = None


@dataclass(eq=False)
class Task:
    process: Process
    greenlet: greenlet
    wake: float = 0.0
    done: bool = False
    failure: BaseException | None = None


class Flag:
    """`threading.Event`, in simulated time."""

    def __init__(self, world: World) -> None:
        self._world, self._set = world, False
        self._waiting: list[Task] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        for task in self._waiting:
            task.wake = self._world.now

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set:
            self._waiting.append(self._world.task)
            self._world.sleep(1e9 if timeout is None else timeout)
            self._waiting.remove(self._world.task)
        return self._set


class Work:
    """What `Scorer(start=…)` returns: a task of the same process."""

    def __init__(self, world: World, work: Callable[[], None]) -> None:
        self._world = world
        self._over = Flag(world)
        self._task = world.spawn(world.process(), functools.partial(self._do, work))
        self._error: BaseException | None = None

    def result(self, timeout: float | None = None) -> None:
        if not self._over.wait(timeout):
            raise FutureTimeoutError
        if self._error is not None:
            raise self._error

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Killed:
            raise
        except BaseException as error:
            self._error = error
        self._over.set()


class World:
    """Time, chance and who runs.

    Attributes:
        now: simulated seconds.
        calm: no more faults.
        trace: what happened last.
    """

    def __init__(self, seed: int, faults: bool | Mapping[str, float]) -> None:
        self.random = random.Random(seed)
        # A schedule has some kinds of faults, and not always equally often: what is rare is not drowned.
        self._rates = {
            kind: rate * self.random.choice((1, 1, 3)) for kind, rate in FAULTS.items() if self.random.random() < 0.5
        }
        if isinstance(faults, Mapping):
            self._rates |= faults
        self.calm = faults is False
        self.now = 0.0
        self.wall_s = 0.0
        self.counts: dict[str, int] = {}
        self.trace: deque[str] = deque(maxlen=TRACE)
        self.switches = 0
        self._tasks: list[Task] = []
        self._hub = getcurrent()
        self.task: Task = cast(Task, None)
        self.broker = Broker(self, TOPICS, eager=self.random.random() < 0.3)

    def process(self) -> Process:
        return self.task.process

    def tell(self, what: str) -> None:
        self.trace.append(f"{self.now:9.3f}  {what}")

    def luck(self, kind: str) -> bool:
        """Does a fault of this kind come now?"""
        if self.calm or self.random.random() >= self._rates.get(kind, 0.0):
            return False
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.tell(f"{self.task.process.name}: {kind}")
        return True

    def spawn(self, process: Process, work: Callable[[], None]) -> Task:
        def run() -> None:
            try:
                work()
            except Killed:
                pass
            except BaseException as error:
                task.failure = error
            task.done = True

        task = Task(process, greenlet(run, self._hub), self.now)
        self._tasks.append(task)
        return task

    def sleep(self, seconds: float) -> None:
        """Lets others run for so long at least."""
        task = self.task
        if task.process.dead:
            raise Killed
        task.wake = self.now + seconds
        self._hub.switch()
        if task.process.dead:
            raise Killed

    def point(self, name: str) -> None:
        """A place between two steps of a process."""
        process = self.process()
        self.tell(f"{process.name}: {name}")
        if self.luck("crash"):
            self.kill(process)
        if self.luck("freeze"):
            process.frozen_until = self.now + self.random.choice((0.5, 3.0, 9.0, 25.0))
            process.silent_since = self.now
        if self.luck("rebalance"):
            self.broker.rebalance()
        if self.luck("clock jump"):
            self.wall_s += self.random.choice((-86_400.0, 86_400.0, -3.0))
        self.sleep(self.random.random() * 0.01 if self.random.random() < 0.5 else 0.0)

    def kill(self, process: Process) -> None:
        process.dead, process.silent_since = True, self.now

    def bury(self, process: Process) -> None:
        """Ends the tasks of a dead process: each is told so at the call that it waits in."""
        for task in [task for task in self._tasks if task.process is process]:
            if not task.done:
                self._switch(task)
            if not task.done:
                raise Violation(f"{process.name} is dead and goes on")
            self._tasks.remove(task)
        if process.snapshots is not None:
            if process.snapshots._taking is not None:
                process.snapshots._taking._capture.close()  # the engine is another schedule's next
            process.snapshots.folder.close()  # as the system does: its lock is free
            process.snapshots = None
        if process.poison is not None:
            process.poison.close()
            process.poison = None

    def run(self, until: Callable[[], bool]) -> None:
        """Lets tasks run until `until` holds; a task that failed fails the run."""
        while not until():
            self.switches += 1
            if self.switches > SWITCHES_MAX or self.now > PATIENCE_S:
                raise Stuck(f"not done after {self.now:.0f} simulated seconds and {self.switches} switches")
            task = self._next()
            if task.process.frozen_until:
                task.process.frozen_until, task.process.silent_since = 0.0, None
            self._switch(task)
            if task.done:
                self._tasks.remove(task)
                if task.failure is not None:
                    raise task.failure

    def _next(self) -> Task:
        """One of those that can run now; if none can, time passes until one can."""
        now, soonest = self.now, math.inf
        ready: list[Task] = []
        sleepers: list[Task] = []
        for task in self._tasks:
            process = task.process
            if process.dead:
                continue
            wake = max(task.wake, process.frozen_until)
            if wake <= now:
                ready.append(task)
            elif wake < soonest:
                soonest, sleepers = wake, [task]
            elif wake == soonest:
                sleepers.append(task)
        if not ready:
            self.now, ready = soonest, sleepers
        return self.random.choice(ready)

    def _switch(self, task: Task) -> None:
        before, self.task = self.task, task
        task.greenlet.switch()
        self.task = before


class Writers:
    """Queues and threads of snapshots: what the loop hands over is written as soon as it has handed over all of it."""

    def __init__(self) -> None:
        self._newest: deque[Any] = deque()
        self._works: dict[int, Callable[[], None]] = {}

    def queue(self, _: int) -> types.SimpleNamespace:
        """The queue of the thread that is made next."""
        items: deque[Any] = deque()
        self._newest = items

        def put(item: Any) -> None:
            items.append(item)
            if item is None:
                self._works[id(items)]()

        return types.SimpleNamespace(put=put, put_nowait=put, get=items.popleft, full=lambda: False)

    def thread(self, target: Callable[..., None], args: tuple[Any, ...], **_: Any) -> types.SimpleNamespace:
        self._works[id(self._newest)] = functools.partial(target, *args)
        return types.SimpleNamespace(start=lambda: None)


class SimulatedTime(types.SimpleNamespace):
    """What the loop's modules find under the name `time`."""

    def __init__(self, world: World) -> None:
        super().__init__(
            monotonic=lambda: world.now,
            perf_counter=lambda: world.now,
            sleep=world.sleep,
            time=lambda: START_MS / 1000 + world.now + world.wall_s,
            strftime=time.strftime,
            gmtime=time.gmtime,
        )


class Call:
    """One request to the model. Its answer is drawn when it is sent."""

    def __init__(self, world: World, ids: npt.NDArray[np.int64], settings: Any) -> None:
        self._world, self._ids = world, ids
        self._at = world.now + world.random.random() * 0.02
        self._error: ScorerError | None = None
        if world.luck("model away"):
            self._error = ModelUnavailable("away")
        elif world.luck("model mad"):
            self._error = ArtifactMismatch("answers nan in row 0, not a probability")
        elif world.luck("model slow"):
            self._at += world.random.choice((1.0, 8.0))
            if self._at > world.now + settings.timeout_s:
                self._at, self._error = world.now + settings.timeout_s, ModelUnavailable("no answer in time")

    def wait(self, timeout_s: float) -> bool:
        """Will `result` not block?"""
        self._world.sleep(max(0.0, min(timeout_s, self._at - self._world.now)))
        return self._at <= self._world.now

    def result(self) -> Scores:
        self._world.point("model answers")
        self._world.sleep(max(0.0, self._at - self._world.now))
        if self._error is not None:
            raise self._error
        return Scores(probabilities(self._ids), "1")


class Model:
    """The model server: right, slow, away, or mad."""

    def __init__(self, world: World, config: Config, digest: str) -> None:
        self._world, self._config, self._digest = world, config, digest

    def submit(self, ids: npt.NDArray[np.int64]) -> Call:
        return Call(self._world, ids.copy(), self._config.model)

    def score(self, ids: npt.NDArray[np.int64]) -> Scores:
        return self.submit(ids).result()

    def encoder_digest(self) -> str:
        if self._world.luck("model away"):
            raise ModelUnavailable("away")
        return self._digest


class Deadly:
    """A store of whose rows some are deadly."""

    def __init__(self, world: World, store: EmbeddedStore) -> None:
        self._world, self._store = world, store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def answer(self, dimensions: Mapping[str, pa.Table], actions: Actions) -> pa.Table:
        self._strike({**dimensions, "actions": actions.rows})
        return self._store.answer(dimensions, actions)

    def restore(self, dimensions: Mapping[str, pa.Table], actions: Actions | None) -> None:
        self._strike({**dimensions, **({} if actions is None else {"actions": actions.rows})})
        self._store.restore(dimensions, actions)

    def _strike(self, tables: Mapping[str, pa.Table]) -> None:
        for rows in tables.values():
            for name in {"br", "has_bad_comment"}.intersection(rows.column_names):
                strike(self._world, "features", *rows.column(name).to_pylist())


def arm(world: World, scorer: Scorer) -> None:
    """Makes deadly records deadly."""

    def arm_decoder(decoder: Decoder[Any]) -> None:
        decode_all = decoder.decode_all

        def decode(records: Sequence[Record], **how: bool) -> Any:
            strike(world, "decode", *(str(record.value()) for record in records))
            return decode_all(records, **how)

        setattr(decoder, "decode_all", decode)  # noqa: B010 - of this one decoder

    for decoder in (scorer.decoder, *scorer.preparation._dimension_decoders.values()):
        arm_decoder(decoder)
    scorer.store = cast(FeatureStore, Deadly(world, cast(EmbeddedStore, scorer.store)))


def strike(world: World, stage: str, *texts: str) -> None:
    """Ends the process if one of the texts says so."""
    for text in texts:
        for deadly in DEADLY:
            if deadly.startswith(stage) and deadly in text:
                world.tell(f"{world.process().name}: {deadly}")
                world.counts["deadly"] = world.counts.get("deadly", 0) + 1
                if "fail" in deadly:
                    raise Defect(deadly)
                world.kill(world.process())
                world.sleep(0)


# ── what is sent, and what must come of it ───────────────────────────────────────────────────────────────────────────


@dataclass
class Workload:
    """One stream of events. `gaps`: that its logs have, a bit per action."""

    dimensions: list[Entry]
    later: list[Entry]
    """Dimension rows that come while actions do; no feature depends on them."""
    actions: list[Entry]
    gaps: list[int]


@dataclass
class Truth:
    """What must come of a workload. `scores`: place of each good action → key and score; `refused`: place → reason."""

    scores: dict[Origin, tuple[bytes, dict[str, Any]]] = field(default_factory=dict)
    refused: dict[Origin, str] = field(default_factory=dict)


WRITTEN_MS = START_MS + 10**10


def _entry(topic: str, partition: int, key: str, value: bytes | None) -> Entry:
    return Entry((topic, partition), 0, key.encode(), value, [], WRITTEN_MS)


def _workload(number: int) -> Workload:
    """Late, duplicate and equal-time events, poison, and dimension rows of which some are bad."""
    luck = random.Random(number)
    shop = Shop.seeded(ACTIONS, 1000 + number)
    dimensions = [
        _entry(topic, luck.randrange(TOPICS[topic]), row[TABLES[topic][1]], json.dumps(row).encode())
        for topic, rows in (("users", shop.users[:2]), ("products", shop.products[:2]), ("comments", shop.comments[:3]))
        for row in rows
    ]
    dimensions[luck.randrange(len(dimensions))].record_value = b"{"
    nobody = {**shop.comments[0], "sku_id": "nobody's"}
    later = [
        _entry("comments", luck.randrange(2), "nobody's", json.dumps(nobody).encode()),
        _entry("comments", luck.randrange(2), "nobody's", b'{"sku_id": 1}'),
        _entry("users", 0, "nobody", None),
    ]
    actions: list[Entry] = []
    for action in shop.actions:
        user = str(int(action["user_id"]) % 4)
        row = {**action, "user_id": user, "sku_id": str(int(action["sku_id"]) % 3)}
        if actions and luck.random() < 0.2:
            row["time"] = START_MS  # of equal times the order of the log counts
        if luck.random() < 0.1:  # each doubles the truths that the workload may have
            row["note"] = "x" * TAKEN_BYTES
        entry = _entry("actions", int(user) % PARTITIONS, user, json.dumps(row).encode())
        actions.append(entry)
        if luck.random() < 0.1:
            actions.append(_entry("actions", entry.place[1], user, entry.record_value))  # sent twice
        if luck.random() < 0.1:
            bad = luck.choice((b"{", b"", None, b"\xff", json.dumps({**row, "type": "9"}).encode()))
            actions.append(_entry("actions", entry.place[1], user, bad))
    if has_deadly(number):
        how = number // 8
        row = {**shop.actions[0], "user_id": "0", "br": DEADLY[how % 4], "request_id": "deadly"}
        actions.insert(luck.randrange(len(actions)), _entry("actions", 0, "0", json.dumps(row).encode()))
        if how % 2:
            rows = (dimensions, later)[how // 2 % 2]
            row = {**nobody, "sku_id": "deadly", "has_bad_comment": DEADLY[(how + 1) % 4]}
            rows.insert(luck.randrange(len(rows)), _entry("comments", how // 2 % 2, "deadly", json.dumps(row).encode()))
    if has_repeats(number):
        for entry in luck.sample([entry for entry in actions if not is_deadly(entry)], len(actions) // 3):
            again = _entry("actions", entry.place[1], (entry.key() or b"").decode(), entry.value())
            actions.insert(luck.randrange(actions.index(entry), len(actions)) + 1, again)
        for before, entry in itertools.pairwise(actions):
            entry.written_ms = before.written_ms + luck.choice((-100, 0, 1, 300, 900, 4_000))
    return Workload(dimensions, later, actions, [int(luck.random() < 0.1) for _ in actions])


def has_deadly(number: int) -> bool:
    """Are there deadly records in this workload, and journals against them?"""
    return number % 8 == 3


def has_repeats(number: int) -> bool:
    """Are there many records that repeat a request, some behind the horizon, and is `dedup` on?"""
    return number // 16 % 2 == 1


def repeats(
    accepted: list[tuple[str | None, int]], name: str | None, written_ms: int, horizon_ms: int = HORIZON_MS
) -> bool:
    """Whether a request repeats one that its partition has `accepted`; one that does not is accepted now."""
    now = max([written_ms, *(time for _, time in accepted)])
    if any(name == other and now - time <= horizon_ms for other, time in accepted):
        return True
    accepted.append((name, now))
    return False


def is_deadly(entry: Entry) -> bool:
    return any(text.encode() in (entry.value() or b"") for text in DEADLY)


class Digest:
    """An encoder whose ids name the whole row of features: one wrong feature anywhere is another score."""

    digest = "sha256:simulated"

    def encode(self, features: pa.Table) -> npt.NDArray[np.int64]:
        """int64 [n, 1]."""
        (batch,) = features.to_batches()
        rows = zip(*[column.to_pylist() for column in batch.columns], strict=True)
        return np.array([xxhash.xxh64_intdigest(repr(row).encode()) >> 1 for row in rows], np.int64)[:, None]


class Unheard:
    """Metrics that nobody looks at: any attribute, called with anything, used as a context or not."""

    def __getattr__(self, name: str) -> Unheard:
        return self

    def __call__(self, *_: Any, **__: Any) -> Unheard:
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class Bench:
    """What schedules share: engines, which cost a moment to make, the encoder, and workloads with their truth."""

    def __init__(self) -> None:
        self.stores: dict[int, list[EmbeddedStore]] = {0: [], HORIZON_MS: []}
        self._workloads: dict[int, Workload] = {}
        self._truths: dict[tuple[int, frozenset[Origin]], Truth] = {}
        self._configs: dict[tuple[str, int, bool], Config] = {}
        self.encoder = Digest()
        self.metrics = cast(Metrics, Unheard())

    def take(self, horizon_ms: int = 0) -> EmbeddedStore:
        """An engine with empty tables."""
        if not self.stores[horizon_ms]:
            return loaded_store(horizon_ms)
        store = self.stores[horizon_ms].pop()
        store.reset()
        return store

    def config(self, instance: str, messages_max: int, mended: bool) -> Config:
        if (instance, messages_max, mended) not in self._configs:
            self._configs[instance, messages_max, mended] = Config.model_validate(
                {
                    "kafka": {
                        "instance_id": instance,
                        "topics": {topic: topic for topic in TOPICS},
                        "transaction_timeout_s": 10.0,
                        "give_up_after_s": 30.0,
                        "session_timeout_s": 6.0,
                    },
                    "batch": {"messages_max": messages_max, "poll_ms": 1000},
                    "model": {"timeout_s": 5.0, "give_up_after_s": 40.0},
                    "store": {"sql": str(SQL)},
                    "snapshots": {"every_s": 1.0},
                    "poison": {"tries_max": TRIES_MAX},
                    "events": {} if mended else {"message_bytes_max": TAKEN_BYTES},
                }
            )
        return self._configs[instance, messages_max, mended]

    def workload(self, number: int) -> Workload:
        if number not in self._workloads:
            self._workloads[number] = _workload(number)
        return self._workloads[number]

    def truth(self, number: int, too_large: frozenset[Origin]) -> Truth:
        """What comes of a workload, computed one event at a time, after these were refused by who takes less."""
        if (number, too_large) in self._truths:
            return self._truths[number, too_large]
        workload, truth = self.workload(number), Truth()
        store = self.take()
        ends: dict[Place, int] = {}
        accepted: dict[Place, list[tuple[str | None, int]]] = {}

        def place(entry: Entry, gap: int = 0) -> tuple[Place, int]:
            at = ends.get(entry.place, 0)
            ends[entry.place] = at + 1 + gap
            return entry.place, at

        decoders = dimension_decoders(65_536, 300)
        for entry in [*workload.dimensions, *workload.later]:
            table = TABLES[entry.topic()][0]
            (good, _, bad), at = decoders[table].decode_all([entry]), place(entry)
            if is_deadly(entry):
                truth.refused[at] = "kills_process"
                continue
            if bad:
                truth.refused[at] = reason(bad[0][1])
            else:
                store.restore({table: dimension_columns(table, good)}, None)
        decoder = action_decoder(65_536, 300)
        for entry, gap in zip(workload.actions, workload.gaps, strict=True):
            (events, _, bad), at = decoder.decode_all([entry]), place(entry, gap)
            if is_deadly(entry):
                truth.refused[at] = "kills_process"
                continue
            if bad or at in too_large:
                truth.refused[at] = "too_large" if at in too_large else reason(bad[0][1])
                continue
            event = events[0]
            before = accepted.setdefault(entry.place, [])
            if has_repeats(number) and repeats(before, event.request_id, entry.written_ms):
                continue
            ids = self.encoder.encode(store.answer({}, action_columns(events)))
            truth.scores[at] = (
                event.user_id.encode(),
                {
                    "request_id": event.request_id,
                    "user_id": event.user_id,
                    "sku_id": event.sku_id,
                    "event_time": event.time,
                    "purchase_probability": float(probabilities(ids)[0]),
                    "model_version": "1",
                },
            )
        self.stores[0].append(store)
        self._truths[number, too_large] = truth
        return truth


@functools.cache
def bench() -> Bench:
    return Bench()


# ── one schedule ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Schedule:
    """One seed: the shop, the supervisor and the scorers.

    Args:
        mutate: changes each scorer before it runs, to see that a wrong one is caught.
        snapshots: whether snapshots are taken; default: the seed says it.
        harm: what is done to the log; "": nothing; default: the seed says it.
    """

    def __init__(
        self,
        seed: int,
        faults: bool | Mapping[str, float],
        mutate: Callable[[Scorer], None],
        snapshots: bool | None = None,
        harm: str | None = None,
    ) -> None:
        self.world = World(seed, faults)
        self.number = seed % WORKLOADS
        self.workload = bench().workload(self.number)
        all_taken = bench().truth(self.number, frozenset())
        self.horizon_ms = HORIZON_MS if has_repeats(self.number) else 0
        self.refused_rows = sum(place[0] != "actions" for place, _ in all_taken.refused)
        self.deadly = has_deadly(self.number)
        self.mutate = mutate
        luck = random.Random(seed)
        self.mended_at = luck.uniform(0.0, TROUBLE_S / 2) if luck.random() < 0.5 else 0.0
        self.action_logs = [(place, log) for place, log in self.world.broker.logs.items() if place[0] == "actions"]
        self.messages_max = self.world.random.choice((2, 3, 5, 8, 20))
        self.scorers: dict[str, tuple[Process, Flag, Task, Scorer | None]] = {}
        self.stores: list[EmbeddedStore] = []
        self.sent = False
        self.given: list[Entry] = []  # actions that were sent
        # A quarter of the schedules take snapshots, far more often than anybody would.
        drawn = self.world.random.random() < 1 / 4
        self._folder = TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.folder = Path(self._folder.name) if (drawn if snapshots is None else snapshots) else None
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
        with _simulated(world):
            self._append(self.workload.dimensions)
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

    def _over(self) -> bool:
        """All is answered; or all refuse, which they must after most harms."""
        if self.refusals >= REFUSALS_MAX:
            return True
        answered = self.world.calm and self.sent and self._answered()
        return answered and (not self.harmed or self.harm == "retention")

    def _append(self, entries: list[Entry], gaps: Mapping[int, int] = types.MappingProxyType({})) -> None:
        for number, entry in enumerate(entries):
            log = self.world.broker.logs[entry.place]
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
        broker, luck = self.world.broker, self.world.random
        noted = {topic for topic, _ in broker.notes}
        if "actions" not in noted or len(noted) == 1:
            return False  # nobody has begun yet: whatever is done now is how it was before
        match self.harm:
            case "retention":
                lows = {place: luck.randint(0, broker.committed.get(place, 0)) for place, _ in self.action_logs}
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

    def _delete_group(self) -> bool:
        """Ends all scorers, waits until the group has missed them, and deletes it; only where all have snapshots."""
        broker = self.world.broker
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
        world, health = self.world, Health(60)
        event: Any = stop
        store = bench().take(self.horizon_ms)
        self.stores.append(store)
        try:
            waiting = Waiting(event, health.beat)
            lineages = Lineages(config, Topics(config.kafka, waiting))
            publisher = Publisher(config.kafka, event, health.beat)
            publisher.start()
            health.ready("model")
            metrics, snapshots, restored = bench().metrics, None, None
            if self.folder is not None:
                store.clear()
                folder = config.snapshots.model_copy(update={"folder": str(self.folder)})
                config = config.model_copy(update={"snapshots": folder})
                snapshots = process.snapshots = Snapshots(config, store, {"simulated": "yes"}, metrics)
                restored = snapshots.restore()
                world.tell(f"{name}: restored {restored and (restored.actions, restored.dimensions)}")
                if restored is None:
                    store.load_history()
            if self.deadly:
                journals = config.poison.model_copy(update={"folder": f"{self._folder.name}/poison"})
                process.poison = open_poison(config.model_copy(update={"poison": journals}))
            beside = functools.partial(Work, world)
            scorer = Scorer(
                config,
                source=functools.partial(ActionSource, config.kafka, waiting, lineages, start=beside),
                dimensions=DimensionSource(config.kafka, waiting, lineages),
                store=store,
                encoder=bench().encoder,
                model=Model(world, config, bench().encoder.digest),
                lineages=lineages,
                publisher=publisher,
                metrics=metrics,
                health=health,
                stop=event,
                snapshots=snapshots,
                restored=restored,
                poison=process.poison,
                step=world.point,
                start=beside,
                clock=lambda: START_MS / 1000 + world.now + world.wall_s,
            )
            if self.deadly:
                arm(world, scorer)
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

    def _answered(self) -> bool:
        """Everything that was sent is committed, and whoever is there is at rest.

        The answers to actions come with their offsets; the dimension topics' offsets say nothing.
        """
        broker = self.world.broker
        if self.mended_at or broker.open:
            return False
        for place, log in self.action_logs:
            if log.entries and broker.committed.get(place, 0) <= log.entries[-1].at:
                return False
        return sum(at[0][0] != "actions" for at, _ in map(_named, self._output("dead_letters"))) >= self.refused_rows

    def _output(self, topic: str) -> list[Entry]:
        """As a `read_committed` subscriber sees it."""
        entries = self.world.broker.logs[topic, 0].entries
        return [e for e in entries if e.transaction is not None and e.transaction.state == "committed"]

    def _check(self, whole: bool = True) -> None:
        """All that was published is right and there once; with `whole`, nothing is missing either."""
        letters = [_named(entry) for entry in self._output("dead_letters")]
        truth = bench().truth(self.number, frozenset(at for at, kind in letters if kind == "TooLarge"))
        scores, refused = dict(truth.scores), dict(truth.refused)
        newest: dict[str, int] = {}
        for entry in self._output("scores"):
            ce_id = cast(bytes, dict(entry.headers())["ce_id"]).decode()
            where, _, offset = ce_id.partition("@")
            topic, _, number = where[:-1].partition("[")
            at = ((topic, int(number)), int(offset))
            if at not in scores:
                raise Violation(f"{ce_id} is scored twice, or never was a good event")
            key, score = scores.pop(at)
            found = json.loads(entry.value() or b"")
            if (entry.key(), found) != (key, score):
                raise Violation(f"{ce_id} is scored {found}, alone it would be {score}")
            if newest.get(where, -1) > int(offset):
                raise Violation(f"{ce_id} comes after {where}@{newest[where]}")
            newest[where] = int(offset)
        if scores and whole:
            raise Violation(f"never scored: {sorted(scores)}")
        for at, kind in letters:
            if at not in refused:
                raise Violation(f"{at} is among the dead letters twice, or is good")
            wanted = refused.pop(at)
            if wanted != reason_of(kind, ""):
                raise Violation(f"{at} was refused as {kind}, not as {wanted}")
        if refused and whole:
            raise Violation(f"not among the dead letters: {sorted(refused)}")


def _named(letter: Entry) -> tuple[Origin, str]:
    """The record that a dead letter is of, and the kind of its refusal."""
    headers = {name: (value or b"").decode() for name, value in letter.headers()}
    place = headers["__connect.errors.topic"], int(headers["__connect.errors.partition"])
    kind = headers["__connect.errors.exception.class.name"].rpartition(".")[2]
    return (place, int(headers["__connect.errors.offset"])), kind


@functools.cache
def _timed() -> list[types.ModuleType]:
    """The modules around the engine that ask for the time."""
    names = [n for n in sys.modules if n.startswith("streaming.") and not n.startswith("streaming.engine")]
    return [sys.modules[name] for name in names if vars(sys.modules[name]).get("time") is time]


@contextmanager
def _simulated(world: World) -> Iterator[None]:
    """The loop's modules see the simulated Kafka and the simulated time."""
    clock, writers = SimulatedTime(world), Writers()

    def disk(call: Callable[..., Any]) -> Callable[..., Any]:
        """A call that writes: the process may die before it, or the disk be full."""

        def write(*arguments: Any) -> Any:
            world.point("snapshot")
            if world.luck("snapshot fails"):
                raise OSError(28, "No space left on device")
            return call(*arguments)

        return write

    def abandon(writing: Writing) -> None:
        if not world.process().dead:
            abandoned(writing)
        else:  # the dead remove nothing: the next start finds what they left
            for file in writing._files.values():
                file.close()

    abandoned = Writing.abandon
    changes: list[tuple[Any, str, Any]] = [
        (streaming.kafka.reader, "Consumer", lambda settings, **_: Consumer(world, settings)),
        (streaming.kafka.reader, "AdminClient", lambda settings, **_: Admin(world, settings)),
        (streaming.kafka.producer, "Producer", lambda settings, **_: Producer(world, settings)),
        (streaming.state.snapshots, "threading", types.SimpleNamespace(Thread=writers.thread, Event=threading.Event)),
        (streaming.state.snapshots, "queue", types.SimpleNamespace(Queue=writers.queue)),
        (Writing, "add", disk(Writing.add)),
        (Writing, "finish", disk(Writing.finish)),
        (Writing, "abandon", abandon),
        (streaming.loop.scorer, "REPORT_S", 5.0),  # nobody looks at it
        (streaming.kafka.producer, "_message_bytes_max", lambda _, topics: dict.fromkeys(topics, 1_000_000)),
    ]
    changes += [(module, "time", clock) for module in _timed()]
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    state = random.getstate()
    random.seed(world.random.random())  # the loop's own jitter
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
        random.setstate(state)


def simulate(
    seed: int,
    *,
    faults: bool | Mapping[str, float] = True,
    mutate: Callable[[Scorer], None] = lambda _: None,
    snapshots: bool | None = None,
    harm: str | None = None,
) -> World:
    """Runs one schedule.

    Args:
        faults: with faults; or how often some of them come, whatever the seed says.
        mutate, snapshots, harm: see `Schedule`.

    Raises:
        Violation: names the seed, and how to see it again.
    """
    schedule = Schedule(seed, faults, mutate, snapshots, harm)
    try:
        schedule.run()
    except BaseException as error:
        trace = "\n".join(schedule.world.trace)
        command = f"PYTHONPATH=.:tests {sys.executable} tests/simulation/simulator.py --replay {seed}"
        raise Violation(f"{trace}\nseed {seed}: {type(error).__name__}: {error}\nagain: {command}") from error
    if schedule.harmed:
        schedule.world.counts[schedule.harm] = 1
        schedule.world.counts["refused for good"] = int(schedule.refusals >= REFUSALS_MAX)
    return schedule.world


def simulate_all(seeds: Iterable[int]) -> Counter[str] | str:
    """The faults of some schedules; or of the first that goes wrong what its `Violation` says."""
    counts = Counter[str]()
    for seed in seeds:
        try:
            counts.update(simulate(seed).counts)
        except Violation as violation:
            return str(violation)
    return counts


def quiet() -> None:
    """Schedules fail on purpose, thousands of times: no log of it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def begin() -> None:
    """Makes a process ready for thousands of schedules."""
    quiet()
    structlog.configure(cache_logger_on_first_use=True)
    # Loads what schedules share. Not by a schedule: a pool whose processes fail as they begin makes others for ever.
    bench().stores[0].append(bench().take())
    # A schedule leaves cycles, and few: to look for them among all that numba and Arrow have loaded takes longer than
    # many a schedule.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make simulate")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--replay", type=int)
    words = parser.parse_args()
    quiet()
    if words.replay is not None:
        world = simulate(words.replay)
        print("\n".join(world.trace))
        print(f"seed {words.replay}: nothing wrong; faults: {world.counts}")
        return
    started, counts, done = time.monotonic(), Counter[str](), 0
    seeds = range(words.first, words.first + words.seeds)
    pieces = [seeds[at : at + PIECE] for at in range(0, len(seeds), PIECE)]
    with multiprocessing.get_context("spawn").Pool(words.processes, begin) as pool:
        # In the order of the seeds, whoever is faster: the same seeds end with the same words.
        for piece, found in zip(pieces, pool.imap(simulate_all, pieces), strict=True):
            if isinstance(found, str):
                sys.exit(found)
            counts += found
            done += len(piece)
            if done % (10 * PIECE) == 0 or done == words.seeds:
                pace = done / (time.monotonic() - started) * 60
                print(f"{done:,} schedules, {pace:,.0f} a minute, nothing wrong; faults: {dict(counts)}", flush=True)


if __name__ == "__main__":
    main()
