"""What the subscriber must have seen: every score recomputed from the input topics, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from fixtures.artifact import probabilities
from fixtures.jd import jd, jd_decoder
from fixtures.scorer import Stage, loaded_store

from rigs.scorers import Rig, Subscriber
from rigs.traffic import Archive, Traffic, Upstream, epoch_of
from streaming.app.history import history_folder
from streaming.app.inputs import InputDecoder
from streaming.app.topics import TopicNames
from streaming.events.batch import EventBatch, joined

__all__ = ["Epoch", "Verdict", "events_before", "judge", "write_history"]

RECOMPUTE_ROWS = 37  # a batch of the verdict: another size than any batch of the scorers
DIMENSIONS = ("users", "products", "comments")


@dataclass
class Verdict:
    """Every record of `user-actions` and `comments` beside what the subscriber saw of it.

    Attributes:
        aborted: actions of upstream transactions that were aborted.
        trimmed: records that retention had taken when they were recomputed.
    """

    actions: int = 0
    dead: int = 0
    aborted: int = 0
    trimmed: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)

    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.wrong or self.disordered) and self.actions > 0


@dataclass
class Epoch:
    """The actions' topic from when it was made until it was made anew, or got partitions.

    Attributes:
        number: as in the records' headers.
        archive: its records.
        base: the events that the state begins with: history of an older topic.
        lows: what retention has left.
        ended: it ended before all was scored: of each partition, behind what was answered the rest must not be.
        at_least: up to where the group had committed shortly before that.
    """

    number: int
    archive: Archive
    base: EventBatch = field(default_factory=EventBatch)
    lows: dict[int, int] = field(default_factory=dict)
    ended: bool = False
    at_least: dict[int, int] = field(default_factory=dict)


def events_before(rig: Rig, epoch: Epoch, lows: dict[int, int] | None = None) -> EventBatch:
    """What a history must hold of an epoch: its base, and the accepted events before these offsets; None: all."""
    decoder, events = _decoder(rig.stage), [epoch.base]
    for number, records in sorted(epoch.archive.records.items()):
        wanted = [r for r in records if lows is None or (r.offset() or 0) < lows.get(number, 0)]
        if wanted:
            events.append(decoder.decode(wanted)[0])  # type: ignore[arg-type]  # messages without errors are records
    return joined(events)


def write_history(folder: Path, events: EventBatch) -> None:
    """Rows of the tables that actions are inserted into, in the layout that store.history has."""
    for name, rows in events.rows.items():
        home = folder / history_folder(jd(), name)
        home.mkdir(parents=True)
        pq.write_table(rows, home / "part-0.parquet")


def judge(rig: Rig, subscriber: Subscriber, epochs: list[Epoch], traffic: Traffic, upstream: Upstream) -> Verdict:
    """Recomputes every score with a store of its own, in the order of the records, and compares."""
    verdict = Verdict(doubled=subscriber.doubled, disordered=subscriber.disordered, aborted=len(upstream.aborted))
    dimensions = {topic: [r for records in _records(rig.stage, topic) for r in records] for topic in DIMENSIONS}
    judged = [_judged(rig, subscriber, epoch, dimensions, verdict) for epoch in epochs]
    expected = {place: name for of in judged for place, name in of.expected.items()}
    refused = {place for of in judged for place in of.refused}
    verdict.actions, verdict.dead = len(expected), len(refused)
    scored_of_nothing = sorted(subscriber.scores.keys() - expected.keys())
    verdict.wrong += [f"a score of no action: {place}" for place in scored_of_nothing]
    verdict.lost += [str(place) for place in sorted(refused - subscriber.dead)]
    verdict.wrong += [f"a dead letter of nothing refused: {place}" for place in sorted(subscriber.dead - refused)]
    # What the shops know, whatever the archive says.
    named = set(expected.values())
    verdict.wrong += [f"{name} was aborted" for name in sorted(upstream.aborted & named)]
    whole = {epoch.number for epoch in epochs if not epoch.ended}
    missing = sorted(name for name in traffic.acknowledged - named if epoch_of(name) in whole)
    verdict.lost += [f"{name} is not in the archive" for name in missing]
    return verdict


@dataclass
class _Judged:
    """What must have come of an epoch: place of an action → its request id; and the places of dead letters."""

    expected: dict[tuple[int, str], str | None] = field(default_factory=dict)
    refused: set[tuple[int, str, int, int]] = field(default_factory=set)


def _judged(
    rig: Rig, subscriber: Subscriber, epoch: Epoch, dimensions: Mapping[str, list[Message]], verdict: Verdict
) -> _Judged:
    judged, store, decoder = _Judged(), loaded_store(), _decoder(rig.stage)
    for topic in DIMENSIONS:
        events, bad = decoder.decode(dimensions[topic])  # type: ignore[arg-type]  # messages without errors are records
        judged.refused |= {(0, r.topic(), r.partition(), r.offset()) for r, _ in bad}
        store.restore(events)
    store.restore(epoch.base)
    answered = subscriber.answered_to(epoch.number)
    for number, archived in epoch.archive.records.items():
        # Behind the last that was answered, only markers may have been committed.
        between = range(answered[number], epoch.at_least.get(number, 0))
        verdict.lost += [f"epoch {epoch.number} [{number}]@{r.offset()}" for r in archived if r.offset() in between]
        records = [r for r in archived if not epoch.ended or (r.offset() or 0) < answered[number]]
        verdict.trimmed += sum((record.offset() or 0) < epoch.lows.get(number, 0) for record in records)
        for at in range(0, len(records), RECOMPUTE_ROWS):
            events, bad = decoder.decode(records[at : at + RECOMPUTE_ROWS])  # type: ignore[arg-type]
            judged.refused |= {(epoch.number, r.topic(), r.partition(), r.offset()) for r, _ in bad}
            if not len(events):
                continue
            truth = probabilities(rig.encoder.encode(store.answer(events))).tolist()
            for name, record, probability in zip(events.sender_ids, events.records, truth, strict=True):
                place = epoch.number, f"{record.topic()}[{record.partition()}]@{record.offset()}"
                judged.expected[place] = name
                if (score := subscriber.scores.get(place)) is None:
                    verdict.lost.append(f"epoch {place[0]} {place[1]}")
                elif score != (name, probability):
                    verdict.wrong.append(f"epoch {place[0]} {place[1]}: {score}, not {probability}")
    return judged


def _decoder(stage: Stage) -> InputDecoder:
    return jd_decoder(TopicNames.of(jd(), stage.topics))


def _records(stage: Stage, topic: str) -> Iterator[list[Message]]:
    """Each partition of an input topic, whole."""
    consumer = Consumer(
        {
            "bootstrap.servers": stage.bootstrap,
            "group.id": "verdict",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
        }
    )
    name = stage.topics[topic]
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
