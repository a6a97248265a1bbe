"""Children end when they are told to, and when the one who started them cannot tell them any more."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import REPOSITORY

from deploy.process import Process, ProcessFailed, free_ports, held_port


def test_a_child_that_dies_at_once_is_told_with_its_log(tmp_path: Path) -> None:
    child = Process("the child", [sys.executable, "-c", "raise SystemExit('no luck')"], tmp_path / "log")
    with pytest.raises(ProcessFailed, match=r"the child exited with 1: .*log\nno luck"):
        child.wait_ready(lambda: False, 30)


def test_of_javas_stacks_a_log_that_is_told_has_what_was_wrong(tmp_path: Path) -> None:
    frames = "".join(f"\tat kafka.server.Part.call(Part.scala:{n}) ~[kafka.jar:?]\n" for n in range(50))
    said = f"ERROR one\njava.io.IOException: No space left on device\n{frames}\t... 6 more\nWARN two at (three)\n"
    child = Process("kafka", [sys.executable, "-c", f"print({said!r}, end='')"], tmp_path / "log")
    child.popen.wait(30)
    told = child.tail().splitlines()
    assert told[1:] == ["ERROR one", "java.io.IOException: No space left on device", "WARN two at (three)"]


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = (
        "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(100)"
    )
    child = Process("the child", [sys.executable, "-c", script], tmp_path / "log")
    child.wait_ready(ready.exists, 30)
    assert child.stop(0.2) == -9
    assert not child.running()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_killed_parent_takes_its_children_along(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys, time; from deploy.process import Process; "
        "child = Process('it', [sys.executable, '-c', 'import time; time.sleep(100)'], pathlib.Path(sys.argv[1])); "
        "print(child.pid, flush=True); time.sleep(100)"
    )
    argv = [sys.executable, "-c", script, str(tmp_path / "log")]
    with subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = Path("/proc", parent.stdout.readline().strip())
        assert child.exists()
        parent.kill()
    deadline = time.monotonic() + 30
    while child.exists() and "\nState:\tZ" not in (child / "status").read_text():
        assert time.monotonic() < deadline, "the child outlived its parent"


def test_a_held_port_is_nobody_else_s_until_it_is_given_up() -> None:
    with held_port() as held:
        number = held.getsockname()[1]
        assert number not in free_ports(200)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", number))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", number), 5)
    with socket.create_server(("127.0.0.1", number)):
        pass
