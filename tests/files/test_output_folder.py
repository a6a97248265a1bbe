"""A folder is written whole or not at all, and what was there before a refusal or a failure is there after it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.folders import contents, write
from places import REPOSITORY

from streaming.errors import OutputRefused
from streaming.files import work_folder
from streaming.files.output_folder import EVERYTHING, MARKER, appending, check, link, made, mark, replacing
from streaming.ops.exits import message


def test_a_folder_is_replaced_whole_and_says_what_made_it(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    write(out, "one", "deep/two", text="1")
    write(out, "three", text="22")
    told = json.loads((out / MARKER).read_text())
    assert (told["kind"], told["files"]) == ("features", {"three": 2})
    assert made(out) == ["three"]
    assert sorted(path.name for path in out.iterdir()) == [MARKER, "three"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_of_a_full_disk_it_is_said_which_folder_had_no_room(tmp_path: Path) -> None:
    """A write says what is wrong, and not where."""
    out = tmp_path / "out"
    with pytest.raises(OSError, match="No space left") as told, replacing(out, "features"):
        Path("/dev/full").write_text("x")
    assert message(told.value) == f"{out}: No space left on device"
    assert [*tmp_path.iterdir()] == []


def test_an_empty_folder_keeps_its_permissions_and_a_link_stays_a_link(tmp_path: Path) -> None:
    place, way = tmp_path / "place", tmp_path / "way"
    place.mkdir(mode=0o750)
    way.symlink_to(place)
    write(way, "one")
    assert way.is_symlink()
    assert place.stat().st_mode & 0o777 == 0o750
    assert made(place) == ["one"]


def foreign(out: Path) -> None:
    (out / "deep" / "notes.txt").write_text("mine")


def foreign_link(out: Path) -> None:
    (out / "notes.txt").symlink_to("/nowhere")


def longer(out: Path) -> None:
    (out / "one").write_text("longer")


def younger(out: Path) -> None:
    (out / "one").write_text("old")
    later = (out / MARKER).stat().st_mtime_ns + 1
    os.utime(out / "one", ns=(later, later))


def older(out: Path) -> None:
    """Of the same size: what `cp -p` puts in its place."""
    (out / "one").write_text("ald")
    os.utime(out / "one", (1_000_000_000, 1_000_000_000))


def empty_folder(out: Path) -> None:
    (out / "deep" / "later").mkdir()


def byte_code(out: Path) -> None:
    (out / "__pycache__").mkdir()
    (out / "__pycache__" / "mine.cpython-310.pyc").touch()


def folder_of_a_work_folder_s_name(out: Path) -> None:
    (out / f"{MARKER}.work-mine").mkdir()
    (out / f"{MARKER}.work-mine" / "notes.txt").touch()


def deep_work_folder(out: Path) -> None:
    (out / "deep" / f"{MARKER}.work-x").mkdir()
    (out / "deep" / f"{MARKER}.work-x" / "lock").touch()


def another_kind(out: Path) -> None:
    mark(out, "world")


def no_marker(out: Path) -> None:
    (out / MARKER).unlink()


def damaged_marker(out: Path) -> None:
    (out / MARKER).write_text('{"kind": "features"}')


def only_a_file_of_its_name(out: Path) -> None:
    shutil.rmtree(out)
    out.mkdir()
    (out / MARKER).write_text("my settings")


STRANGE: dict[Callable[[Path], None], str] = {
    foreign: "holds deep/notes.txt, which `jd-intent-batch extract` did not make",
    foreign_link: "holds notes.txt, which",
    longer: "holds one, which was changed since",
    younger: "holds one, which was changed since",
    older: "holds one, which was changed since",
    empty_folder: "holds deep/later/, which `jd-intent-batch extract` did not make",
    byte_code: "holds __pycache__/mine.cpython-310.pyc, which",
    folder_of_a_work_folder_s_name: f"holds {MARKER}.work-mine/notes.txt, which",
    deep_work_folder: f"holds deep/{MARKER}.work-x/lock, which",
    another_kind: "was made by `jd-intent-batch generate`, not by `jd-intent-batch extract`: it holds one",
    no_marker: f"holds one and no {MARKER}: `jd-intent-batch extract` did not make it",
    damaged_marker: f"holds one and no {MARKER}",
    only_a_file_of_its_name: f"holds {MARKER} and no {MARKER}",
}


@pytest.mark.parametrize("strange", STRANGE, ids=lambda change: change.__name__)
def test_what_is_not_of_the_kind_is_refused_or_told_and_removed(
    strange: Callable[[Path], None], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write(out, "one", "deep/two", text="old")
    strange(out)
    before = contents(tmp_path)
    with pytest.raises(OutputRefused) as refused:
        write(out, "three")
    assert str(refused.value).startswith(f"{out} {STRANGE[strange]}")
    assert str(refused.value).endswith("name a new or an empty folder, or give --force, which says what it removes")
    assert contents(tmp_path) == before

    told, inside = list[str](), contents(out)
    with replacing(out, "features", force=told.append) as fresh:
        assert contents(out) == inside, "told first, and done at the end"
        (fresh / "three").write_text("new")
    assert len(told) == 1
    assert f"from {out}: " in told[0]
    assert made(out) == ["three"]


def test_what_comes_while_the_folder_is_made_is_not_lost(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "one")
    with pytest.raises(OutputRefused, match=r"holds notes\.txt"), replacing(out, "features"):
        (out / "notes.txt").write_text("mine")
    assert (out / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_only_what_was_told_is_removed(tmp_path: Path) -> None:
    out, told = tmp_path / "out", list[str]()
    write(out, "one")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputRefused, match=r"holds later\.txt"), replacing(out, "features", force=told.append):
        (out / "later.txt").write_text("mine")
    assert (out / "notes.txt").exists()
    assert len(told) == 1


def test_files_with_a_time_of_another_clock_are_its_own(tmp_path: Path) -> None:
    with replacing(tmp_path / "out", "features") as fresh:
        (fresh / "one").touch()
        os.utime(fresh / "one", (2**32, 2**32))
    write(tmp_path / "out", "two")
    assert made(tmp_path / "out") == ["two"]


def test_pythons_byte_code_is_nobodys(tmp_path: Path) -> None:
    write(tmp_path / "out", "code.py")
    (tmp_path / "out" / "__pycache__").mkdir()
    (tmp_path / "out" / "__pycache__" / "code.cpython-310.pyc").touch()
    write(tmp_path / "out", "two")
    (tmp_path / "out" / "__pycache__").mkdir()
    (tmp_path / "out" / "__pycache__" / "notes.txt").touch()
    with pytest.raises(OutputRefused, match=r"__pycache__/notes\.txt"):
        write(tmp_path / "out", "three")


def test_empty_folders_and_folders_that_were_emptied_are_its_own(tmp_path: Path) -> None:
    with replacing(tmp_path / "out", "features") as fresh:
        (fresh / "a" / "empty").mkdir(parents=True)
        (fresh / "b" / "c").mkdir(parents=True)
        (fresh / "b" / "c" / "one").touch()
    (tmp_path / "out" / "b" / "c" / "one").unlink()
    assert made(tmp_path / "out") == []
    write(tmp_path / "out", "two")
    assert made(tmp_path / "out") == ["two"]


def test_what_a_command_will_write_later_is_its_own(tmp_path: Path) -> None:
    with replacing(tmp_path / "demo", "demo", own=("logs", "state")):
        pass
    (tmp_path / "demo" / "logs").mkdir()
    (tmp_path / "demo" / "logs" / "one").touch()
    check(tmp_path / "demo", "demo")
    (tmp_path / "demo" / "notes.txt").touch()
    with pytest.raises(OutputRefused, match=r"notes\.txt"):
        check(tmp_path / "demo", "demo")
    mark(tmp_path / "demo", "demo", EVERYTHING)
    check(tmp_path / "demo", "demo")


@pytest.mark.parametrize("told", [None, print])
def test_inputs_and_what_one_lives_in_are_never_written(
    told: Callable[[str], None] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, home, elsewhere = tmp_path / "data", tmp_path / "home", tmp_path / "elsewhere"
    for folder in (data / "table", home / ".ssh", elsewhere / "here"):
        folder.mkdir(parents=True)
        (folder / "rows").write_text("1")
    (data / "linked").symlink_to(elsewhere / "here")
    (tmp_path / "way").symlink_to(data)
    (tmp_path / "file").write_text("1")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(elsewhere)
    mark(data, "features")
    mark(tmp_path, "features")
    before = contents(tmp_path)
    for out, why in (
        (data, "is an input"),
        (tmp_path / "way", "is an input"),
        (Path("..") / "data", "is an input"),
        (data / "table" / "new" / "deep", "lies within an input"),
        (tmp_path / "way" / "new", "lies within an input"),
        (elsewhere / "here", "is an input, .*by a link"),
        (elsewhere / "here" / "new", "lies within an input, .*by a link"),
        (tmp_path / "file", "is a file, not a folder"),
        (Path("/"), "is the root"),
        (home, "is the home folder"),
        (Path(), "is the working folder"),
        (tmp_path, "holds the working folder"),
        (REPOSITORY, "is the folder of this program"),
        (REPOSITORY.parent, "holds the folder of this program"),
        *(
            (REPOSITORY / name, "which holds no results")
            for name in ("streaming", "batch", "deploy/kafka", "sql", "tests")
        ),
        *((Path(name), "folder of the system|holds the") for name in ("/usr", "/var", "/opt", "/var/lib", "/tmp")),
        *((Path(name), "folder of the system") for name in ("/etc", "/bin", "/lib")),
        (Path("/etc/new"), "lies within /etc"),
        (home / ".ssh", "which holds no results"),
        (home / ".ssh" / "new", "which holds no results"),
    ):
        with pytest.raises(OutputRefused, match=why), replacing(out, "features", inputs=[data], force=told):
            raise AssertionError(out)
    monkeypatch.chdir(home)
    with (
        pytest.raises(OutputRefused, match=r"holds an input, .*by a link"),
        replacing(elsewhere, "features", inputs=[data], force=told),
    ):
        raise AssertionError
    assert contents(tmp_path) == before


def test_what_was_there_survives_a_failure_and_nothing_else_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "out", "one", text="old")
    before = contents(tmp_path)
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "out", "features") as fresh:
        (fresh / "two" / "three").write_text("half")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "new" / "deep" / "out", "features"):
        raise ZeroDivisionError
    assert contents(tmp_path) == before
    monkeypatch.setattr(work_folder, "_exchange", lambda *_: False)
    write(tmp_path / "out", "one", text="old")  # where the disk cannot exchange folders
    assert {**contents(tmp_path), f"out/{MARKER}": b""} == {**before, f"out/{MARKER}": b""}  # it holds times


def test_a_run_that_lives_is_not_swept(tmp_path: Path) -> None:
    with replacing(tmp_path / "out", "features") as first:
        (first / "first").touch()
        write(tmp_path / "out", "second")
        assert first.is_dir()
    assert made(tmp_path / "out") == ["first"]


def test_appending_adds_files_to_any_folder_and_changes_none(tmp_path: Path) -> None:
    write(tmp_path / "own", "one")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").write_text("mine")
    for out in (tmp_path / "own", tmp_path / "other"):
        with appending(out, "features") as fresh:
            (fresh / "two").write_text("2")
        before = contents(tmp_path)
        with pytest.raises(OutputRefused, match="has a file two already"), appending(out, "features") as fresh:
            (fresh / "two").write_text("3")
        assert contents(tmp_path) == before
    assert made(tmp_path / "own") == ["one", "two"]
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == ["mine", "two"]
    with pytest.raises(OutputRefused, match="is a file"), appending(tmp_path / "other" / "mine", "features"):
        raise AssertionError
    younger(tmp_path / "own")
    with appending(tmp_path / "own", "features") as fresh:
        (fresh / "three").write_text("3")
    with pytest.raises(OutputRefused, match="holds one, which"):
        write(tmp_path / "own", "four")


def test_files_are_carried_by_links_or_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").write_text("1")
    link(tmp_path / "one", tmp_path / "deep" / "two")
    assert (tmp_path / "deep" / "two").samefile(tmp_path / "one")
    with pytest.raises(FileExistsError):
        link(tmp_path / "one", tmp_path / "deep" / "two")

    def refused(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "link", refused)
    link(tmp_path / "one", tmp_path / "deep" / "three")
    assert (tmp_path / "deep" / "three").read_text() == "1"
    assert not (tmp_path / "deep" / "three").samefile(tmp_path / "one")
    with appending(tmp_path / "deep", "features") as fresh:
        (fresh / "four").write_text("4")
    assert (tmp_path / "deep" / "four").read_text() == "4"
