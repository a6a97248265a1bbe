"""`jd-intent-score top`: the board's figures and its ranking in a terminal, for who is there by ssh.

It reads what the board reads (`followers`, `scorers`), keeps it in the same bounded memory, and asks nobody for more.
"""

from __future__ import annotations

import signal
import threading
import time
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from streaming.app.configured import application
from streaming.app.settings import Settings
from streaming.board.attributes import Attributes
from streaming.board.fields import score_fields
from streaming.board.followers import Followers, KafkaState
from streaming.board.following import Following
from streaming.board.letters import Letters
from streaming.board.outcomes import CLASS_MIN, AucFigures, scores_kept
from streaming.board.pairs import Pairs
from streaming.board.rows import PairRow
from streaming.board.scorers import ScorerFigures, Scorers, metrics_url
from streaming.config import load
from streaming.ops import log

__all__ = ["auc_told", "letters_told", "run_top", "screen", "visible"]

TICK_S = 0.5
RATE_S = 5  # whole seconds that the throughput is the mean of
SPARK_S = 30
BARS = " ▁▂▃▄▅▆▇█"
JOINER = "\u200d"  # of emoji
REASONS = 3  # of dead letters: as many as 80 columns have room for
FIXED_LINES = 10  # of the screen, without the ranking's rows
WHO_MAX = 40  # columns of the screen
ROWS_ONCE = 20  # where nobody says how high the screen is


def run_top(file: Path | None, following: Following, *, once: bool = False) -> None:
    """Shows it until SIGTERM or Ctrl-C; Kafka and the scorers may be away: the screen says so.

    Args:
        file: the configuration; none: defaults and the environment.
        following: what is followed, and how much of it is kept.
        once: prints one screen once all is read that is there, and ends.

    Raises:
        ConfigError: a topic or a setting is missing or wrong; Kafka refuses the login; the scores name nobody.
        NotAllowed: a topic may not be read.
        ScorerError: following the topics failed.
    """
    config = load(file)
    log.configure(config.log.model_copy(update={"level": "error"}))  # a warning would tear the screen
    app, topics = application(config)
    fields = score_fields(app)
    letters, attributes = Letters(), Attributes(fields, app.settings.names)
    pairs, outcomes = scores_kept(app, topics, fields, following.scores_max)
    scorers = Scorers(following.metrics or [url for url in [metrics_url(config.http)] if url])
    followers = Followers(config, app, topics, pairs, letters, attributes, following.look_back_s, outcomes)
    zone = ZoneInfo(app.settings.time_zone)
    console = Console()

    def drawn(rows: int) -> RenderableType:
        told = (followers.state, scorers.figures(), outcomes.figures)
        return screen(app.settings, pairs, letters, attributes, *told, zone, rows, time.time())

    over = threading.Event()

    def show() -> None:
        if once:
            while not (
                (followers.state.loaded and outcomes.loaded) or followers.state.ended.is_set() or over.wait(0.1)
            ):
                pass
            outcomes.compute()
            scorers.ask()
            console.print(drawn(ROWS_ONCE))
            return
        with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
            while not (followers.state.ended.is_set() or over.wait(TICK_S)):
                live.update(drawn(max(3, console.size.height - FIXED_LINES)), refresh=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    followers.start()
    outcomes.start()
    scorers.start()
    try:
        show()
    finally:
        followers.stop()
        outcomes.stop()
        scorers.stop()
    followers.state.raise_failure()


def screen(
    settings: Settings,
    pairs: Pairs,
    letters: Letters,
    attributes: Attributes,
    kafka: KafkaState,
    scorers: ScorerFigures,
    auc: AucFigures,
    zone: ZoneInfo,
    rows: int,
    now: float,
) -> Group:
    """One screen.

    Args:
        settings: of the application.
        rows: of the ranking.
        now: epoch seconds.
    """
    seconds = pairs.per_second(SPARK_S)
    there = "live" if kafka.loaded else "reading"
    state = "[red]Kafka is away[/red]" if kafka.away else "[red]the topic is gone[/red]" if kafka.gone else there
    head = Text.from_markup(f"[bold]{settings.name}[/bold]  {state}  {datetime.fromtimestamp(now, zone):%H:%M:%S %Z}")
    reasons = sorted(letters.counts().items(), key=lambda item: -item[1])
    since = "" if scorers.recent else ", since the start"
    lines = {
        "scores/s": f"{sum(seconds[-RATE_S:]) / RATE_S:,.0f}  {spark(seconds)}",
        "event to score": f"p50 {_ms(scorers.p50_s)}, p99 {_ms(scorers.p99_s)}{since}",
        "lag, state": f"{_count(scorers.lag)} records, {_count(scorers.state_rows)} rows",
        "model, scorers": f"version {pairs.version() or '–'}, {scorers.ready} of {scorers.asked} ready",
        "AUC": auc_told(auc, zone),
        "dead letters": letters_told(reasons),
    }
    figures = Table.grid(padding=(0, 2))
    for label, text in lines.items():
        figures.add_row(Text(label, "dim"), Text(visible(text)))
    for address, why in list(scorers.away.items())[:1]:
        figures.add_row(Text("away", "red"), Text(visible(f"{address}: {why}"), overflow="ellipsis", no_wrap=True))
    best, total = pairs.ranking(rows)
    table = Table(box=None, pad_edge=False, expand=True)
    who = " · ".join(settings.names.get(field, field) for field in pairs.fields.pair)
    for column, justify in (("#", "right"), (escape(who), "left"), ("prob.", "right"), ("trend", "left")):
        table.add_column(column, justify=justify, no_wrap=True, max_width=WHO_MAX)  # type: ignore[arg-type]
    table.add_column("known of them", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("scored", justify="right", no_wrap=True)
    for number, row in enumerate(best, 1):
        table.add_row(*_row(number, row, attributes.of(row.key), settings.names, now))
    told = Text(f"the best {len(best)} of {total:,} pairs" if total else "no score yet", "dim")
    return Group(head, figures, Text(""), told, table)


def auc_told(auc: AucFigures, zone: ZoneInfo) -> str:
    """The AUC with its interval, what it is of, and up to when labels are known, in one line; or why there is none."""
    if auc.missing or not auc.loaded:
        return f"– ({auc.missing or 'reading labels'})"
    if not auc.matured:
        return "– (no label is known yet)"
    of = f"{auc.positives:,} of {auc.matured:,} positive"
    if auc.auc is None:
        return f"– ({of}: needs {CLASS_MIN} of each)"
    known_to = "" if auc.known_to is None else f", to {datetime.fromtimestamp(auc.known_to / 1000, zone):%d %b %H:%M}"
    return f"{auc.auc:.3f} ({auc.low:.3f}–{auc.high:.3f}), {of}{known_to}"


def letters_told(reasons: Sequence[tuple[str, int]]) -> str:
    """How many dead letters there are, and the commonest reasons in one line."""
    if not reasons:
        return "none"
    first = ", ".join(f"{count:,} {reason}" for reason, count in reasons[:REASONS])
    return f"{sum(count for _, count in reasons):,}: {first}{', …' * (len(reasons) > REASONS)}"


def visible(text: str) -> str:
    """A text without what a terminal would obey or turn around: names come from anybody's records."""
    return "".join(
        "\ufffd" if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char != JOINER else char
        for char in text
    )


def spark(values: Sequence[float]) -> str:
    """Values as bars, the greatest as a full one."""
    most = max(values, default=0)
    return "".join(BARS[round(value / most * (len(BARS) - 1))] if most else BARS[0] for value in values)


def _row(
    number: int, row: PairRow, known: Mapping[str, str], names: Mapping[str, str], now: float
) -> tuple[RenderableType, ...]:
    key = visible(" · ".join("NULL" if part is None else str(part) or "(empty)" for part in row.key))
    facts = visible("  ".join(f"{names.get(name, name)} {value}" for name, value in known.items()))
    age_s = max(0.0, now - datetime.fromtimestamp(row.at / 1000, timezone.utc).timestamp())
    return (
        Text(str(number), "dim"),
        Text(key, "bold"),
        Text(f"{row.probability:.1%}"),
        Text(spark(row.trend[-8:]), "cyan"),
        Text(facts, "dim"),
        Text(_age(age_s), "dim"),
    )


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
