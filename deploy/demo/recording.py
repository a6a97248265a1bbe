"""Records what a command shows on a terminal, as an asciinema cast and as a picture of its first lines.

    python -m deploy.demo.recording --svg docs/img/demo.svg --lines 28 --title 'make demo' -- python -m deploy.demo

It runs on a terminal of 80 columns of its own; what is overwritten in the cast is not in the picture.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from deploy.demo.screen import WIDTH

__all__ = ["Shown", "last_shown", "picture", "record"]

HEIGHT = 40
Shown = list[tuple[float, str]]
"""What a terminal got: seconds since the start, and characters."""

_ERASE = "\x1b[2K"
_UP = "\x1b[1A"
_CURSOR = re.compile(r"\x1b\[\?25[hl]")
_FETCHED = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)  # of the picture: fonts from elsewhere


def record(argv: Sequence[str]) -> tuple[int, Shown]:
    """Runs a command on a terminal of its own; its exit status, and what it showed."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(WIDTH)}
    shown: Shown = []
    started = time.monotonic()
    with subprocess.Popen(argv, stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True) as child:
        os.close(its)
        while True:
            try:
                piece = os.read(ours, 65_536)
            except OSError:  # Linux says so at the end
                break
            if not piece:
                break
            shown.append((time.monotonic() - started, piece.decode("utf-8", errors="replace")))
        status = child.wait()
    os.close(ours)
    return status, shown


def last_shown(shown: Shown) -> list[str]:
    """The lines that are left at the end, with their colours: of what a line was overwritten by, the last."""
    lines = [""]
    for piece in re.split(f"(\n|{re.escape(_UP)})", _CURSOR.sub("", "".join(text for _, text in shown))):
        if piece == "\n":
            lines.append("")
        elif piece == _UP:
            lines.pop()
        else:
            lines[-1] = (lines[-1] + piece).rpartition(_ERASE)[2].replace("\r", "")
    return lines


def picture(lines: Sequence[str], title: str) -> str:
    """An SVG file of a terminal that shows these lines; nothing of it is fetched from elsewhere."""
    from rich._export_format import CONSOLE_SVG_FORMAT

    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in lines:
        console.print(Text.from_ansi(line), soft_wrap=True)
    return console.export_svg(title=title, code_format=_FETCHED.sub("", CONSOLE_SVG_FORMAT), unique_id="terminal")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.demo.recording")
    parser.add_argument("--svg", type=Path, required=True)
    parser.add_argument("--cast", type=Path, help="an asciinema cast of all of it")
    parser.add_argument("--lines", type=int, default=HEIGHT, help="of the picture, from the first one on")
    parser.add_argument("--title", default="")
    parser.add_argument("argv", nargs="+", metavar="COMMAND")
    words = parser.parse_args()
    status, shown = record(words.argv)
    lines = last_shown(shown)
    print("\n".join(lines))
    if words.cast:
        head = {"version": 2, "width": WIDTH, "height": HEIGHT, "title": words.title}
        rows = [head, *([round(at, 3), "o", text] for at, text in shown)]
        words.cast.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if status:
        sys.exit(f"`{' '.join(words.argv)}` ended with status {status}: no picture of it")
    words.svg.write_text(picture(lines[: words.lines], words.title))


if __name__ == "__main__":
    main()
