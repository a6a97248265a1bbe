"""The demo's folder: one demo at a time, and a full disk is named."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.demo.held_folder import ROOM_BYTES, full_disk, hold
from streaming.errors import OutputRefused


def test_one_at_a_time_holds_a_folder(tmp_path: Path) -> None:
    with contextlib.ExitStack() as first:
        hold(tmp_path, first)
        with pytest.raises(OutputRefused, match="another `make demo` runs in"), contextlib.ExitStack() as second:
            hold(tmp_path, second)
    with contextlib.ExitStack() as third:
        hold(tmp_path, third)


def test_what_is_no_folder_is_not_held(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with contextlib.ExitStack() as stack:
        hold(tmp_path / "none", stack)
        hold(tmp_path / "file", stack)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("free", "told"), [(ROOM_BYTES, False), (ROOM_BYTES - 1, True), (0, True)])
def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, told: bool) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert full_disk(tmp_path) == (f"the disk of {tmp_path} is full" if told else "")
    assert full_disk(tmp_path / "none") == ""
