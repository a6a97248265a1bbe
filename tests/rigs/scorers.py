"""The whole pipeline as processes, for `chaos` and `soak`: Kafka, Triton, scorers that are started again, and a
subscriber. What is sent is in `traffic`, what has to come of it in `verdict`.

The model is the tests' own (`fixtures.scorer.ANSWER`), behind a real Triton: its answer hashes all columns, so that one
wrong feature anywhere is another probability.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGSTOP, Signals
from typing import Any

from confluent_kafka import Message
from fixtures.artifact import save_artifact
from fixtures.scorer import PARTITIONS, Shop, Stage, answers
from places import REPOSITORY

from batch.dataset.fit_encoder import fit
from deploy.kafka.broker import Broker
from deploy.kafka.clients import Follower
from deploy.process import Process, free_ports
from deploy.triton.server import Triton
from rigs.traffic import EPOCH, Failed, Traffic, epoch_of
from streaming.events.scores import event_place, score_json
from streaming.model.encoder import Encoder

__all__ = ["NOT_WHOLE", "Rig", "Scorers", "Slot", "Subscriber", "damage", "pipeline"]

RESTART_S = 0.5  # a supervisor's pause before it starts a process again
STOP_S = 60.0
NOT_WHOLE = re.compile(
    r"are gone|is gone|begins at|holds \d+ to|made anew|was deleted|partitions and has|has no offset of|history reaches"
)
"""What a scorer says at its end when it refuses to score from a hole."""


class Subscriber:
    """Another system that reads scores: `read_committed`, from the start of both topics, on a thread of its own.

    Args:
        keep: remember every score.
        by_key: scores keep the order of their keys, not that of their partitions: as over a cluster.

    Attributes:
        scores: (epoch, ce_id) → request id and probability; ce_id is topic[partition]@offset of the action. Empty with
            `keep` False.
        dead: (epoch, topic, partition, offset) of the dead letters' records; the epoch of dimension rows is 0.
        doubled: ce_ids and places that came again.
        disordered: ce_ids that came after a later one of their partition, or key.
        seen: scores so far.
        latency_ms: of the scores since it was last emptied.
        newest: partition of the actions → when its newest score's action was sent (monotonic seconds).
        covered: (topic, partition) that is read → up to where.
    """

    def __init__(self, stage: Stage, traffic: Traffic, keep: bool = True, by_key: bool = False) -> None:
        self.scores: dict[tuple[int, str], tuple[str, float]] = {}
        self.dead: set[tuple[int, str, int, int]] = set()
        self.doubled: list[str] = []
        self.disordered: list[str] = []
        self.seen = 0
        self.latency_ms: list[float] = []
        self.newest: dict[int, float] = {}
        self._highest: dict[tuple[int, str], int] = {}
        self._last: dict[tuple[int, str, bytes | None], int] = {}
        self._stage, self._traffic, self._keep, self._by_key = stage, traffic, keep, by_key
        places = [(stage.topics["scores"], n) for n in range(PARTITIONS)] + [(stage.topics["dead_letters"], 0)]
        self._follower = Follower("subscriber", stage.bootstrap, places, self._take)
        self.covered = self._follower.covered

    @property
    def failure(self) -> BaseException | None:
        return self._follower.failure

    def start(self) -> None:
        self._follower.start()

    def close(self) -> None:
        self._follower.close()
        if self.failure is not None:
            raise Failed(f"the subscriber failed: {self.failure}") from self.failure

    def answered_to(self, epoch: int) -> dict[int, int]:
        """Of each partition of the actions the offset behind the last record that was scored or is a dead letter."""
        ends = dict.fromkeys(range(PARTITIONS), 0)
        for of, where in list(self._highest):
            if of == epoch:
                number = int(where[where.index("[") + 1 : -1])
                ends[number] = max(ends[number], self._highest[of, where] + 1)
        for of, topic, number, offset in list(self.dead):
            if of == epoch and topic == self._stage.topics["actions"]:
                ends[number] = max(ends[number], offset + 1)
        return ends

    def _take(self, message: Message, _: float) -> None:
        headers: dict[str, Any] = dict(message.headers() or [])
        if message.topic() == self._stage.topics["dead_letters"]:
            partition, offset = (int(headers[f"__connect.errors.{part}"]) for part in ("partition", "offset"))
            topic = headers["__connect.errors.topic"].decode()
            place = (int(headers.get(EPOCH, b"0")), topic, partition, offset)
            if place in self.dead:
                self.doubled.append(str(place))
            self.dead.add(place)
            return
        event = event_place(message)
        score = json.loads(score_json(message) or b"")
        request_id, probability = score["request_id"], score["purchase_probability"]
        epoch, (where, at) = epoch_of(request_id), event.split("@")
        lane = epoch, where, message.key() if self._by_key else None
        if self._last.get(lane, -1) >= int(at):
            self.disordered.append(event)
        self._last[lane] = int(at)
        self._highest[epoch, where] = max(int(at), self._highest.get((epoch, where), -1))
        self.seen += 1
        sent = self._traffic.sent.pop(request_id, None)
        if self._keep:
            if (epoch, event) in self.scores:
                self.doubled.append(event)
            self.scores[epoch, event] = request_id, probability
        elif sent is None:
            self.doubled.append(event)
        if sent is None:  # an upstream transaction of unknown outcome: the verdict tells
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
    held: bool = False
    """Not started again, until `Scorers.start`."""
    over: bool = False
    """Its process has ended, and was taken note of."""
    refusal: str = ""
    """Why it refuses to go on; it is held then."""
    statuses: list[int] = field(default_factory=list)
    """How its processes ended."""
    log_from: int = 0
    """Where its process's part of the log begins."""

    def answers(self, path: str) -> bool:
        """Does it say yes to `/readyz` or `/healthz`?"""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:  # HTTPError is one
            return False

    def last_words(self) -> str:
        """The line in which its process has said why it ends."""
        with self.process.log.open("rb") as log:
            log.seek(self.log_from)
            lines = log.read().decode(errors="replace").splitlines()
        return next((line for line in reversed(lines) if line.startswith("jd-intent-score: ")), "")


class Scorers:
    """Scorer processes; `tend` starts those again that ended, as a supervisor does, from a thread of its own.

    One that refuses to go on because the log is not whole is not started again: that is its operator's turn.

    Args:
        count: how many.

    Attributes:
        passing: words of a wrong configuration that pass by themselves; else that is a failure.
    """

    def __init__(self, stage: Stage, folder: Path, count: int, **tables: dict[str, Any]) -> None:
        self._stage, self._folder, self._tables = stage, folder, tables
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.passing: Callable[[str], bool] = lambda _: False
        self.failure = ""
        self.slots: list[Slot] = []
        self.snapshots = folder / "snapshots"
        for number in range(count):
            instance, port = f"scorer-{number + 1}", free_ports(1)[0]
            (folder / instance).mkdir()
            file = self._file(instance, port)
            self.slots.append(Slot(instance, file, port, self._started(instance, file)))
        self._thread = threading.Thread(target=self._tend, name="supervisor", daemon=True)
        self._thread.start()

    def ready(self) -> int:
        """How many say that they are ready."""
        return sum(slot.answers("/readyz") for slot in self.slots)

    def running(self) -> list[Slot]:
        """Those that run and are not SIGSTOPped."""
        with self._lock:
            return [slot for slot in self.slots if slot.process.running() and not slot.stopped]

    def refused(self) -> list[Slot]:
        """Those that wait for their operator."""
        return [slot for slot in self.slots if slot.refusal]

    def signal(self, slot: Slot, number: Signals) -> None:
        """To one scorer."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            slot.process.popen.send_signal(number)
            slot.stopped = number == SIGSTOP

    def hold(self, slot: Slot, number: Signals) -> None:
        """Ends a scorer, and does not start it again before `start`.

        Raises:
            Failed: it does not end.
        """
        with self._lock:
            slot.held = True
        self.signal(slot, number)
        deadline = time.monotonic() + STOP_S
        while not slot.over:
            if time.monotonic() > deadline:
                raise Failed(f"{slot.instance} was told to stop {STOP_S:.0f} s ago: {slot.process.tail()}")
            time.sleep(0.02)

    def configure(self, **tables: dict[str, Any]) -> None:
        """Other settings, from each scorer's next start on."""
        for name, keys in tables.items():
            self._tables[name] = {**self._tables.get(name, {}), **keys}
        for slot in self.slots:
            slot.file = self._file(slot.instance, slot.port)

    def start(self, slot: Slot, **once: dict[str, Any]) -> None:
        """Starts one that is held.

        Args:
            once: settings of this start only.
        """
        file = slot.file if not once else self._file(slot.instance, slot.port, "once", **once)
        with self._lock:
            self._start(slot, file)

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
        """SIGTERM to all; the statuses of those that were not held."""
        self._stop.set()
        self._thread.join()
        flowing = [slot for slot in self.slots if not slot.held]
        for slot in flowing:
            self.signal(slot, SIGCONT)
            slot.process.popen.terminate()
        # Not twice: a second SIGTERM may meet an interpreter that has put its handlers away.
        return [slot.process.popen.wait(STOP_S) for slot in flowing]

    def check(self) -> None:
        """
        Raises:
            Failed: a scorer ended with a status that no restart mends.
        """
        if self.failure:
            raise Failed(self.failure)

    def _file(self, instance: str, port: int, folder: str = "", **once: dict[str, Any]) -> Path:
        home = self._folder / instance / folder
        home.mkdir(exist_ok=True)
        tables = {name: {**self._tables.get(name, {}), **once.get(name, {})} for name in {*self._tables, *once}}
        # Every other one writes the other form: a subscriber meets both at once, as while a setting is rolled out.
        form = "structured" if instance.endswith(("2", "4")) else "binary"
        own = {"instance_id": instance, "cloudevents": form}
        kafka = {**self._stage.values["kafka"], **tables.get("kafka", {}), **own}
        settings = {**tables, "kafka": kafka, "http": {"port": port}, "log": {"format": "json"}}
        if "snapshots" in tables:
            settings["snapshots"] = {**tables["snapshots"], "folder": str(self.snapshots)}
        return self._stage.file(home, **settings)

    def _started(self, instance: str, file: Path) -> Process:
        argv = [sys.executable, "-m", "streaming", "run", "-c", str(file)]
        return Process(instance, argv, self._folder / instance / "scorer.log", cwd=REPOSITORY)

    def _start(self, slot: Slot, file: Path) -> None:
        slot.log_from = slot.process.log.stat().st_size
        slot.process = self._started(slot.instance, file)
        slot.stopped = slot.held = slot.over = False
        slot.refusal = ""

    def _tend(self) -> None:
        while not self._stop.wait(RESTART_S):
            for slot in self.slots:
                status = slot.process.popen.poll()
                if status is None or slot.over:
                    continue
                slot.statuses.append(status)
                words = slot.last_words()
                if status in (1, 2, 3) and not self.passing(words):
                    self.failure = f"{slot.instance} ended with status {status}: {slot.process.tail(60)}"
                with self._lock:
                    if status == 5 and NOT_WHOLE.search(words):
                        slot.refusal, slot.held = words, True
                    slot.over = True
                    if not slot.held:
                        self._start(slot, slot.file)


@dataclass
class Rig:
    """What `pipeline` has started."""

    folder: Path
    stage: Stage
    encoder: Encoder
    broker: Broker
    triton: Triton
    shop: Shop


def damage(snapshot: Path, luck: random.Random) -> None:
    """Cuts, changes or removes one of its files."""
    file = luck.choice(sorted(snapshot.iterdir()))
    content = bytearray(file.read_bytes())
    match luck.choice(("cut", "changed", "gone")):
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case "changed":
            content[luck.randrange(len(content))] ^= 0x10
            file.write_bytes(content)
        case _:
            file.unlink()


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
