"""What the demo shows: of each step one line while it works and one when it is done.

On a terminal the first is overwritten by the second, and has the seconds, a bar where it is known how much is left, and
what the step's command said last. All that commands say, and the commands themselves, are in a log. On a terminal of
less than `WIDTH` columns a result that does not fit stands on a second line.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
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
INDENT = 4  # of what follows a step's number
COUNTED = re.compile(r"([\d,]+) of ([\d,]+) ")  # of a command that says how far it is


class Step:
    """One step.

    Args:
        ascii_only: show no other characters.

    Attributes:
        latest: what is being done: what its command said last.
        result: what came of it, for the line that says that it is done.
        more: stands for what is left out, or still to come.
    """

    def __init__(self, number: int, name: str, *, ascii_only: bool = False) -> None:
        self.number, self.name = number, name
        self.latest = self.result = ""
        self._full, self._left, self.more = ("#", "-", "...") if ascii_only else ("━", "╌", "…")
        self._started = time.monotonic()
        self._progress: Callable[[], tuple[int, int]] | None = None

    def watch(self, progress: Callable[[], tuple[int, int]]) -> None:
        """From now on there is a bar: how many of how many are done."""
        self._progress = progress

    def working(self, width: int) -> Text:
        """The line while it works, of `width` columns at most."""
        middle, count = self.latest, None
        if self._progress is not None:
            count = self._progress()
        elif (said := COUNTED.match(middle)) is not None:
            count = int(said[1].replace(",", "")), int(said[2].replace(",", ""))
        if count is not None:
            done, of = count
            told = f" {done:,} of {of:,}"
            bar = max(0, min(BAR, self._room(width) - len(told)))
            full = bar * min(done, of) // of if of else bar
            middle = f"{self._full * full}{self._left * (bar - full)}{told}"
        return self._line(middle, "cyan", width)

    def done(self, width: int) -> Text:
        """What is left when it is done: a line, or two where `width` columns have no room for it and are few."""
        if width >= WIDTH or len(self.result) <= self._room(width):
            return self._line(self.result, "green", width)
        return self._line("", "green", width).append(f"\n{'':{INDENT}}{self.result}")

    def ended(self, word: str, width: int) -> Text:
        """What is left where it was not done, and `word` says why."""
        return self._line(word, "red", width)

    def _line(self, middle: str, colour: str, width: int) -> Text:
        room = self._room(width)
        cut = middle if len(middle) <= room else f"{middle[: max(0, room - len(self.more))]}{self.more}"
        head = f"{self.number}/{STEPS}"
        line = Text.assemble((f"{head:<{INDENT}}", colour), (f"{self.name:<{NAME}} ", "bold"), f"{cut:<{room}} ")
        return line.append(self._seconds(), "dim")

    def _room(self, width: int) -> int:
        """Columns between name and seconds. The last is left free: some terminals go to the next line after it."""
        return max(0, width - INDENT - NAME - 1 - len(self._seconds()) - 2)

    def _seconds(self) -> str:
        return f"{time.monotonic() - self._started:,.1f} s"


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
        """Shows a step while it works, and how it ended."""
        step = self._step = Step(number, name, ascii_only=self.console.options.ascii_only)
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            shown: contextlib.AbstractContextManager[object] = Live(
                get_renderable=lambda: step.working(self.console.width),
                console=self.console,
                refresh_per_second=8,
                transient=True,
            )
        else:
            self.console.print(f"{number}/{STEPS} {name} {step.more}")
            shown = contextlib.nullcontext()
        try:
            with shown:
                yield step
        except BaseException as error:
            word = "failed" if isinstance(error, Exception) else "stopped"
            self.console.print(step.ended(word, self.console.width))
            raise
        finally:
            self._step = None
        self.console.print(step.done(self.console.width))

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
        if self._step is not None:
            self._step.latest = " ".join(command.split()[:2])  # until it says something itself
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
    """The terminal, or what stands in its place, at most `WIDTH` columns wide.

    What its encoding lacks is shown as `?`.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    found = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    found.width = min(found.width, WIDTH)
    return found
