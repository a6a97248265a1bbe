"""`jd-intent-score top`: the board in a terminal, for who is there by ssh.

It is made of the parts of the page's board, keeps as much, and asks nobody for more. Where no terminal is, or with
`--once`, one screen is printed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from streaming.board.board import Board
from streaming.board.parts import BoardOptions, Parts
from streaming.board.told import age, facts_told, figures_told, key_told, percent, spark, state_told, visible, who
from streaming.config import load
from streaming.ops import log

__all__ = ["run_top", "screen"]

WHO_MAX = 40  # columns of the screen
TREND = 8
ROWS = 20  # of the ranking that is printed


def run_top(file: Path | None, options: BoardOptions, *, once: bool = False) -> None:
    """Shows it until `q`, Ctrl-C or SIGTERM; Kafka and the scorers may be away: the screen says so.

    Args:
        file: the configuration; none: defaults and the environment.
        once: prints one screen once all is read that is there, and ends.

    Raises:
        ConfigError: a topic or a setting is missing or wrong; Kafka refuses the login; the scores name nobody.
        NotAllowed: a topic may not be read.
        ScorerError: following the topics failed.
    """
    config = load(file)
    log.configure(config.log.model_copy(update={"level": "error"}))  # a warning would tear the screen
    parts = Parts(config, options)
    over = threading.Event()
    board = parts.board(over.is_set)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: over.set())
    parts.start()
    try:
        if once or not _is_terminal():
            _print(parts, board, over)
        else:
            from streaming.board.terminal import Terminal  # Textual takes its time

            Terminal(board, parts.followers.state.ended, over).run()
    finally:
        parts.stop()
    parts.followers.state.raise_failure()


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _print(parts: Parts, board: Board, over: threading.Event) -> None:
    """One screen, once all is read that is there."""
    state = parts.followers.state
    while not ((state.loaded and parts.outcomes.loaded) or state.ended.is_set() or over.wait(0.1)):
        pass
    parts.outcomes.compute()
    parts.scorers.ask()
    Console().print(screen(board, ROWS, time.time()))


def screen(board: Board, rows: int, now: float) -> Group:
    """One screen.

    Args:
        rows: of the ranking.
        now: epoch seconds.
    """
    settings = board.app.settings
    zone = ZoneInfo(settings.time_zone)
    best, total = board.pairs.ranking(rows)
    table = Table(box=None, pad_edge=False, expand=True)
    heads = [("#", "right"), (who(settings.names, board.pairs.fields), "left"), ("prob.", "right"), ("trend", "left")]
    for column, justify in heads:
        table.add_column(Text(visible(column)), justify=justify, no_wrap=True, max_width=WHO_MAX)  # type: ignore[arg-type]
    table.add_column("known of them", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("scored", justify="right", no_wrap=True)
    for number, row in enumerate(best, 1):
        table.add_row(
            Text(str(number), "dim"),
            Text(key_told(row.key), "bold"),
            percent(row.probability),
            Text(spark(row.trend[-TREND:]), "cyan"),
            Text(facts_told(settings.names, board.attributes.of(row.key)), "dim"),
            Text(age(max(0.0, now - row.at / 1000)), "dim"),
        )
    told = Text(f"the best {len(best)} of {total:,} pairs" if total else "no score yet", "dim")
    return Group(state_told(board, now, zone), figures_told(board, zone), Text(""), told, table)
