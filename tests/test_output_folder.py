"""A folder is written whole or not at all, and what was there before a refusal or a failure is there after it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from streaming import work_folder
from streaming.errors import OutputRefused
from streaming.output_folder import EVERYTHING, MARKER, appending, check, link, made, mark, replacing

REPOSITORY = Path(__file__).resolve().parents[1]


def contents(folder: Path) -> dict[str, bytes | str]:
    """Each file and link below a folder, with its bytes or what it points to; folders end in a slash."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name if path.is_file() else f"{name}/"] = path.read_bytes() if path.is_file() else ""
    return found


def write(folder: Path, *names: str, text: str = "new") -> None:
    with replacing(folder, "features") as fresh:
        for name in names:
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            (fresh / name).write_text(text)


def test_a_folder_is_replaced_whole_and_says_what_made_it(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    write(out, "one", "deep/two", text="1")
    write(out, "three", text="22")
    told = json.loads((out / MARKER).read_text())
    assert (told["kind"], told["files"]) == ("features", {"three": 2})
    assert made(out) == ["three"]
    assert sorted(path.name for path in out.iterdir()) == [MARKER, "three"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


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
    for folder in (data / "table", home, elsewhere / "here"):
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


KILLED = """
import os, signal, sys
from pathlib import Path
from streaming import output_folder, work_folder

out, pinned, moves = Path(sys.argv[1]), sys.argv[2] == "pinned", int(sys.argv[3])
work_folder._pinned = lambda place: pinned
work_folder._exchange = lambda *_: False
rename, done = Path.rename, 0

def counted(source, target):
    global done
    if source.name != "making":
        done += 1
        if done > moves:
            os.kill(os.getpid(), signal.SIGKILL)
    return rename(source, target)

Path.rename = counted
with output_folder.replacing(out, "features") as fresh:
    (fresh / "three").mkdir()
    for name in ("one", "three/deep", "four"):
        (fresh / name).write_text("new")
"""


def killed(out: Path, where: str, moves: int) -> Path:
    """The work folder of a run that was killed after so many moves."""
    argv = [sys.executable, "-c", KILLED, str(out), where, str(moves)]
    assert subprocess.run(argv, cwd=REPOSITORY, check=False).returncode == -signal.SIGKILL
    (work,) = out.parent.rglob(f"*{MARKER}.work-*")
    return work


def appears(out: Path, _: Path) -> None:
    out.mkdir()
    (out / "mine").write_text("mine")


def a_file_appears(out: Path, _: Path) -> None:
    out.write_text("mine")


def one_of_the_old_ones(out: Path, _: Path) -> None:
    (out / "two").write_text("mine")


def one_of_the_new_ones(out: Path, _: Path) -> None:
    (out / "four").write_text("mine")


def one_within_the_new_ones(out: Path, _: Path) -> None:
    (out / "three" / "later").write_text("mine")


def damaged_plan(_: Path, work: Path) -> None:
    (work / "plan").write_text('["fo')


@pytest.mark.parametrize(
    ("where", "moves", "change", "why"),
    [
        ("beside", 1, appears, "that folder is there again"),
        ("beside", 1, a_file_appears, "is a file, not a folder"),
        ("pinned", 4, one_of_the_old_ones, "it holds another two now"),
        ("pinned", 6, one_of_the_new_ones, "it holds another four now"),
        ("pinned", 6, one_within_the_new_ones, "it holds another three now"),
        ("pinned", 4, damaged_plan, "plan, which tells what is new, is damaged"),
    ],
)
def test_the_only_copy_is_never_swept(
    where: str, moves: int, change: Callable[[Path, Path], None], why: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write(out, "one", "two", text="old")
    work = killed(out, where, moves)
    change(out, work)
    before = contents(tmp_path)
    for force in (None, print):
        with pytest.raises(OutputRefused, match=why) as told:
            check(out, "features", force=force)
        assert str(work / "old") in str(told.value) or change is a_file_appears
    assert contents(tmp_path) == before


def test_an_empty_folder_in_the_place_gives_way_to_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "one", "two", text="old")
    killed(out, "beside", 1)
    out.mkdir()
    check(out, "features")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert made(out) == ["one", "two"]


def test_what_appears_between_the_moves_does_not_cost_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rename = tmp_path / "out", Path.rename
    write(out, "one", text="old")

    def late(source: Path, target: Path) -> Path:
        if source.name == "new":
            appears(out, source)
        return rename(source, target)

    monkeypatch.setattr(work_folder, "_exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", late)
    with pytest.raises(OutputRefused, match="that folder is there again"):
        write(out, "two")
    assert made(out) == []
    assert (out / "mine").read_text() == "mine"
    (old,) = tmp_path.glob(f".out{MARKER}.work-*/old")
    assert made(old) == ["one"]


def test_a_sweep_that_is_killed_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    write(out, "one", "two", text="old")
    work = killed(out, "pinned", 5)

    def half(folder: Path, **_: object) -> None:
        for file in (folder / "new").iterdir():
            file.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half)
        check(out, "features")
    assert work.exists()
    check(out, "features")
    assert not work.exists()
    assert made(out) == ["one", "two"]


@pytest.mark.parametrize("where", ["beside", "pinned"])
def test_a_kill_at_any_move_leaves_the_old_or_the_new_and_the_next_run_sweeps(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where folders cannot be exchanged, or (pinned: a mount point) not even renamed, each entry is moved."""
    out = tmp_path / "out"
    write(out, "one", "two", text="old")
    old = {name: value for name, value in contents(out).items() if name != MARKER}
    for moves in range(20):
        argv = [sys.executable, "-c", KILLED, str(out), where, str(moves)]
        status = subprocess.run(argv, cwd=REPOSITORY, check=False).returncode
        if status == 0:
            break
        assert status == -signal.SIGKILL
        assert len(list(tmp_path.rglob(f"*{MARKER}.work-*"))) == 1
        check(out, "features")
        assert {name: value for name, value in contents(out).items() if name != MARKER} == old
        assert list(tmp_path.rglob(f"*{MARKER}.work-*")) == []
    assert moves == (2 if where == "beside" else 7)
    assert made(out) == ["four", "one", "three/deep"]
    assert list(tmp_path.rglob(f"*{MARKER}.work-*")) == []


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
