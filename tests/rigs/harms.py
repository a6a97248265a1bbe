"""What `chaos` does to the log and the group, what a scorer may say then, and what its operator does about it.

A scorer that refuses to go on is held until `Harms.look` has judged its words against what was done: it may refuse
only what was harmed, and only where its own snapshot does not have what is gone. Then the remedy that the words name is
applied. Any other refusal ends the run.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic
from fixtures.scorer import PARTITIONS

from deploy.process import ProcessFailed
from rigs.scorers import Rig, Scorers, Slot, Subscriber, damage
from rigs.traffic import Archive, Failed, Traffic, Upstream
from rigs.verdict import Epoch, events_before, write_history
from streaming.events.batch import EventBatch
from streaming.kafka.lineage import OFFSETS_FILE

__all__ = ["Harms"]

PATIENCE_S = 240.0  # for whatever must come
FILLED_ACTIONS = 300  # real ones, behind the old offsets of a topic that was made anew
TRANSACTION_RECORDS = 5_000


@dataclass
class Harms:
    """Each method does one harm and returns when it was done (monotonic seconds), once all its remedies are on the way.

    Attributes:
        epochs: of the actions' topic, the present one last.
        refusals: how often a scorer has refused, by why.
        remedies: how often each was applied.
    """

    rig: Rig
    scorers: Scorers
    traffic: Traffic
    upstream: Upstream
    subscriber: Subscriber
    luck: random.Random
    epochs: list[Epoch]
    refusals: Counter[str] = field(default_factory=Counter)
    remedies: Counter[str] = field(default_factory=Counter)
    _low_marks: set[tuple[int, int]] = field(default_factory=set)
    _reaches: dict[int, int] = field(default_factory=dict)
    _histories: int = 0
    _settled: float = 0.0
    """When the topic and the history became what they are (wall clock)."""

    def __post_init__(self) -> None:
        self._admin: AdminClient | None = None  # the last one: it must outlive its futures
        self.topic = self.rig.stage.topics["actions"]
        self.group = f"group-{self.rig.stage.name}"

    @property
    def epoch(self) -> Epoch:
        return self.epochs[-1]

    # ── retention ────────────────────────────────────────────────────────────────────────────────────────────────────

    def trim(self) -> float:
        """Deletes records up to a point at or below what the group has committed of each partition."""
        stage, lows = self.rig.stage, self.epoch.lows
        committed = dict(enumerate(stage.committed()))
        self.epoch.archive.wait(committed)
        wanted = [
            TopicPartition(self.topic, n, self.luck.choice((end, self.luck.randint(lows.get(n, 0), end))))
            for n, end in committed.items()
        ]
        for of, future in self.admin.delete_records(wanted).items():
            lows[of.partition] = future.result(30).low_watermark
            self._low_marks.add((of.partition, lows[of.partition]))
        return time.monotonic()

    def trim_and_kill(self) -> float:
        """A scorer dies; who gets its partitions may never have had them."""
        self.trim()
        running = self.scorers.running()
        if running:
            self.scorers.signal(self.luck.choice(running), signal.SIGKILL)
        return time.monotonic()

    def trim_and_damage(self) -> float:
        """A scorer dies, the log is trimmed, and no snapshot of it is whole when it comes back."""
        slot = self.luck.choice(self.scorers.slots)
        self.scorers.hold(slot, signal.SIGKILL)
        self.trim()
        for snapshot in self._home(slot).glob("snapshot-*"):
            damage(snapshot, self.luck)
        self.scorers.start(slot)
        return time.monotonic()

    # ── the group ────────────────────────────────────────────────────────────────────────────────────────────────────

    def delete_group(self) -> float:
        """Deletes the group's offsets while all scorers are stopped, and sets them again once all have refused."""
        self.stop_all()
        self._read_all_that_was_published()
        self._retried(lambda: self.admin.delete_consumer_groups([self.group])[self.group].result(30))
        done = time.monotonic()
        lows = self.epoch.lows
        # Who has no snapshot knows nothing of the group, and would publish all again: not before the offsets are set.
        holding = [
            slot
            for slot in self.scorers.slots
            if any(offset > lows.get(number, 0) for number, offset in self._snapshot(slot).items())
        ]
        for slot in holding:
            self.scorers.start(slot)
        self._all_refuse(holding, "group deleted", "has no offset of|begins at offset")
        self._set_offsets()
        self._start_all()
        return done

    def _set_offsets(self) -> None:
        """To what was published, as the messages say: what the subscriber has seen, or a snapshot stands for."""
        topics = self.rig.stage.topics
        ends = self.subscriber.answered_to(self.epoch.number)
        ends = {n: max(end, self.epoch.lows.get(n, 0)) for n, end in ends.items()}
        for slot in self.scorers.slots:  # behind the last record there may be markers
            ends = {n: max(end, self._snapshot(slot).get(n, 0)) for n, end in ends.items()}
        offsets = [TopicPartition(self.topic, n, end) for n, end in ends.items()]
        for topic in (topics["users"], topics["products"], topics["comments"]):
            dead = [offset for _, name, _, offset in self.subscriber.dead if name == topic]
            offsets.append(TopicPartition(topic, 0, max(dead, default=-1) + 1))
        wanted = [ConsumerGroupTopicPartitions(self.group, offsets)]
        self._retried(lambda: self.admin.alter_consumer_group_offsets(wanted)[self.group].result(30))
        self.remedies["the group's offsets set"] += 1

    def _read_all_that_was_published(self) -> None:
        """Waits for the subscriber; transactions of scorers that were killed end meanwhile."""
        topics = self.rig.stage.topics
        scores, letters = self.rig.stage.ends("scores"), self.rig.stage.ends("dead_letters", 1)
        ends = {(topics["scores"], n): end for n, end in enumerate(scores)} | {(topics["dead_letters"], 0): letters[0]}
        self._wait(
            lambda: all(self.subscriber.covered.get(place, 0) >= end for place, end in ends.items()),
            lambda: f"the subscriber has read {self.subscriber.covered} of {ends}: {self.subscriber.failure}",
        )

    # ── the topic ────────────────────────────────────────────────────────────────────────────────────────────────────

    def make_anew(self, flows: Callable[[Slot, float], None]) -> float:
        """Deletes the topic, makes it anew and fills it past the old offsets; one scorer is frozen, one dead meanwhile.

        Args:
            flows: waits until a scorer alone has scored events of both partitions that were sent after a time.
        """
        scorers, stage = self.scorers, self.rig.stage
        self._wait(lambda: bool(scorers.running()), lambda: "no scorer runs")
        frozen = self.luck.choice(scorers.running())
        scorers.signal(frozen, signal.SIGSTOP)
        dead = self.luck.choice([slot for slot in scorers.slots if slot is not frozen])
        scorers.hold(dead, signal.SIGKILL)
        time.sleep(1.0)  # what comes now is not scored by those
        self.upstream.close()
        self.traffic.close()
        old, ends = self.epoch, stage.ends()
        old.archive.wait(dict(enumerate(ends)))
        old.at_least = dict(enumerate(stage.committed()))
        scorers.passing = lambda words: self.topic in words  # no such topic, for a moment
        self.admin.delete_topics([self.topic])[self.topic].result(30)
        done = time.monotonic()
        self._retried(self._create_topic)
        old.archive.close()
        old.ended = True
        self.epochs.append(Epoch(old.number + 1, Archive(stage)))
        self.traffic.epoch = self.epoch.number
        self.traffic.sent.clear()
        self._fill(ends)
        self.traffic.start()
        before = self.traffic.actions
        self._wait(lambda: self.traffic.actions > before + FILLED_ACTIONS, lambda: "no traffic comes")
        scorers.signal(frozen, signal.SIGCONT)
        scorers.start(dead)
        self._all_refuse(scorers.slots, "topic made anew", "made anew|was deleted")
        scorers.passing = lambda _: False
        self._read_all_that_was_published()
        if any(epoch == self.epoch.number for epoch, _ in list(self.subscriber.scores)):
            raise Failed("events of the new topic were scored before anybody allowed it")
        self._low_marks.clear()
        self._begin_anew(old, flows)
        self.upstream.start()
        return done

    def _create_topic(self) -> None:
        self.admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)])[self.topic].result(30)

    def _fill(self, ends: list[int]) -> None:
        """Brings the new topic to the old one's offsets, with records that nobody will ever see."""
        producer = Producer(
            {"bootstrap.servers": self.rig.stage.bootstrap, "transactional.id": f"filler-{self.epoch.number}"}
        )
        producer.init_transactions(30)
        for number, end in enumerate(ends):
            for at in range(0, end, TRANSACTION_RECORDS):
                producer.begin_transaction()
                for _ in range(min(TRANSACTION_RECORDS, end - at)):
                    producer.produce(self.topic, b"{", b"nobody", partition=number)
                producer.flush(60)
                producer.abort_transaction(60)

    def _begin_anew(self, old: Epoch, flows: Callable[[Slot, float], None]) -> None:
        """One scorer is told to, for one start; the old events are given as history, or forgotten."""
        if self.luck.random() < 0.5:
            self.epoch.base = events_before(self.rig, old)
            history = str(self._write(self.epoch.base, {}))
        else:
            history = ""
        self._reaches, self._settled = {}, time.time()
        self.scorers.configure(store={"history": history})
        first = self.luck.choice(self.scorers.slots)
        started = time.monotonic()
        self.scorers.start(first, kafka={"begin_anew": True})
        self.remedies["kafka.begin_anew for one start"] += 1
        flows(first, started)
        self._start_all()

    def add_partitions(self) -> float:
        """For ever: all refuse, and nothing is published from then on."""
        self.traffic.with_comments = False  # actions tell by their offsets where it ended; these do not
        comments = self.rig.stage.topics["comments"]

        def all_dead() -> bool:
            dead = sum(topic == comments for _, topic, *_ in list(self.subscriber.dead))
            return dead >= (self.traffic.comments + 1) // 2

        self._wait(all_dead, lambda: "a comment's dead letter does not come")
        done = time.monotonic()
        self.epoch.at_least = dict(enumerate(self.rig.stage.committed()))
        self.admin.create_partitions([NewPartitions(self.topic, PARTITIONS + 1)])[self.topic].result(30)
        self._all_refuse(self.scorers.slots, "partitions added", r"had \d+ partitions and has \d+")
        self.epoch.ended = True
        return done

    # ── what scorers say, and what is done about it ──────────────────────────────────────────────────────────────────

    def look(self) -> None:
        """Judges who has refused since the last look, and applies the remedy.

        Raises:
            Failed: a refusal that nothing has caused.
        """
        for slot in self.scorers.refused():
            self._judge(slot)
            if not (self.luck.random() < 0.5 and self._copy_snapshot(slot)):
                self._give_history()
                return

    def _judge(self, slot: Slot) -> None:
        if not self._names_a_trim(slot.refusal) or self._covers(slot):
            raise Failed(
                f"{slot.instance} refuses without a cause: {slot.refusal}; trimmed to {self.epoch.lows}, history "
                f"reaches to {self._reaches}, its snapshot stands at {self._snapshot(slot)}"
            )
        self.refusals["log trimmed"] += 1
        slot.refusal = ""

    def _names_a_trim(self, refusal: str) -> bool:
        """Does it say where a partition begins that retention has cut, further than history reaches?"""
        told = re.search(re.escape(self.topic) + r"\[(\d+)\] begins at offset (\d+)", refusal)
        number, low = (int(told[1]), int(told[2])) if told else (-1, 0)
        return (number, low) in self._low_marks and self._reaches.get(number, 0) < low

    def _copy_snapshot(self, slot: Slot) -> bool:
        """From another scorer whose snapshot has what was trimmed; False: there is none."""
        donors = [other for other in self.scorers.slots if other is not slot and self._covers(other)]
        if not donors:
            return False
        home = self._home(slot)
        given = self._newest(self._home(self.luck.choice(donors)))
        number = max((int(path.name.rpartition("-")[2]) for path in home.glob("*-0*")), default=0) + 1
        target = home / f"snapshot-{number:06d}"
        try:
            shutil.copytree(str(given), target)
        except (OSError, shutil.Error):  # its owner has removed it meanwhile
            shutil.rmtree(target, ignore_errors=True)
            return False
        self.scorers.start(slot)
        self.remedies["a peer's snapshot copied"] += 1
        return True

    def _give_history(self) -> None:
        """What was trimmed, as history for all, with the offsets that it reaches to."""
        self.stop_all()
        for slot in self.scorers.refused():
            self._judge(slot)
        reaches = {number: self.epoch.lows.get(number, 0) for number in range(PARTITIONS)}
        self.epoch.archive.wait(reaches)
        folder = self._write(events_before(self.rig, self.epoch, reaches), reaches)
        self._reaches, self._settled = reaches, time.time()
        self.scorers.configure(store={"history": str(folder)})
        self._start_all()
        self.remedies["the trimmed records given as history"] += 1

    def _write(self, events: EventBatch, reaches: Mapping[int, int]) -> Path:
        self._histories += 1
        folder = self.rig.folder / f"history-{self._histories}"
        folder.mkdir()
        if len(events):
            write_history(folder, events)
        if reaches:
            offsets = {self.topic: {str(number): offset for number, offset in reaches.items()}}
            (folder / OFFSETS_FILE).write_text(json.dumps(offsets))
        return folder

    def stop_all(self) -> None:
        """SIGTERM to each; none is started again before `_start_all`."""
        for slot in self.scorers.slots:
            self.scorers.hold(slot, signal.SIGTERM)

    def _start_all(self) -> None:
        for slot in self.scorers.slots:
            if slot.held:
                self.scorers.start(slot)

    def _all_refuse(self, slots: list[Slot], why: str, words: str) -> None:
        """Waits until each has refused, in these words; they stay held."""

        def refused() -> bool:
            for slot in slots:  # one that was given a partition just before may have had a reason of its own
                if slot.refusal and not re.search(words, slot.refusal) and self._names_a_trim(slot.refusal):
                    self.refusals["log trimmed"] += 1
                    self.scorers.start(slot)
            return all(slot.refusal for slot in slots)

        self._wait(
            refused,
            lambda: "\n".join(f"{s.instance} did not refuse: {s.process.tail(8)}" for s in slots if not s.refusal),
        )
        for slot in slots:
            if not re.search(words, slot.refusal):
                raise Failed(f"{why}: {slot.instance} refuses for another reason: {slot.refusal}")
            self.refusals[why] += 1
            slot.refusal = ""

    # ── snapshots ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _home(self, slot: Slot) -> Path:
        return self.scorers.snapshots / slot.instance

    def _newest(self, home: Path) -> Path | None:
        return max(home.glob("snapshot-*"), default=None)

    def _snapshot(self, slot: Slot) -> dict[int, int]:
        """Up to where the newest snapshot of this topic and history has each partition's records; of none: {}."""
        newest = self._newest(self._home(slot))
        try:
            stands = json.loads((newest / "manifest.json").read_text())["snapshot"] if newest else None
        except (OSError, ValueError):  # its owner has removed it meanwhile, or it is damaged
            return {}
        if stands is None or stands["made_at"] < self._settled:
            return {}
        return {number: offset for _, number, offset in stands["actions"]}

    def _covers(self, slot: Slot) -> bool:
        """Has its newest snapshot all that was trimmed?"""
        stands = self._snapshot(slot)
        return all(stands.get(number, 0) >= low for number, low in self.epoch.lows.items() if low)

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def admin(self) -> AdminClient:
        """A client of its own for each question: one that has lived through its broker's death is told nothing more."""
        self._admin = AdminClient({"bootstrap.servers": self.rig.stage.bootstrap, "log_level": 0})
        return self._admin

    def _wait(self, condition: Callable[[], bool], otherwise: Callable[[], str]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            self.scorers.check()
            if time.monotonic() > deadline:
                raise Failed(otherwise())
            time.sleep(0.05)

    def _retried(self, call: Callable[[], Any]) -> None:
        """Again and again: the group's members are missed only later, a deleted topic is gone only later."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                call()
            except (KafkaException, ProcessFailed, FutureTimeoutError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return
