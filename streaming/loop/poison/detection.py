"""Messages that kill whoever prepares them: found, counted, and put aside as dead letters.

    in hand together   Before records are decoded, inserted, answered and encoded, the journal notes which they are;
                       afterwards it is cleared. What a dead process has left there is suspect.
    in hand alone      Suspects are prepared one at a time, each noted by itself, so that the next death names one.
    put aside          A record that was in hand alone at `tries_max` deaths is not prepared any more: it is a dead
                       letter, `KillsProcess`, published and committed with its batch like any other.

Only `prepare` is cut up: batches and transactions stay as they are, and so do the answers, because a micro-batch is
answered as if its events came one after the other. Nothing is noted while a record is polled, scored or published: a
process that dies there dies of something else. While there are suspects, a batch is published before the next is
prepared, so that a death in the publishing thread is not laid to a record that has nothing to do with it.

An exception that is no outage leaves the note as a death does: the process ends, its successor would raise it again.

A record is known by its place and its fingerprint: another one, in a topic that was made anew, is not its heir. Scorers
with a common folder read each other's journals, because a partition may move while its scorer is dead.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog
from confluent_kafka import KafkaException

from streaming.config import Config
from streaming.errors import BadEvent, NoSpace, ScorerError
from streaming.events.dead_letter import fingerprint
from streaming.events.record import Record
from streaming.loop.poison.journal import Death, Journal, Ledger, Note, Span
from streaming.ops.log import place

__all__ = ["KillsProcess", "Poison", "open_poison"]

ASIDE_MAX = 1000  # records of dimension topics that are remembered as put aside: they are read again at every start

Partition = tuple[str, int]
"""(topic, partition)"""

_log = structlog.stdlib.get_logger("streaming.loop.poison.detection")


class KillsProcess(BadEvent):
    """The process died each time that the record was prepared alone; `stage` says of what."""


def open_poison(config: Config, dimensions: Collection[str]) -> Poison:
    """Who is suspect by the journal of this scorer, in `poison.folder` or beside its snapshots.

    Args:
        dimensions: the topics that every scorer reads whole.

    Raises:
        ConfigError: the folder cannot be used.
        FolderTaken: another process uses it.
    """
    settings = config.poison
    root = settings.folder or config.snapshots.folder
    if not settings.tries_max:
        return Poison()
    if not root:
        _log.info("a message that kills the process will not be put aside: set poison.folder")
        return Poison()
    try:
        journal = Journal(Path(root) / config.kafka.instance)
    except NoSpace as error:
        _log.error("a message that kills the process will not be put aside: the disk is full", error=str(error))
        return Poison()
    return Poison(journal, settings.tries_max, dimensions)


class Poison:
    """Who is suspect, and who is put aside.

    Args:
        journal: none: nobody ever is.
        tries_max: deaths of one record in hand alone.
        dimensions: the topics that are read whole at every start.
    """

    def __init__(self, journal: Journal | None = None, tries_max: int = 0, dimensions: Collection[str] = ()) -> None:
        self._journal, self._tries_max, self._dimensions = journal, tries_max, dimensions
        self._note: Note | None = None
        self._beside: list[Span] = []
        self._suspects: dict[Partition, list[Span]] = {}
        self._replayed: dict[Partition, list[Span]] = {}
        self._deaths: dict[tuple[str, int, int], list[Death]] = {}
        if journal is not None:
            if journal.left is not None:
                death = _add_death(journal.left, journal.ledger)
                journal.save()
                if death is not None:
                    _log.error(
                        "a process died with one record in hand",
                        at=place(*death.place, death.offset),
                        times=death.times,
                        tries_max=tries_max,
                        stage=death.stage,
                        why=death.why,
                        read_to_rebuild_the_state=death.replayed,
                    )
            journal.clear()
            self._collect_suspects([], {})

    def close(self) -> None:
        """Ends the journal; what is in hand stays noted."""
        if self._journal is not None:
            self._journal.close()

    # ── preparing ────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def hold(
        self, records: Sequence[Record], dimension_records: Sequence[Record] = (), *, replayed: bool = False
    ) -> Iterator[None]:
        """These are in hand, until the block ends; a death or a defect in it leaves them so.

        Args:
            records: of one topic.
            replayed: they were committed before.
        """
        if self._journal is None or not (records or dimension_records):
            yield
            return
        spans = _spans(records)
        for topic in self._dimensions if dimension_records else ():
            spans += _spans([record for record in dimension_records if record.topic() == topic])
        note = Note(self._journal.run, spans + self._beside, stage="decode", replayed=replayed)
        if len(records) + len(dimension_records) == 1 and not self._beside:
            note.fingerprint = fingerprint(next(iter((*records, *dimension_records))))
        self._note = note
        self._journal.write(note)
        try:
            yield
        except (ScorerError, KafkaException):
            self.put_down()  # outages, and orders to leave
            self._note = None
            raise
        except Exception as error:
            note.why = f"{type(error).__name__}: {error}"[:200]
            self._journal.write(note)
            raise
        self._note = None
        self._hold_beside()

    def hold_beside(self, records: Sequence[Record]) -> None:
        """These are in hand beside whatever else is, until it is called again.

        Args:
            records: in the order of their partitions; none: nothing is.
        """
        self._beside = _spans(records)
        if self._note is None:
            self._hold_beside()

    def _hold_beside(self) -> None:
        if self._journal is None:
            return
        if self._beside:
            self._journal.write(Note(self._journal.run, self._beside, stage="decode", replayed=False))
        else:
            self._journal.clear()

    def note_stage(self, stage: str) -> None:
        """What is being done now to what is in hand."""
        if self._note is not None and self._note.fingerprint:
            self._note.stage = stage
            self.take_up()

    def put_down(self) -> None:
        """Nothing is done to what is in hand: a server is waited for."""
        if self._note is not None and self._journal is not None:
            self._journal.clear()

    def take_up(self) -> None:
        """It goes on."""
        if self._note is not None and self._journal is not None:
            self._journal.write(self._note)

    # ── suspects ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def has_suspects(self) -> bool:
        """Is anything suspect?"""
        return bool(self._suspects)

    def has_suspects_in(self, partitions: Collection[Partition]) -> bool:
        """Is anything in these partitions?"""
        return not self._suspects.keys().isdisjoint(partitions)

    def split(
        self, records: Sequence[Record], *, replayed: bool = False
    ) -> tuple[list[Sequence[Record]], list[tuple[Record, BadEvent]]]:
        """Records in the pieces in which they are to be prepared, in order: suspects alone; and those put aside.

        Args:
            replayed: they were committed before. Of those none is put aside: their rows belong to the state.
        """
        spans = self._replayed if replayed else self._suspects
        if not spans:
            return ([records] if records else []), []
        pieces: list[Sequence[Record]] = []
        run: list[Record] = []
        aside: list[tuple[Record, BadEvent]] = []
        for record in records:
            if not any(s.first <= record.offset() < s.end for s in spans.get((record.topic(), record.partition()), ())):
                run.append(record)
                continue
            if run:
                pieces.append(run)
                run = []
            if not replayed and (why := self._killer(record)):
                aside.append((record, why))
            else:
                pieces.append([record])
        return [*pieces, run] if run else pieces, aside

    def read_journals(self, positions: Mapping[Partition, int]) -> None:
        """Partitions have come: takes in what is known of them, by the journals of all scorers that share the folder.

        Args:
            positions: of the actions' partitions that this scorer has. What lies before them is committed.
        """
        if self._journal is None:
            return
        sibling_ledgers = []
        for note, ledger in self._journal.siblings():
            if note is not None:
                _add_death(note, ledger)
            sibling_ledgers.append(ledger)
        self._collect_suspects(sibling_ledgers, positions)

    def clear_before(self, positions: Mapping[Partition, int], published: Mapping[Partition, int]) -> None:
        """What lies before `positions` is committed, or was read without a death: nobody there is suspect any more.

        Args:
            published: up to where the dead letters of dimension topics are. A row behind that is read once more by who
                gets to publish them, though a snapshot has it, or has it put aside: what is known of it stays written.
        """
        if self._journal is None:
            return
        ledger = self._journal.ledger
        if not (self._suspects or ledger.suspects or ledger.deaths):
            return

        def passed(partition: Partition) -> int:
            position = positions.get(partition, 0)
            return min(position, published.get(partition, 0)) if partition[0] in self._dimensions else position

        suspects = [span for span in ledger.suspects if passed(span.place) < span.end]
        deaths = [death for death in ledger.deaths if passed(death.place) <= death.offset or self._is_kept(death)]
        if (suspects, deaths) != (ledger.suspects, ledger.deaths):
            ledger.suspects, ledger.deaths = suspects, deaths[-ASIDE_MAX:]
            self._journal.save()
        for partition, spans in list(self._suspects.items()):
            self._suspects[partition] = [span for span in spans if positions.get(partition, 0) < span.end]
            if not self._suspects[partition]:
                del self._suspects[partition]

    def rebuilt(self) -> None:
        """The state is there: what was read for it has killed nobody."""
        if self._journal is None:
            return
        ledger = self._journal.ledger
        deaths = [death for death in ledger.deaths if not death.replayed]
        if ledger.replayed or len(deaths) < len(ledger.deaths):
            ledger.replayed, ledger.deaths = [], deaths
            self._journal.save()
        self._replayed = {}

    # ── deaths ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _killer(self, record: Record) -> KillsProcess | None:
        """Why a record is put aside, if it is."""
        deaths = self._deaths.get((record.topic(), record.partition(), record.offset()))
        if not deaths:
            return None
        this_record = fingerprint(record)
        deaths = [death for death in deaths if death.fingerprint == this_record]
        times = sum(death.times for death in deaths)
        if times < self._tries_max:
            return None
        last = deaths[-1]
        why = f": {last.why}" if last.why else ""
        return KillsProcess(last.stage, f"{times} processes died when this record was prepared alone{why}")

    def _is_kept(self, death: Death) -> bool:
        """Is it to be put aside again at the next start?"""
        return death.topic in self._dimensions and death.times >= self._tries_max

    def _collect_suspects(self, sibling_ledgers: Sequence[Ledger], positions: Mapping[Partition, int]) -> None:
        """Who is suspect by all ledgers."""
        if self._journal is None:
            return
        own = self._journal.ledger
        self._suspects, self._replayed, self._deaths = {}, {}, {}
        for ledger in (own, *sibling_ledgers):
            for death in ledger.deaths:
                if not death.replayed:
                    self._deaths.setdefault((*death.place, death.offset), []).append(death)
            for span in (*ledger.suspects, *(_span(death) for death in ledger.deaths if not death.replayed)):
                if positions.get(span.place, 0) < span.end:
                    self._suspects.setdefault(span.place, []).append(span)
        for span in (*own.replayed, *(_span(death) for death in own.deaths if death.replayed)):
            self._replayed.setdefault(span.place, []).append(span)
        if self._suspects or self._replayed:
            _log.warning(
                "records are prepared one by one: a process died with them in hand",
                suspects=[
                    f"{place(s.topic, s.partition, s.first)} … {s.end - 1}"
                    for spans in (*self._suspects.values(), *self._replayed.values())
                    for s in spans
                ][:100],
            )


def _add_death(note: Note, ledger: Ledger) -> Death | None:
    """What a dead process had in hand becomes part of its ledger, once; the death, if it names one record."""
    if note.run == ledger.run:
        return None
    ledger.run = note.run
    if not note.fingerprint:
        suspects = ledger.replayed if note.replayed else ledger.suspects
        suspects += [span for span in note.spans if span not in suspects]
        return None
    (span,) = note.spans
    for death in ledger.deaths:
        if (_span(death), death.fingerprint, death.replayed) == (span, note.fingerprint, note.replayed):
            break
    else:
        death = Death(span.topic, span.partition, span.first, note.fingerprint, 0, "", replayed=note.replayed)
        ledger.deaths.append(death)
    death.times += 1
    death.stage, death.why = note.stage, note.why
    return death


def _span(death: Death) -> Span:
    return Span(death.topic, death.partition, death.offset, death.offset + 1)


def _spans(records: Sequence[Record]) -> list[Span]:
    """Of records of one topic, each partition's in order: from the first to the last of each."""
    if not records:
        return []
    topic = records[0].topic()
    firsts = {record.partition(): record for record in reversed(records)}
    lasts = {record.partition(): record for record in records}
    return [Span(topic, p, firsts[p].offset(), last.offset() + 1) for p, last in lasts.items()]
