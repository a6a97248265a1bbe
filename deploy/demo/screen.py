"""What the demo shows: of each step one line while it works and one when it is done.

On a terminal the first is overwritten by the second, and has the seconds, a bar where it is known how much is left, and
what the step's command said last. All that commands say, and the commands themselves, are in a log.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

__all__ = ["WIDTH", "Screen", "Step"]

WIDTH = 80
"""Columns of everything but commands to copy: what every terminal has."""

STEPS = 9
BAR = 24
NAME = 16  # letters of a step's name
TAIL_LINES = 20  # of a command that failed


class Step:
    """One step.

    Attributes:
        latest: what its command said last.
        result: what came of it, for the line that says that it is done.
    """

    def __init__(self, number: int, name: str) -> None:
        self.number, self.name = number, name
        self.latest = self.result = ""
        self._started = time.monotonic()
        self._progress: Callable[[], tuple[int, int]] | None = None

    def watch(self, progress: Callable[[], tuple[int, int]]) -> None:
        """From now on there is a bar: how many of how many are done."""
        self._progress = progress

    def working(self) -> Text:
        """The line while it works."""
        middle = self.latest
        if self._progress is not None:
            done, of = self._progress()
            full = BAR * min(done, of) // of if of else BAR
            middle = f"{'━' * full}{'╌' * (BAR - full)} {done:,} of {of:,}"
        return self._line(middle, "cyan")

    def done(self) -> Text:
        """The line when it is done."""
        return self._line(self.result, "green")

    def _line(self, middle: str, colour: str) -> Text:
        seconds = f"{time.monotonic() - self._started:,.1f} s"
        room = WIDTH - 4 - NAME - 1 - len(seconds) - 1
        cut = middle if len(middle) <= room else f"{middle[: room - 1]}…"
        head = f"{self.number}/{STEPS} "
        return Text.assemble((head, colour), (f"{self.name:<{NAME}} ", "bold"), f"{cut:<{room}}", (seconds, "dim"))


class Screen:
    """Where the demo prints.

    Args:
        console: at most `WIDTH` columns wide.

    Attributes:
        log: the file that commands are logged to; set it before the first.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.log: Path | None = None
        self._step: Step | None = None

    @contextlib.contextmanager
    def step(self, number: int, name: str) -> Iterator[Step]:
        """Shows a step while it works, and when it is done; nothing more where it fails."""
        step = self._step = Step(number, name)
        if self.console.is_terminal:
            shown: contextlib.AbstractContextManager[object] = Live(
                get_renderable=step.working, console=self.console, refresh_per_second=8, transient=True
            )
        else:
            self.console.print(f"{number}/{STEPS} {name} …")
            shown = contextlib.nullcontext()
        try:
            with shown:
                yield step
        finally:
            self._step = None
        self.console.print(step.done())

    def note(self, text: str) -> None:
        """A line of the log: what is done here and not by a command."""
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as log:
                log.write(f"{text}\n")

    def run(self, argv: Sequence[str], command: str, cwd: Path) -> tuple[int, list[str]]:
        """Runs a command, all that it says goes to the log.

        It has a session of its own, so that Ctrl-C reaches this process only, which then ends the command and all
        servers in order.

        Returns:
            Its exit status, and the last lines that it said.
        """
        self.note(f"$ {command}")
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(
            argv,
            cwd=cwd,
            start_new_session=True,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as child:
            try:
                for line in child.stdout or ():
                    tail.append(line.rstrip())
                    self.note(tail[-1])
                    if self._step is not None and tail[-1].strip():
                        self._step.latest = tail[-1].strip()
                status = child.wait()
            except BaseException:
                with contextlib.suppress(ProcessLookupError):  # it ended by itself at the same moment
                    os.killpg(child.pid, signal.SIGKILL)
                raise
        return status, list(tail)

    def failed(self, lines: Sequence[str]) -> None:
        """Shows the end of what a command said that failed."""
        for line in lines:
            self.console.print(f"  {escape(line)}", style="dim", soft_wrap=True)


def console() -> Console:
    """The terminal, or what stands in its place, at most `WIDTH` columns wide."""
    found = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    found.width = min(found.width, WIDTH)
    return found
