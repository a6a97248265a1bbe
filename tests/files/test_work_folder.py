"""What a killed run leaves is put back or taken away by the next one, and stays where it is the only copy."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.folders import contents, write
from places import REPOSITORY

from streaming.errors import OutputRefused
from streaming.files import work_folder
from streaming.files.output_folder import MARKER, check, made

KILLED = """
import os, signal, sys
from pathlib import Path
from streaming.files import output_folder
from streaming.files import work_folder

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
            if file.is_file():
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
