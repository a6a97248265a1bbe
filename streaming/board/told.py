"""What a terminal tells of the board's figures and rows, as texts that do nothing to it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from rich.table import Table
from rich.text import Text

from streaming.board.board import Board
from streaming.board.fields import ScoreFields
from streaming.board.outcomes import CLASS_MIN, AucFigures, Outcome
from streaming.board.rows import Key
from streaming.board.usual import Value

__all__ = [
    "age",
    "auc_told",
    "became",
    "called",
    "count",
    "duration",
    "facts_told",
    "figures_told",
    "key_told",
    "letters_told",
    "moment",
    "percent",
    "spark",
    "state_told",
    "value_told",
    "visible",
    "who",
]

RATE_S = 5  # whole seconds that the throughput is the mean of
SPARK_S = 30
BARS = " ▁▂▃▄▅▆▇█"
JOINER = "\u200d"  # of emoji
REASONS = 3  # of dead letters: as many as 80 columns have room for


def state_told(board: Board, now: float, zone: ZoneInfo) -> Text:
    """The application, whether its scores come, and the time, epoch seconds."""
    kafka = board.kafka
    state, style = ("live", "green") if kafka.loaded else ("reading", "")
    if kafka.away or kafka.gone:
        state, style = ("Kafka is away" if kafka.away else "the topic is gone"), "red"
    name = (board.app.settings.name, "bold")
    return Text.assemble(name, "  ", (state, style), f"  {datetime.fromtimestamp(now, zone):%H:%M:%S %Z}")


def figures_told(board: Board, zone: ZoneInfo) -> Table:
    """Throughput, latency, lag, model, AUC, dead letters."""
    scorers, seconds = board.scorers.figures(), board.pairs.per_second(SPARK_S)
    reasons = sorted(board.letters.counts().items(), key=lambda item: -item[1])
    since = "" if scorers.recent else ", since the start"
    lines = {
        "scores/s": f"{sum(seconds[-RATE_S:]) / RATE_S:,.0f}  {spark(seconds)}",
        "event to score": f"p50 {duration(scorers.p50_s)}, p99 {duration(scorers.p99_s)}{since}",
        "lag, state": f"{count(scorers.lag)} records, {count(scorers.state_rows)} rows",
        "model, scorers": f"version {board.pairs.version() or '–'}, {scorers.ready} of {scorers.asked} ready",
        "AUC": auc_told(board.auc(), zone),
        "dead letters": letters_told(reasons),
    }
    figures = Table.grid(padding=(0, 2))
    for label, text in lines.items():
        figures.add_row(Text(label, "dim"), Text(visible(text), no_wrap=True, overflow="ellipsis"))
    for address, why in list(scorers.away.items())[:1]:
        figures.add_row(Text("away", "red"), Text(visible(f"{address}: {why}"), overflow="ellipsis", no_wrap=True))
    return figures


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


def called(names: Mapping[str, str], name: str) -> str:
    """A field or a column, as app.toml calls it for people."""
    return names.get(name, name.replace("_", " "))


def who(names: Mapping[str, str], fields: ScoreFields) -> str:
    """What is ranked."""
    return " · ".join(called(names, field) for field in fields.pair)


def key_told(key: Key) -> str:
    """A pair, or a part of one."""
    return visible(" · ".join("NULL" if part is None else str(part) or "(empty)" for part in key))


def facts_told(names: Mapping[str, str], known: Mapping[str, str]) -> str:
    """What is known of a pair, in a line."""
    return visible("  ".join(f"{called(names, name)} {value}" for name, value in known.items()))


def percent(probability: float) -> str:
    """A probability."""
    if 0 < probability < 0.0001:
        return "<0.01%"
    return f"{probability:.1%}" if probability >= 0.1 else f"{probability:.2%}"


def moment(time_ms: int | None, zone: ZoneInfo) -> str:
    """A time of epoch milliseconds in a zone; none, or one that no calendar has: –."""
    try:
        return "–" if time_ms is None else f"{datetime.fromtimestamp(time_ms / 1000, zone):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, ValueError, OSError):
        return "–"


def became(outcome: Outcome | None) -> str:
    """What a score's label says."""
    if outcome is None or outcome.label is None:
        return "–" if outcome is None else "not known yet"
    return f"yes, {duration_of(outcome.after_ms)} later" if outcome.label else "no"


def duration_of(ms: int | None) -> str:
    """In its largest unit."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if ms is not None and ms >= size:
            return f"{ms / size:.0f} {unit}"
    return f"{ms or 0} ms"


def value_told(value: Value, kind: str, zone: ZoneInfo) -> str:
    """A value of an input; `kind` as of `streaming.board.why.Feature`."""
    if value is None:
        return "NULL"
    if kind == "time" and isinstance(value, int):
        return moment(value, zone)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.5g}"
    return visible(value) or "(empty)"


def age(seconds: float) -> str:
    """How long ago."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def duration(seconds: float | None) -> str:
    """Milliseconds, or seconds from one on; none: it is not known."""
    if seconds is None:
        return "–"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def count(value: int | None) -> str:
    """A number; none: it is not known."""
    return "–" if value is None else f"{value:,}"
