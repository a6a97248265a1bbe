"""The whole pipeline as processes, for `chaos` and `soak`: Kafka, Triton, scorers that are started again, traffic, a
subscriber, and a verdict that recomputes every score from the input topics.

The model is the tests' own (`fixtures_scorer.ANSWER`), behind a real Triton: its answer hashes all columns, so that one
wrong feature anywhere is another probability.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from fixtures_scorer import (
    PARTITIONS,
    REPOSITORY,
    START_MS,
    Shop,
    Stage,
    answers,
    loaded_store,
    probabilities,
    save_artifact,
)  # fmt: skip

from batch.encode import fit
from deploy.kafka.broker import Broker
from deploy.process import Process, free_ports
from deploy.triton.server import Triton
from streaming.encode import Encoder
from streaming.event import action_columns, action_decoder, dimension_columns, dimension_decoders

__all__ = ["Rig", "Scorers", "Subscriber", "Traffic", "Verdict", "pipeline"]

RESTART_S = 0.5  # a supervisor's pause before it starts a process again
RECOMPUTE_ROWS = 37  # a batch of the verdict: another size than any batch of the scorers
STOP_S = 30.0
LATE_MS = 86_400_000
POISON_SHARE = 0.01
COMMENT_SHARE = 0.002


class Failed(Exception):
    """The pipeline cannot be judged: something died that nothing starts again."""


class Traffic:
    """A shop that sends `per_s` actions a second, some of them poison, on a thread of its own, until `close`.

    Args:
        users: among whom actions are drawn.
        now: events happen when they are sent (some a day before), not in 2016.

    Attributes:
        sent: request id → when it was handed to the producer (monotonic seconds); taken out by whoever sees its score.
        actions, poison, comments: how many were sent of each.
    """

    def __init__(self, stage: Stage, per_s: float, seed: int, users: int = 40, now: bool = False) -> None:
        self.sent: dict[str, float] = {}
        self.actions = self.poison = self.comments = 0
        self._stage, self._per_s, self._users, self._now = stage, per_s, users, now
        self._random = np.random.default_rng(seed)
        self._producer = Producer(
            {
                "bootstrap.servers": stage.bootstrap, "enable.idempotence": True, "linger.ms": 2,
                "partitioner": "murmur2_random", "message.timeout.ms": 300_000, "log_level": 0,
            }
        )  # fmt: skip
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, name="traffic", daemon=True)
        self.failure: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Sends no more; all that was sent is on the broker.

        Raises:
            Failed: it is not.
        """
        self._stop.set()
        self._thread.join()
        if left := self._producer.flush(120):
            raise Failed(f"the broker did not take {left} messages")
        if self.failure is not None:
            raise Failed(f"the traffic failed: {self.failure}") from self.failure

    def _send(self) -> None:
        try:
            started, number = time.monotonic(), 0
            event_ms = START_MS
            while not self._stop.is_set():
                due = int((time.monotonic() - started) * self._per_s)
                while number < due:
                    event_ms += int(self._random.integers(0, 3)) * 40_000
                    if self._now:
                        event_ms = int(time.time() * 1000)
                    self._one(number, event_ms)
                    number += 1
                self._producer.poll(0.005)
        except BaseException as error:
            self.failure = error

    def _one(self, number: int, event_ms: int) -> None:
        random, topics = self._random, self._stage.topics
        user, luck = str(int(random.integers(0, self._users))), random.random()
        late = int(random.integers(0, LATE_MS)) if random.random() < 0.1 else 0
        request_id = f"r{number}"
        action = {
            "user_id": user, "sku_id": str(int(random.integers(0, 12))), "time": event_ms - late,
            "type": str(int(random.integers(1, 7))), "model_id": str(int(random.integers(0, 4))), "cate": "8",
            "br": str(int(random.integers(0, 5))), "request_id": request_id,
        }  # fmt: skip
        value = json.dumps(action).encode()
        if luck < POISON_SHARE:
            self.poison += 1
            self._produce(topics["actions"], user, value[: int(random.integers(0, len(value)))])
            return
        if luck < POISON_SHARE + COMMENT_SHARE:  # nobody looks at it: no feature depends on when it comes
            self.comments += 1
            self._produce(topics["comments"], "nobody's", b"{" if self.comments % 2 else _comment("nobody's"))
        self.actions += 1
        self.sent[request_id] = time.monotonic()
        self._produce(topics["actions"], user, value)

    def _produce(self, topic: str, key: str, value: bytes) -> None:
        while True:
            try:
                return self._producer.produce(topic, value, key)
            except BufferError:  # the broker is away: wait for room
                self._producer.poll(0.1)


def _comment(sku_id: str) -> bytes:
    row = {
        "sku_id": sku_id, "ingestionTime": START_MS, "dt": 0, "comment_num": 1, "has_bad_comment": "0",
        "bad_comment_rate": 0.5,
    }  # fmt: skip
    return json.dumps(row).encode()


class Subscriber:
    """Another system that reads scores: `read_committed`, from the start of both topics, on a thread of its own.

    Attributes:
        scores: ce_id (topic[partition]@offset of the action) → probability. Empty with `keep` False.
        dead: (topic, partition, offset) of the dead letters' records.
        doubled: ce_ids and places that came again.
        disordered: ce_ids that came after a later one of their partition.
        seen: scores so far.
        latency_ms: of the scores since it was last emptied.
        newest: partition of the actions → when its newest score's action was sent (monotonic seconds).
    """

    def __init__(self, stage: Stage, traffic: Traffic, keep: bool = True) -> None:
        self.scores: dict[str, float] = {}
        self.dead: set[tuple[str, int, int]] = set()
        self.doubled: list[str] = []
        self.disordered: list[str] = []
        self.seen = 0
        self.latency_ms: list[float] = []
        self.newest: dict[int, float] = {}
        self.failure: BaseException | None = None
        self._highest: dict[str, int] = {}
        self._stage, self._traffic, self._keep = stage, traffic, keep
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="subscriber", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        if self.failure is not None:
            raise Failed(f"the subscriber failed: {self.failure}") from self.failure

    def _follow(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._stage.bootstrap, "group.id": "subscriber", "enable.auto.commit": False,
                "isolation.level": "read_committed", "auto.offset.reset": "error", "fetch.wait.max.ms": 10,
                "log_level": 0,
            }
        )  # fmt: skip
        topics = self._stage.topics
        places = [(topics["scores"], n) for n in range(PARTITIONS)] + [(topics["dead_letters"], 0)]
        try:
            consumer.assign([TopicPartition(*place, 0) for place in places])
            while not self._stop.is_set():
                for message in consumer.consume(1000, 0.05):
                    error = message.error()
                    if error is None:
                        self._take(message, topics["dead_letters"])
                    elif error.fatal() or error.code() == KafkaError._AUTO_OFFSET_RESET:
                        raise KafkaException(error)  # noqa: TRY301 - told by `close`
        except BaseException as error:
            self.failure = error
        finally:
            consumer.close()

    def _take(self, message: Message, dead_letters: str) -> None:
        headers: dict[str, Any] = dict(message.headers() or [])
        if message.topic() == dead_letters:
            partition, offset = (int(headers[f"__connect.errors.{part}"]) for part in ("partition", "offset"))
            place = (headers["__connect.errors.topic"].decode(), partition, offset)
            if place in self.dead:
                self.doubled.append(str(place))
            self.dead.add(place)
            return
        ce_id = headers["ce_id"].decode()
        score = json.loads(message.value() or b"")
        where, _, at = ce_id.partition("@")
        if self._highest.get(where, -1) >= int(at):
            self.disordered.append(ce_id)
        self._highest[where] = max(int(at), self._highest.get(where, -1))
        if self._keep:
            if ce_id in self.scores:
                self.doubled.append(ce_id)
            self.scores[ce_id] = score["purchase_probability"]
        self.seen += 1
        sent = self._traffic.sent.pop(score["request_id"], None)
        if sent is None:
            self.doubled.append(ce_id)
            return
        self.latency_ms.append((time.monotonic() - sent) * 1000)
        number = int(where[where.index("[") + 1 : -1])
        self.newest[number] = max(sent, self.newest.get(number, 0.0))


@dataclass
class Slot:
    """One scorer: its configuration, and the process that runs it now."""

    instance: str
    file: Path
    port: int
    process: Process
    stopped: bool = False
    """SIGSTOPped: it hangs on purpose."""
    statuses: list[int] = field(default_factory=list)
    """How its processes ended."""

    def answers(self, path: str) -> bool:
        """Does it say yes to `/readyz` or `/healthz`?"""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:  # HTTPError is one
            return False


class Scorers:
    """Scorer processes; `tend` starts those again that ended, as a supervisor does, from a thread of its own.

    Args:
        count: how many.
    """

    def __init__(self, stage: Stage, folder: Path, count: int, **tables: dict[str, Any]) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.slots: list[Slot] = []
        for number in range(count):
            instance, port = f"scorer-{number + 1}", free_ports(1)[0]
            home = folder / instance
            home.mkdir()
            kafka = {**stage.values["kafka"], **tables.get("kafka", {}), "instance_id": instance}
            settings = {**tables, "kafka": kafka, "http": {"port": port}, "log": {"format": "json"}}
            if "snapshots" in tables:
                settings["snapshots"] = {**tables["snapshots"], "folder": str(folder / "snapshots")}
            file = stage.file(home, **settings)
            self.slots.append(Slot(instance, file, port, self._start(instance, file)))
        self._thread = threading.Thread(target=self._tend, name="supervisor", daemon=True)
        self._thread.start()
        self.failure = ""

    def ready(self) -> int:
        """How many say that they are ready."""
        return sum(slot.answers("/readyz") for slot in self.slots)

    def running(self) -> list[Slot]:
        """Those that run and are not SIGSTOPped."""
        with self._lock:
            return [slot for slot in self.slots if slot.process.running() and not slot.stopped]

    def signal(self, slot: Slot, number: signal.Signals) -> None:
        """To one scorer."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            slot.process.popen.send_signal(number)
            slot.stopped = number == signal.SIGSTOP

    def wait_ended(self, slot: Slot, timeout_s: float) -> float:
        """Seconds until the process that runs now has ended.

        Raises:
            Failed: it has not within `timeout_s`.
        """
        popen, started = slot.process.popen, time.monotonic()
        while popen.poll() is None:
            if time.monotonic() - started > timeout_s:
                raise Failed(f"{slot.instance} was told to stop {timeout_s:.0f} s ago: {slot.process.tail()}")
            time.sleep(0.01)
        return time.monotonic() - started

    def close(self) -> list[int]:
        """SIGTERM to all; their statuses."""
        self._stop.set()
        self._thread.join()
        for slot in self.slots:
            self.signal(slot, signal.SIGCONT)
            slot.process.popen.terminate()
        # Not twice: a second SIGTERM may meet an interpreter that has put its handlers away.
        return [slot.process.popen.wait(STOP_S) for slot in self.slots]

    def check(self) -> None:
        """
        Raises:
            Failed: a scorer ended with a status that no restart mends.
        """
        if self.failure:
            raise Failed(self.failure)

    def _start(self, instance: str, file: Path) -> Process:
        argv = [sys.executable, "-m", "streaming", "run", "-c", str(file)]
        return Process(instance, argv, self._folder / instance / "scorer.log", cwd=REPOSITORY)

    def _tend(self) -> None:
        while not self._stop.wait(RESTART_S):
            for slot in self.slots:
                status = slot.process.popen.poll()
                if status is None:
                    continue
                slot.statuses.append(status)
                if status in (1, 2, 3):
                    self.failure = f"{slot.instance} ended with status {status}: {slot.process.tail(60)}"
                with self._lock:
                    slot.process, slot.stopped = self._start(slot.instance, slot.file), False


@dataclass
class Verdict:
    """Every record of `user-actions` and `comments` beside what the subscriber saw of it."""

    actions: int = 0
    dead: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)

    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.wrong or self.disordered) and self.actions > 0


@dataclass
class Rig:
    """What `pipeline` has started."""

    folder: Path
    stage: Stage
    encoder: Encoder
    broker: Broker
    triton: Triton
    shop: Shop

    def records(self, topic: str) -> Iterator[list[Message]]:
        """Each partition of an input topic, whole."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.stage.bootstrap, "group.id": "verdict", "enable.auto.commit": False,
                "auto.offset.reset": "error", "enable.partition.eof": True,
            }
        )  # fmt: skip
        name = self.stage.topics[topic]
        try:
            for partition in sorted(consumer.list_topics(name, timeout=30).topics[name].partitions):
                consumer.assign([TopicPartition(name, partition, 0)])
                records: list[Message] = []
                while True:
                    messages = consumer.consume(10_000, 1.0)
                    records += [message for message in messages if message.error() is None]
                    if any(m.error() and m.error().code() == KafkaError._PARTITION_EOF for m in messages):  # type: ignore[union-attr]
                        break
                yield records
        finally:
            consumer.close()

    def judge(self, subscriber: Subscriber) -> Verdict:
        """Recomputes every score from the input topics, in their order, with a store of its own, and compares."""
        verdict = Verdict(doubled=subscriber.doubled, disordered=subscriber.disordered)
        store, decoder = loaded_store(), action_decoder(65_536, 300)
        refused: set[tuple[str, int, int]] = set()
        for topic, table in (("users", "bo_user"), ("products", "bo_product"), ("comments", "bo_comment")):
            decode = dimension_decoders(65_536, 300)[table].decode_all
            for records in self.records(topic):
                rows, _, bad = decode(records)  # type: ignore[arg-type]  # messages without errors are records
                refused |= {(r.topic(), r.partition(), r.offset()) for r, _ in bad}
                store.restore({table: dimension_columns(table, rows)}, None)
        for records in self.records("actions"):
            for at in range(0, len(records), RECOMPUTE_ROWS):
                events, good, bad = decoder.decode_all(records[at : at + RECOMPUTE_ROWS])  # type: ignore[arg-type]
                refused |= {(r.topic(), r.partition(), r.offset()) for r, _ in bad}
                if not events:
                    continue
                truth = probabilities(self.encoder.encode(store.answer({}, action_columns(events)))).tolist()
                for record, probability in zip(good, truth, strict=True):
                    ce_id = f"{record.topic()}[{record.partition()}]@{record.offset()}"
                    verdict.actions += 1
                    if ce_id not in subscriber.scores:
                        verdict.lost.append(ce_id)
                    elif subscriber.scores[ce_id] != probability:
                        verdict.wrong.append(ce_id)
        verdict.dead = len(refused)
        verdict.lost += [str(place) for place in sorted(refused - subscriber.dead)]
        verdict.wrong += [str(place) for place in sorted(subscriber.dead - refused)]
        if extra := len(subscriber.scores) - verdict.actions + sum("@" in place for place in verdict.lost):
            verdict.wrong.append(f"{extra} scores of no action")
        return verdict


@contextlib.contextmanager
def pipeline(folder: Path) -> Iterator[Rig]:
    """Kafka and Triton, topics, and the shop's users, products and comments; stopped at the end."""
    shop = Shop.seeded(300)
    encoder = fit(answers(shop), "seed")
    save_artifact(folder / "artifact", encoder)
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(Broker(folder / "kafka"))
        triton = stack.enter_context(Triton(folder / "artifact" / "triton", folder / "triton"))
        stage = Stage(broker.bootstrap, folder / "artifact", triton.grpc_url)
        stage.create_topics(broker)
        stage.send_shop(Shop([], shop.users, shop.products, shop.comments))
        yield Rig(folder, stage, encoder, broker, triton, shop)
