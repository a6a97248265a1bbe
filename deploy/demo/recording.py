"""Records what a command shows on a terminal, as an asciinema cast and as a picture that plays, and then stands still.

    python -m deploy.demo.recording --svg docs/img/demo.svg --lines 28 --title 'make demo' -- python -m deploy.demo

It runs on a terminal of 80 columns of its own. The picture's first lines are played once, in `PLAYED_S`; what cannot
play, and who wants no motion, gets what stands there at the end.
"""

from __future__ import annotations

import argparse
import bisect
import fcntl
import io
import itertools
import json
import math
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

__all__ = ["Moment", "Shown", "last_shown", "moments", "picture", "record"]

HEIGHT = 40
PLAYED_S = 5.0
MOMENTS = 64  # of what is played, at most
Shown = list[tuple[float, str]]
"""What a terminal got: seconds since the start, and characters."""
Moment = tuple[float, list[str]]
"""What a terminal shows: since when, as a share of the whole time, and its lines."""

_ERASE = "\x1b[2K"
_UP = "\x1b[1A"
_CURSOR = re.compile(r"\x1b\[\?25[hl]")
_FETCHED = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)  # of the picture: fonts from elsewhere
_DRAWN = re.compile(r'<text [^>]*clip-path="url\(#terminal-line-(\d+)\)">[^<]*</text>')
_CLIPPED = re.compile(r' clip-path="[^"]*"')
_LINE_HEIGHT = 24.4  # of rich's pictures


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


def moments(shown: Shown) -> list[Moment]:
    """The terminal as it looks at up to `MOMENTS` times that are evenly apart as it is played, and at the end."""
    found: list[Moment] = []
    shares = _shares(shown)
    taken = 0
    for number in range(MOMENTS):
        count = bisect.bisect_right(shares, (number + 1) / MOMENTS)
        if count > taken:
            taken = count
            found.append((number / MOMENTS, last_shown(shown[:count])))
    return found


def _shares(shown: Shown) -> list[float]:
    """When each piece is played, as a share of the whole time.

    The time that passes until a line follows counts by its root: a minute of training shall not be all that is seen.
    """
    passed, lines, lines_max, since = 0.0, 0, 0, shown[0][0] if shown else 0.0
    times = []
    for at, piece in shown:
        times.append(passed + math.sqrt(at - since))
        lines += piece.count("\n") - piece.count(_UP)
        if lines > lines_max:
            passed, lines_max, since = times[-1], lines, at
    return [time / (times[-1] or 1.0) for time in times]


def picture(played: Sequence[Moment], lines: int, title: str) -> str:
    """An SVG file of a terminal's first `lines`; nothing of it is fetched from elsewhere.

    Args:
        played: at least one; the last is what stands there at the end.
    """
    from rich._export_format import CONSOLE_SVG_FORMAT

    spans = _spans(played, lines)
    frame = _FETCHED.sub("", CONSOLE_SVG_FORMAT)
    for part in ("styles", "lines", "matrix"):
        frame = frame.replace(f"{{{part}}}", f"[{part}]")
    frame = _exported([""] * min(lines, len(played[-1][1])), title, frame)
    styles, matrix = _exported([line for _, _, _, line in spans], title, "{styles}\f{matrix}").split("\f")
    drawn: dict[int, str] = {}
    for found in _DRAWN.finditer(matrix):
        drawn[int(found[1])] = drawn.get(int(found[1]), "") + _CLIPPED.sub("", found[0])
    groups, rules = [], [f".s {{ animation: {PLAYED_S:g}s step-end }}", ".gone { visibility: hidden }"]
    for number, (row, since, until, _) in enumerate(spans):
        kept = "s" if until is None else "s gone"
        moved = f"translate(0, {(row - number) * _LINE_HEIGHT:.1f})"
        groups.append(f'<g class="{kept}" style="animation-name: p{number}" transform="{moved}">{drawn[number]}</g>')
        away = "" if until is None else f" {until:.1%} {{ visibility: hidden }}"
        begins = "" if since == 0 else "0% { visibility: hidden } "
        rules.append(f"@keyframes p{number} {{ {begins}{since:.1%} {{ visibility: visible }}{away} }}")
    rules.append("@media (prefers-reduced-motion: reduce) { .s { animation: none } }")
    for part, text in (("styles", "\n".join([styles, *rules])), ("lines", ""), ("matrix", "\n".join(groups))):
        frame = frame.replace(f"[{part}]", text)
    return frame


def _spans(played: Sequence[Moment], lines: int) -> list[tuple[int, float, float | None, str]]:
    """What each row shows, and when: row, since and until (shares; None: to the end), line. Empty ones are left out."""
    spans: list[tuple[int, float, float | None, str]] = []
    for row in range(lines):
        texts = [(at, there[row] if row < len(there) else "") for at, there in played]
        changes = [texts[0], *(after for before, after in itertools.pairwise(texts) if before[1] != after[1])]
        for (since, line), (until, _) in itertools.zip_longest(changes, changes[1:], fillvalue=(None, "")):
            if since is not None and Text.from_ansi(line).plain.strip():
                spans.append((row, since, until, line))
    return spans


def _exported(lines: Sequence[str], title: str, code_format: str) -> str:
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in lines:
        console.print(Text.from_ansi(line), soft_wrap=True)
    return console.export_svg(title=title, code_format=code_format, unique_id="terminal")


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
    words.svg.write_text(picture(moments(shown), words.lines, words.title))


if __name__ == "__main__":
    main()
