"""What the state is made of, and whether that is whole: no window may lack rows that nobody knows to be missing.

The rows of a partition come from history, a snapshot, and the log. They are whole when the log is read from its
beginning (offset 0), from where history ends, or from where a snapshot stands. Retention deletes the beginning of a
log; then only history or a snapshot can bring what was there. Beside each offset that it commits, the group notes what
its state was made of: a `Lineage`. A later start compares, and refuses where it could only score from a hole:

    a log that begins later than the state's lineage, and no history that       records are missing in it
        says that it reaches so far
    another topic id beside the offset                                          the topic was made anew
    another number of partitions                                                keys were moved away from their rows
    no offset in the group, but a snapshot that stands behind records           their scores would be published again

`kafka.begin_anew` (for one start) and `store.windows_may_start_empty` allow what they say. What was allowed is noted,
so that the next start need not be told again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog
import xxhash

from streaming.config import Config
from streaming.errors import ConfigError, LogNotWhole
from streaming.kafka.ahead import Ahead
from streaming.kafka.connection import Connection
from streaming.kafka.topics import Span, Topic, Topics
from streaming.ops.log import place

__all__ = ["OFFSETS_FILE", "History", "Lineage", "Lineages"]

Partition = tuple[str, int]

OFFSETS_FILE = "offsets.json"
"""In the history folder: {topic: {partition: offset}}, the first offsets whose records are not in the history."""

AHEAD = "ahead"

_CHUNK = 1 << 24

_log = structlog.stdlib.get_logger("streaming.kafka.lineage")


@dataclass(frozen=True)
class Lineage:
    """What the group's state of a partition is made of.

    Attributes:
        topic_id: of the topic whose records they are.
        partitions: how many that topic had.
        history: digest of the history folder; "": none.
        since: the log was read from this offset.
        actions: ids of the topics of events, in their order, with commas between. Kafka forgets a group's offsets of a
            topic that is deleted: those of the other topics still tell.
    """

    topic_id: str
    partitions: int
    history: str
    since: int
    actions: str

    def to_text(self) -> str:
        """As it is noted beside a committed offset."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Lineage | None:
        """The reverse; None: nothing, or somebody else's note."""
        try:
            fields = json.loads(text)
            fields.pop(AHEAD, None)
            lineage = cls(**fields)
        except (ValueError, TypeError, AttributeError):
            return None
        kinds = {"topic_id": str, "partitions": int, "history": str, "since": int, "actions": str}
        return lineage if all(type(fields[name]) is kind for name, kind in kinds.items()) else None


@dataclass(frozen=True)
class History:
    """The history folder: a digest of its data and offsets.json, and up to where it says that it reaches."""

    digest: str
    offsets: Mapping[Partition, int]

    @classmethod
    def read(cls, folder: str) -> History:
        """Reads it; "": there is none.

        Raises:
            ConfigError: it cannot be read, or offsets.json is not of its form.
        """
        if not folder:
            return cls("", {})
        try:
            return cls(_digest(Path(folder)), _offsets(Path(folder) / OFFSETS_FILE))
        except OSError as error:
            raise ConfigError(f"store.history: {error.filename or folder} cannot be read: {error.strerror}") from error


class Lineages:
    """The lineage of each input partition: what the group has noted, and what the state of this process has.

    Args:
        config: `[kafka]` and `[store]` are read.
        topics: what the broker says of them.

    Attributes:
        topics: the same.
        noted: what the group has noted of each partition at the last `read_notes`.
        history: as it was read last.
        ahead: of each partition that a scorer over a cluster has, what is done of it behind its offset.
    """

    def __init__(self, config: Config, topics: Topics) -> None:
        self._kafka, self._store = config.kafka, config.store
        self.topics = topics
        self._folder = config.store.history if config.store.kind == "embedded" else ""
        self.history = History.read(self._folder)
        self.noted: dict[Partition, Lineage] = {}
        self.ahead: dict[Partition, Ahead] = {}
        self._noted_ahead: dict[Partition, Ahead] = {}
        self._committed: set[Partition] = set()
        self._since: dict[Partition, int] = {}
        self._made_anew: set[str] = set()  # topics of events that were, and that was allowed

    def read_notes(self, connection: Connection | None = None) -> None:
        """Reads the group's notes.

        Args:
            connection: of whoever asks beside the loop.

        Raises:
            LogNotWhole: they are of another topic than is there, or of one with fewer partitions.
        """
        found = self.topics.notes(connection)
        self._committed = set(found)
        notes = {partition: Lineage.from_text(text) for partition, (_, text) in found.items()}
        self.noted = {partition: note for partition, note in notes.items() if note is not None}
        told = {partition: (at, _ahead(text)) for partition, (at, text) in found.items()}
        self._noted_ahead = {p: ahead for p, (at, ahead) in told.items() if ahead is not None and ahead.offset == at}
        for topic in self.topics.names.events:
            self._check_notes(topic)

    def _check_notes(self, topic: str) -> None:
        """Are the notes on a topic of events of the one that is there?"""
        now, events = self.topics.known[topic], self.topics.names.events
        notes = [note for (name, _), note in self.noted.items() if name == topic]
        of_now = [note for note in notes if note.topic_id == now.id]
        former = {note.topic_id for note in notes} - {now.id}
        told = [note.actions.split(",") for note in self.noted.values()]
        # Of an application with other streams it is not known whose they are.
        former |= {ids[events.index(topic)] for ids in told if len(ids) == len(events)} - {now.id}
        if former and not of_now:
            self._allow(
                f"topic {topic!r} was deleted and made anew since the group {self._kafka.group_id!r} has committed "
                f"offsets (its id was {', '.join(sorted(former))} and is {now.id})",
                "what was in it is gone, and windows would lack it",
                anew="begin with the first record of the new topic",
            )
            self._made_anew.add(topic)
        # Who has let partitions be added has noted it beside the first offset that it has committed since.
        if of_now and (before := max(note.partitions for note in of_now)) != now.partitions:
            self._allow(
                f"topic {topic!r} had {before} partitions and has {now.partitions}",
                "events of many keys lie in another partition now than their former ones: their windows would be "
                "wrong. Make a new topic of so many partitions and give the old events as history",
                anew="go on with windows that lack them",
            )

    def of_topic(self, partition: Partition) -> Lineage | None:
        """What is noted of a partition, if it is of the topic that is there now."""
        noted = self.noted.get(partition)
        return noted if noted and noted.topic_id == self.topics.known[partition[0]].id else None

    def is_of_former_topic(self, partition: Partition) -> bool:
        """Is the committed offset of a topic that was made anew since?"""
        return partition in self.noted and self.of_topic(partition) is None

    def check_snapshot(self, held: Mapping[Partition, int]) -> None:
        """Compares a snapshot with the group's offsets, as `read_notes` has found them.

        Args:
            held: up to where the snapshot has the records of each partition.

        Raises:
            LogNotWhole: records are in it of which the group says nothing: their scores would be published again.
        """
        missing = {partition: offset for partition, offset in held.items() if partition not in self._committed}
        spans = self.topics.spans(missing)
        others = ", ".join(self.topics.names.dimensions)
        for partition, offset in sorted(missing.items()):
            if offset > spans[partition].low:
                self._allow(
                    f"group {self._kafka.group_id!r} has no offset of {partition[0]}[{partition[1]}], but the snapshot "
                    f"has its records up to {offset}: the group was deleted, or expired (offsets.retention.minutes)",
                    "their scores would be published again. If the snapshot has all that was published, set the "
                    f"group's offset: kafka-consumer-groups.sh --reset-offsets --to-offset {offset}"
                    + (f"; likewise those of {others}, whose dead letters would come again too" if others else ""),
                    anew=(
                        f"publish them again, from offset {spans[partition].low} on"
                        if self._kafka.start == "earliest"
                        else f"begin at the end of the topic, {spans[partition].end} (kafka.start)"
                    ),
                )

    def first_offset(self, partition: Partition, span: Span) -> int:
        """Where the log has to be read from, of a partition of which no rows are there but history's.

        Raises:
            LogNotWhole: what lies before the log's first offset is nowhere.
        """
        low, noted = span.low, self.of_topic(partition)
        reaches = self._reaches(partition)
        if noted is not None and noted.history == self.history.digest and low <= noted.since:
            since = noted.since  # the same history and the same log as the published scores were made with
        elif reaches is not None and low <= reaches <= span.end:
            since = reaches
        elif reaches is None and low == 0:
            since = 0
        elif reaches is None and noted is None and self.history.digest:
            since = low
            _log.warning("history is taken to hold what the log does not", at=place(*partition, low))
        else:
            since = low
            self._allow(
                self._hole(partition, span, reaches),
                f"windows would lack their rows. {REMEDY}",
                "let them begin empty now",
                empty=True,
            )
        self._since[partition] = since
        return since

    def allows_gap(self, partition: Partition, held: int, low: int) -> bool:
        """May rows between those that are held and the log's first offset be missing?"""
        if not (self._kafka.begin_anew or self._store.windows_may_start_empty):
            return False
        _log.warning("goes on without the rows between, as it was told to", at=place(*partition, held), begins=low)
        return True

    def read_again(self) -> None:
        """Reads the history folder again: it may hold by now what retention has taken from the log."""
        self.history = History.read(self._folder)
        self._since.clear()

    def now(self, partition: Partition) -> Lineage:
        """What the state of this process is made of: to be noted beside each offset of the partition."""
        topic: Topic = self.topics.known[partition[0]]
        noted = self.of_topic(partition)
        since = self._since.get(partition, noted.since if noted else 0)
        actions = ",".join(self.topics.known[name].id for name in self.topics.names.events)
        return Lineage(topic.id, topic.partitions, self.history.digest, since, actions)

    def refuse_ahead(self) -> None:
        """For who replays the log, and would publish again what is done behind an offset.

        Raises:
            LogNotWhole: something is.
        """
        for partition, ahead in sorted(self._noted_ahead.items()):
            raise LogNotWhole(
                f"{len(ahead.done)} records behind {place(*partition, ahead.offset)} are scored already, by a scorer "
                "over a cluster that died: start it over the cluster once more and stop it, then its offsets say all"
            )

    def noted_ahead(self, partition: Partition, offset: int) -> Ahead:
        """What the group has noted to be done behind the offset that it has committed."""
        noted = self._noted_ahead.get(partition)
        return noted if noted is not None and noted.offset == offset else Ahead(offset)

    def note(self, partition: Partition) -> str:
        """`now`, and what is `ahead`, as text."""
        text = self.now(partition).to_text()
        ahead = self.ahead.get(partition, self._noted_ahead.get(partition))
        told = ahead.to_text() if ahead else ""
        return f'{text[:-1]},"{AHEAD}":"{told}"}}' if told else text

    def unnoted(self, positions: Mapping[Partition, int]) -> dict[Partition, int]:
        """Those positions whose lineage the group does not know yet: to be committed before anything is lost."""
        return {p: offset for p, offset in positions.items() if self.noted.get(p) != self.now(p)}

    def remember(self, positions: Mapping[Partition, int]) -> None:
        """These were committed, with their lineage."""
        self.noted.update({partition: self.now(partition) for partition in positions})

    def _reaches(self, partition: Partition) -> int | None:
        """Up to where history says that it reaches; None: nothing, or it speaks of a topic that was made anew since."""
        topic, said = partition[0], self.history.offsets
        now = self.topics.known[topic].id
        earlier = any(
            name == topic
            and note.topic_id == now
            and note.history == self.history.digest
            and note.since < said.get((name, number), 0)
            for (name, number), note in self.noted.items()
        )
        anew = topic in self._made_anew or self.topics.names.events[0] in self._made_anew
        return None if anew or earlier else said.get(partition)

    def _hole(self, partition: Partition, span: Span, reaches: int | None) -> str:
        begins = f"{partition[0]}[{partition[1]}] begins at offset {span.low}"
        if reaches is not None and reaches > span.end:
            return f"{OFFSETS_FILE} of store.history reaches to {place(*partition, reaches)}, the topic to {span.end}"
        if reaches is not None:
            return f"{begins}, store.history reaches to {reaches} ({OFFSETS_FILE}): the records between are gone"
        if self.history.digest:
            return (
                f"{begins}: the records before it are gone, and store.history does not say that it has them (if so, "
                f'put {OFFSETS_FILE} into it: {{"{partition[0]}": {{"{partition[1]}": {span.low}, …}}}})'
            )
        return f"{begins}: the records before it are gone, and neither history nor a snapshot has them"

    def _allow(self, what: str, harm: str, anew: str, *, empty: bool = False) -> None:
        """Raises, unless the configuration allows to go on all the same."""
        if self._kafka.begin_anew or (empty and self._store.windows_may_start_empty):
            _log.warning("goes on all the same, as it was told to", why=what)
            return
        raise LogNotWhole(f"{what}: {harm}. kafka.begin_anew = true for one start: {anew}")


REMEDY = (
    f"Copy a snapshot that has them into snapshots.folder, or give them as store.history with {OFFSETS_FILE}; "
    "store.windows_may_start_empty = true lets windows begin empty, always"
)


def _ahead(text: str) -> Ahead | None:
    """What a note says to be done behind its offset."""
    try:
        told = json.loads(text)[AHEAD]
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    return Ahead.from_text(told) if isinstance(told, str) else None


def _offsets(file: Path) -> dict[Partition, int]:
    try:
        whole = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigError(f"{file}: not valid JSON: {error}") from error
    found: dict[Partition, int] = {}
    try:
        for topic, offsets in whole.items():
            for number, offset in offsets.items():
                if type(offset) is not int or offset < 0:
                    raise ConfigError(f"{file}: {topic}[{number}]: {offset!r} is no offset")
                found[topic, int(number)] = offset
    except (AttributeError, ValueError) as error:
        raise ConfigError(f'{file}: is not of the form {{"topic": {{"0": 400}}}}') from error
    return found


def _digest(folder: Path) -> str:
    """Of names and contents of all files in a folder that may be data: no hidden ones, none of `_SUCCESS`' kind."""
    digest = xxhash.xxh3_128()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if any(part.startswith((".", "_")) for part in path.relative_to(folder).parts):
            continue
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
