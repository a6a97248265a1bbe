"""Messages that kill the process: the journal's files, who becomes suspect by them, and who is put aside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from places import REPOSITORY
from simulation.broker import Entry

from streaming.config import Config
from streaming.errors import ConfigError, FolderTaken, Rebalanced, StoreUnavailable
from streaming.events.dead_letter import dead_letter, fingerprint
from streaming.events.record import Record, reason
from streaming.loop.poison.detection import KillsProcess, Poison, open_poison
from streaming.loop.poison.journal import Journal, Note, Span

TRIES_MAX = 3


def record(offset: int, value: bytes = b"x", topic: str = "actions", partition: int = 0) -> Entry:
    return Entry((topic, partition), offset, b"key", value, [], 1)


def opened(folder: Path, tries_max: int = TRIES_MAX) -> Poison:
    """Of the scorer whose folder it is."""
    return Poison(Journal(folder), tries_max, ("users",))


class Died(BaseException):
    """SIGKILL, as far as the journal sees it."""


def die_with(folder: Path, *records: Record, stage: str = "decode", replayed: bool = False) -> None:
    """A process with these in hand."""
    poison = opened(folder)
    with pytest.raises(Died), poison.hold(records, replayed=replayed):
        poison.note_stage(stage)
        raise Died
    poison.close()


def pieces(poison: Poison, records: Sequence[Record], *, replayed: bool = False) -> list[list[int]]:
    """The offsets of each piece."""
    return [[one.offset() for one in piece] for piece in poison.split(records, replayed=replayed)[0]]


def test_nothing_is_suspect_after_an_orderly_end(tmp_path: Path) -> None:
    poison = opened(tmp_path)
    with poison.hold([record(4), record(5)]):
        pass
    poison.close()
    poison = opened(tmp_path)
    assert not poison.has_suspects
    records = [record(4), record(5)]
    assert poison.split(records) == ([records], [])
    assert poison.split([]) == ([], [])
    poison.close()


def test_what_was_in_hand_at_death_is_prepared_alone_and_the_rest_is_not(tmp_path: Path) -> None:
    die_with(tmp_path, record(4), record(6), record(9, partition=1))
    poison = opened(tmp_path)
    assert poison.has_suspects
    assert poison.has_suspects_in({("actions", 1)})
    assert not poison.has_suspects_in({("actions", 2), ("users", 0)})
    assert pieces(poison, [record(n) for n in range(2, 9)]) == [[2, 3], [4], [5], [6], [7, 8]]
    assert pieces(poison, [record(8, partition=1), record(9, partition=1)]) == [[8], [9]]
    poison.close()


def test_a_record_is_put_aside_after_so_many_deaths_alone(tmp_path: Path) -> None:
    killer = record(5, b"kills")
    die_with(tmp_path, record(4), killer, record(6))
    for times in range(TRIES_MAX):
        poison = opened(tmp_path)
        assert pieces(poison, [record(4), killer, record(6)]) == [[4], [5], [6]], times
        poison.close()
        die_with(tmp_path, killer, stage="features")
    poison = opened(tmp_path)
    alone, [(found, why)] = poison.split([record(4), killer, record(6)])
    assert [[one.offset() for one in piece] for piece in alone] == [[4], [6]]
    assert found is killer
    assert isinstance(why, KillsProcess)
    assert (reason(why), why.stage) == ("kills_process", "features")
    assert str(why) == "3 processes died when this record was prepared alone"
    headers = dict(dead_letter(killer, why, 10_000, "group")[2])
    assert headers["__connect.errors.exception.class.name"] == b"streaming.poison.KillsProcess"
    # Another record at its place, in a topic that was made anew, is prepared, and its own deaths are counted.
    heir = record(5, b"innocent")
    assert pieces(poison, [record(4), heir]) == [[4], [5]]
    assert poison.split([heir])[1] == []
    poison.close()
    die_with(tmp_path, heir)
    poison = opened(tmp_path)
    assert poison.split([heir])[1] == []
    assert [one for one, _ in poison.split([killer])[1]] == [killer]
    poison.close()


def test_deaths_by_a_dimension_row_count_on_until_its_dead_letter_is_published(tmp_path: Path) -> None:
    # A snapshot may stand behind a row that its maker has put aside: who starts from it reads the row when it gets to
    # publish it, and not before.
    killer = record(2, topic="users")
    for _ in range(TRIES_MAX):
        poison = opened(tmp_path)
        assert poison.split([killer])[1] == []
        poison.clear_before({("users", 0): 3}, {})
        poison.read_journals({})
        with pytest.raises(Died), poison.hold((), [killer]):
            raise Died
        poison.close()
    poison = opened(tmp_path)
    poison.clear_before({("users", 0): 3}, {("users", 0): 2})
    poison.read_journals({})
    assert [one for one, _ in poison.split([killer])[1]] == [killer]
    poison.close()


def test_a_batch_of_one_names_its_record_at_once(tmp_path: Path) -> None:
    for _ in range(TRIES_MAX):
        die_with(tmp_path, record(7))
    poison = opened(tmp_path)
    assert [one.offset() for one, _ in poison.split([record(7)])[1]] == [7]
    poison.close()


def test_a_defect_counts_as_a_death_and_an_outage_does_not(tmp_path: Path) -> None:
    for _ in range(TRIES_MAX):
        poison = opened(tmp_path)
        with pytest.raises(RecursionError), poison.hold([record(7)]):
            poison.note_stage("encode")
            raise RecursionError("too deep")
        poison.close()  # as a process does that ends by an exception
    poison = opened(tmp_path)
    [(_, why)] = poison.split([record(7)])[1]
    assert (why.stage, str(why)[-24:]) == ("encode", "RecursionError: too deep")
    for outage in (StoreUnavailable("away"), Rebalanced("while the store is away")):
        with pytest.raises(type(outage)), poison.hold([record(8)]):
            raise outage
        poison.close()
        poison = opened(tmp_path)
        assert pieces(poison, [record(8), record(9)]) == [[8, 9]]
    # Killed while a server was waited for:
    with pytest.raises(Died), poison.hold([record(8)]):
        poison.put_down()
        raise Died
    poison.close()
    poison = opened(tmp_path)
    assert pieces(poison, [record(8), record(9)]) == [[8, 9]]
    with pytest.raises(Died), poison.hold([record(8)]):
        poison.put_down()
        poison.take_up()
        raise Died
    poison.close()
    poison = opened(tmp_path)
    assert pieces(poison, [record(8), record(9)]) == [[8], [9]]
    poison.close()


def test_suspicion_ends_behind_what_was_committed_and_dimensions_are_remembered(tmp_path: Path) -> None:
    die_with(tmp_path, record(4), record(5))
    killer = record(2, topic="users")
    for _ in range(TRIES_MAX):
        poison = opened(tmp_path)
        with pytest.raises(Died), poison.hold((), [killer]):
            raise Died
        poison.close()
    poison = opened(tmp_path)
    poison.clear_before({("actions", 0): 5, ("users", 0): 2}, {("users", 0): 3})  # not yet
    assert poison.has_suspects_in({("actions", 0)})
    assert poison.has_suspects_in({("users", 0)})
    poison.clear_before({("actions", 0): 6, ("users", 0): 3}, {("users", 0): 3})
    assert not poison.has_suspects
    poison.close()
    # The dimension topics are read again at every start: there the record is put aside again.
    poison = opened(tmp_path)
    assert [one for one, _ in poison.split([killer])[1]] == [killer]
    assert pieces(poison, [record(4), record(5)]) == [[4, 5]]
    poison.close()


def test_committed_records_are_never_put_aside(tmp_path: Path) -> None:
    die_with(tmp_path, record(1), record(2), replayed=True)
    for _ in range(TRIES_MAX + 1):
        die_with(tmp_path, record(2), replayed=True)
    poison = opened(tmp_path)
    assert pieces(poison, [record(n) for n in range(4)], replayed=True) == [[0], [1], [2], [3]]
    assert poison.split([record(2)], replayed=True)[1] == []
    assert not poison.has_suspects  # as to what is prepared
    poison.rebuilt()
    poison.close()
    poison = opened(tmp_path)
    assert pieces(poison, [record(n) for n in range(4)], replayed=True) == [[0, 1, 2, 3]]
    poison.close()


def test_scorers_with_a_common_folder_know_each_others_deaths(tmp_path: Path) -> None:
    killer = record(5, b"kills")
    one, two = tmp_path / "one", tmp_path / "two"
    die_with(one, record(4), killer)
    die_with(one, killer)
    die_with(one, killer)  # and it does not start again
    poison = opened(two)
    poison.read_journals({("actions", 0): 4})
    assert pieces(poison, [record(4), killer, record(6)]) == [[4], [5], [6]]
    with pytest.raises(Died), poison.hold([killer]):
        raise Died
    poison.close()
    poison = opened(two)
    poison.read_journals({("actions", 0): 4})
    [(_, why)] = poison.split([record(4), killer])[1]
    assert str(why).startswith("3 processes died")
    # Its partition has come with a position behind them: they are no concern.
    poison.read_journals({("actions", 0): 6})
    assert not poison.has_suspects
    # What a living scorer has in hand is no death.
    alive = opened(one)
    with alive.hold([record(9), record(10)]):
        poison.read_journals({("actions", 0): 6})
        assert not poison.has_suspects
    poison.close()
    alive.close()


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("in-hand", b"\0" * 10, "damaged"),
        ("in-hand", b"#!/bin/sh\nexec something-else", "foreign"),
        ("in-hand", b"jdpoison\x09\0\0\0" + bytes(12), "future"),
        ("in-hand", b"jdpoison\x01\0\0\0\x05\0\0\0" + bytes(8) + b"wrong", "damaged"),
        ("deaths.json", b"{", "damaged"),
        ("deaths.json", b"\xff\xfe", "damaged"),
        ("deaths.json", b"[]", "foreign"),
        ("deaths.json", b'{"format": 7, "news": 1}', "future"),
        ("deaths.json", b'{"format": 1, "deaths": [{}]}', "damaged"),
    ],
)
def test_a_file_that_cannot_be_used_is_set_aside_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, kind: str
) -> None:
    (tmp_path / name).write_bytes(content)
    beside = opened(tmp_path.parent / "beside")
    beside.read_journals({})  # whoever looks at it does not mind
    beside.close()
    poison = opened(tmp_path)
    assert (tmp_path / f"{kind}-{name}").read_bytes() == content
    assert str(tmp_path / name) in capsys.readouterr().out
    assert not poison.has_suspects
    poison.close()
    die_with(tmp_path, record(4))
    poison = opened(tmp_path)
    assert poison.has_suspects
    poison.close()


def test_a_note_that_was_cut_off_says_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(Note(journal.run, [Span("actions", 0, 4, 6)]))
    journal.close()
    file = tmp_path / "in-hand"
    os.truncate(file, file.stat().st_size - 1)
    poison = opened(tmp_path)
    assert not poison.has_suspects
    poison.close()


def test_a_death_counts_once_even_when_its_entry_was_interrupted(tmp_path: Path) -> None:
    die_with(tmp_path, record(4))
    note = (tmp_path / "in-hand").read_bytes()
    opened(tmp_path).close()
    (tmp_path / "in-hand").write_bytes(note)  # the ledger was written, the note not yet cleared
    opened(tmp_path).close()
    assert [death["times"] for death in json.loads((tmp_path / "deaths.json").read_bytes())["deaths"]] == [1]


def test_two_processes_do_not_share_a_journal(tmp_path: Path) -> None:
    poison = opened(tmp_path)
    with pytest.raises(FolderTaken, match=f"{tmp_path} is in use by another process"):
        opened(tmp_path)
    poison.close()
    opened(tmp_path).close()
    with pytest.raises(ConfigError, match=r"poison\.folder: /proc/nowhere"):
        Journal(Path("/proc/nowhere"))


def test_a_full_disk_costs_the_journal_and_not_the_flow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    poison = opened(tmp_path)
    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    for _ in range(3):
        with poison.hold([record(4)]):
            pass
    assert capsys.readouterr().out.count("No space left") == 1
    poison.close()


def test_where_the_journal_lies(tmp_path: Path) -> None:
    def folder(**tables: dict[str, object]) -> list[str]:
        poison = open_poison(Config.model_validate({"kafka": {"instance_id": "me"}, **tables}), ())
        poison.close()
        return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("in-hand"))

    assert folder() == []
    assert folder(poison={"folder": str(tmp_path / "a"), "tries_max": 0}) == []
    assert folder(snapshots={"folder": str(tmp_path / "b")}) == ["b/me/in-hand"]
    both = folder(snapshots={"folder": str(tmp_path / "b")}, poison={"folder": str(tmp_path / "a")})
    assert both == ["a/me/in-hand", "b/me/in-hand"]


def test_a_note_outlives_its_process(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom test_poison import opened, record\n"
        "with opened(Path(sys.argv[1])).hold([record(4), record(5)]):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}:{REPOSITORY / 'tests' / 'loop'}"}
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env={**os.environ, **path}, check=False)
    assert done.returncode == -signal.SIGKILL
    poison = opened(tmp_path)
    assert pieces(poison, [record(3), record(4), record(5)]) == [[3], [4], [5]]
    poison.close()


def test_a_fingerprint_tells_records_apart() -> None:
    one = record(1)
    assert fingerprint(one) == fingerprint(record(2))  # its place is beside it
    others = [
        Entry(("actions", 0), 1, b"key", None, [], 1),
        Entry(("actions", 0), 1, b"key", b"", [], 1),
        Entry(("actions", 0), 1, None, b"x", [], 1),
        Entry(("actions", 0), 1, b"keyx", b"", [], 1),
        Entry(("actions", 0), 1, b"key", b"x", [], 2),
    ]
    assert len({fingerprint(one), *map(fingerprint, others)}) == 6
