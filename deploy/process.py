"""One child process: its own process group and log file, waited for until ready, stopped by its own pid."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

__all__ = ["Process", "ProcessFailed", "free_ports", "held_port", "is_free", "one_line", "port"]


TAIL_BYTES = 32_768
JAVA_FRAME = re.compile(r"\s+(at \S+\(|\.\.\. \d+ more)")

PR_SET_PDEATHSIG = 1
# Loaded here, because after a fork nothing may be loaded.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class ProcessFailed(RuntimeError):
    """A child exited, or did not become ready in time; the message carries the end of its log."""


def free_ports(count: int) -> list[int]:
    """Ports on loopback that were free a moment ago. Held open together, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def held_port() -> socket.socket:
    """A socket on a port of loopback that nobody else is given until it is closed; who calls there is refused."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    return held


def is_free(number: int, host: str = "127.0.0.1") -> bool:
    """Whether a server can listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no obstacle
        try:
            probe.bind((host, number))
        except OSError:
            return False
    return True


def port(text: str) -> int:
    """A port of a command line.

    Raises:
        ValueError: it is none, as argparse wants to hear it.
    """
    number = int(text)
    if not 0 < number < 65_536:
        raise ValueError(f"{text} is not a port")
    return number


@contextlib.contextmanager
def one_line(program: str) -> Iterator[None]:
    """Ends the process with one message and status 2 where a server cannot be started, instead of a traceback."""
    try:
        yield
    except (ProcessFailed, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(2)


def _end_with_parent() -> None:
    """Runs in the child before exec: a parent that is killed cannot stop what it started; the kernel does (Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Process:
    """Starts `argv` at once; `wait_ready`, `stop` and `kill` are safe to call in any state.

    Args:
        name: for messages.
        argv: the program and its arguments; never a shell.
        log: file that takes stdout and stderr (appended).
        env: the whole environment of the child; default: this process's.
        cwd: its working directory.
    """

    def __init__(
        self, name: str, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as sink:
            # A session of its own: Ctrl-C in the terminal reaches the parent only, which stops its children in order.
            self.popen = subprocess.Popen(
                list(argv),
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - it takes no lock and loads nothing
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def running(self) -> bool:
        return self.popen.poll() is None

    def check(self) -> None:
        """Says when it has ended, which it should not.

        Raises:
            ProcessFailed: it has.
        """
        if not self.running():
            raise ProcessFailed(f"{self.name} exited with {self.popen.returncode}: {self.tail()}")

    def wait_ready(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Polls `ready` until it is true.

        Raises:
            ProcessFailed: the process exited, or `timeout_s` seconds passed.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ProcessFailed(f"{self.name} was not ready after {timeout_s:.0f} s: {self.tail()}")
            time.sleep(0.05)

    def tail(self, lines: int = 20) -> str:
        """The end of the log, with its path; of Java's stacks only what was wrong."""
        text = self.log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
        told = [line for line in text.splitlines() if not JAVA_FRAME.match(line)]
        return f"{self.log}\n" + "\n".join(told[-lines:])

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM to the process group, SIGKILL to what is left after `timeout_s`; returns the exit status."""
        self._signal(signal.SIGTERM)
        try:
            status = self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = self.kill()
        else:
            self._signal(signal.SIGKILL)  # members of the group that outlived the leader
        return status

    def kill(self) -> int:
        """SIGKILL to the process group; returns the exit status."""
        self._signal(signal.SIGKILL)
        return self.popen.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, number)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
