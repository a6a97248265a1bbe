"""`jd-intent-score dlq replay`: the records of dead letters go back to the topics that they came from, each once.

1. The transactional.id of replays is taken: another replay that is under way is fenced, its open transaction ended.
2. The dead-letter topic is read to its end: its markers say which records were sent back already.
3. Records are sent, in the order in which they lay in their partitions, to those partitions; in each transaction with
   a marker that names them. A death at any time leaves both or neither, and the next replay goes on behind them.

A record goes back with its bytes, key and headers, and one more: where it was. Its event time is in its value: windows
take it to its place. The time of the record in Kafka is that of the replay.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from streaming.app.topics import TopicNames
from streaming.config import Config
from streaming.dlq.letters import MARKER, PATIENCE_S, Letter, LetterFilter, Name, Replayed, read_letters
from streaming.errors import Aborted, ConfigError, TransactionFatal
from streaming.events.scores import Headers
from streaming.kafka.connection import Connection
from streaming.kafka.login import Login
from streaming.kafka.producer import Publisher
from streaming.kafka.rights import check_topics, of_replay
from streaming.ops.log import place

__all__ = ["REPLAYED_FROM", "ReplayOutcome", "replay"]

REPLAYED_FROM = "jd_intent.replayed_from"
"""Header of a record that was sent back: the place where it was refused."""

BATCH_RECORDS = 200  # of one transaction, whose names one marker holds
BATCH_BYTES = 4_000_000
MARKER_BYTES = 200  # of a marker, beside the names: its header and the record batch's own
BYTES_MAX = 256_000_000  # of records that are held in memory; what is more is left to the next replay
ABORTS_MAX = 10


@dataclass
class ReplayOutcome:
    """What a replay did.

    Attributes:
        sent: whose records are in their topics again (of a dry run: would be), in order.
        already: how many of those asked for were sent back by an earlier replay.
        refused: which cannot be sent back, and why.
        left: how many were left to the next replay.
    """

    sent: list[Letter] = field(default_factory=list)
    already: int = 0
    refused: list[tuple[Letter, str]] = field(default_factory=list)
    left: int = 0


def replay(
    config: Config,
    topics: TopicNames,
    wanted: LetterFilter,
    *,
    limit: int,
    dry_run: bool = False,
    step: Callable[[str], None] = lambda _: None,
) -> ReplayOutcome:
    """Sends back the records of the dead letters that are wanted and were not sent back before; the oldest first.

    Args:
        limit: how many at most.
        dry_run: says what it would do. Does not disturb another replay.
        step: called with a step's name after it was done; tests die in it.

    Raises:
        ConfigError: a topic does not exist, Kafka refuses the login, or the scorers read what is not committed.
        NotAllowed: a topic may not be read or written, or the transactional id not be used.
        TransactionFatal: another replay has begun. What this one has committed is marked.
        BrokerUnavailable: no answer for `PATIENCE_S`, or for `kafka.give_up_after_s` in a transaction.
    """
    kafka = config.kafka
    if kafka.isolation_level != "read_committed":
        raise ConfigError(
            "kafka.isolation_level: replay needs read_committed: a scorer may see what a replay takes back"
        )
    if dry_run:
        return _collect(config, topics, wanted, limit)
    connection = Connection(threading.Event(), login=Login(kafka))
    inputs = sorted(topics.inputs)
    check_topics(kafka, of_replay(topics, inputs), connection, PATIENCE_S, keys=topics.keys)
    publisher = Publisher(kafka, topics, connection, f"{kafka.transactional_id_prefix}.dlq-replay", inputs)
    try:
        publisher.start()
        step("start")
        outcome = _collect(config, topics, wanted, limit)
        step("read")
        for batch in _batches(outcome.sent, publisher.dead_letter_bytes_max):
            _send(publisher, batch, step)
    except TransactionFatal as error:
        raise TransactionFatal(f"another replay has begun, or the producer is lost; give it again: {error}") from error
    finally:
        publisher.close()
    return outcome


def _collect(config: Config, topics: TopicNames, wanted: LetterFilter, limit: int) -> ReplayOutcome:
    """What is to be sent, in the order of origins. Of a record with several letters (of several groups), one."""
    marked: set[Name] = set()
    for each in read_letters(config, topics):
        if isinstance(each, Replayed):
            marked.update(each.names)
    outcome, size, taken = ReplayOutcome(), 0, set[Name]()
    for letter in read_letters(config, topics):
        if isinstance(letter, Replayed) or not wanted.takes(letter) or letter.name in taken:
            continue
        if letter.name in marked:
            outcome.already += 1
        elif why := _impossible(letter, topics.inputs):
            outcome.refused.append((letter, why))
        elif len(outcome.sent) >= limit or size > BYTES_MAX:
            outcome.left += 1
        else:
            outcome.sent.append(letter)
            size += _bytes(letter)
        if letter.name:
            taken.add(letter.name)
    # Letters of a key lie in one partition of their topic, in order; of a partition, maybe in several.
    outcome.sent.sort(key=lambda letter: letter.origin or ("", 0, 0))
    return outcome


def _impossible(letter: Letter, inputs: Collection[str]) -> str:
    """Why its record cannot go back; "": it can."""
    if letter.origin is None:
        return "it does not say where it came from"
    if letter.origin[0] not in inputs:
        return f"{letter.origin[0]!r} is no input topic of this configuration"
    return f"it was cut: {letter.cut}" if letter.cut else ""


def _batches(letters: Sequence[Letter], marker_bytes_max: int) -> Iterator[list[Letter]]:
    """In order, in pieces that a transaction takes.

    Args:
        marker_bytes_max: the largest record that the dead-letter topic takes.
    """
    batch: list[Letter] = []
    size = names = 0
    for letter in letters:
        named = len(msgspec.json.encode(letter.name)) + 1
        if batch and (
            len(batch) == BATCH_RECORDS
            or size + _bytes(letter) > BATCH_BYTES
            or names + named > marker_bytes_max - MARKER_BYTES
        ):
            yield batch
            batch, size, names = [], 0, 0
        batch.append(letter)
        size, names = size + _bytes(letter), names + named
    if batch:
        yield batch


def _bytes(letter: Letter) -> int:
    return len(letter.key or b"") + len(letter.value or b"")


def _send(publisher: Publisher, batch: Sequence[Letter], step: Callable[[str], None]) -> None:
    """Records and marker: both, or neither.

    Raises:
        TransactionFatal: `ABORTS_MAX` in a row came to nothing.
    """
    names = [letter.name for letter in batch]
    marker: Headers = [(MARKER, str(len(batch)).encode())]
    for _ in range(ABORTS_MAX):
        try:
            publisher.begin()
            step("begin")
            for letter in batch:
                topic, partition, offset = letter.origin or ("", 0, 0)
                own = [header for header in letter.headers if header[0] != REPLAYED_FROM]
                headers: Headers = [*own, (REPLAYED_FROM, place(topic, partition, offset).encode())]
                publisher.records(topic, partition, [(letter.key, letter.value, headers)])
            step("records")
            publisher.dead_letters([(None, msgspec.json.encode(names), marker)])
            step("marker")
            publisher.commit()
        except Aborted as error:
            failure = error
        else:
            step("commit")
            return
    raise TransactionFatal(f"{ABORTS_MAX} transactions in a row were aborted, the last: {failure}") from failure
