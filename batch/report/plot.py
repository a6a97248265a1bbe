"""Plots as SVG texts for a page: lines with bands, bars. Colours come from the page's style, light or dark.

Drawn here and not by a plotting library: neither environment that serves or trains has one, a page with these is small,
stays sharp, and changes its colours with the reader's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["STYLE", "Axis", "Series", "bars", "lines"]

WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 44
_PROBABILITIES = (1e-5, 1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99, 0.999, 0.9999)
_TEXT = 'font-size="11"'

STYLE = """
svg { max-width: 100%; height: auto; display: block; }
svg text { fill: var(--text); font-family: inherit; }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .even { stroke: var(--faint); stroke-width: 1; stroke-dasharray: 4 4; }
svg .line { fill: none; stroke-width: 2; }
svg .reach { stroke-width: 1.5; }
svg .band { opacity: .18; stroke: none; }
svg .dashed { stroke-dasharray: 6 3; }
svg .s0 { stroke: var(--c0); } svg .s1 { stroke: var(--c1); }
svg .s2 { stroke: var(--c2); } svg .s3 { stroke: var(--c3); }
svg .f0 { fill: var(--c0); } svg .f1 { fill: var(--c1); } svg .f2 { fill: var(--c2); } svg .f3 { fill: var(--c3); }
"""
"""Of a page with plots; it needs the colours `--text`, `--grid`, `--faint`, `--c0` … `--c3`."""


@dataclass(frozen=True)
class Axis:
    """An axis: its label with the unit, and its ends; `log_odds`: its values are those, its marks probabilities."""

    label: str
    low: float = 0.0
    high: float = 1.0
    log_odds: bool = False

    def share(self, value: float) -> float:
        """Where a value lies between the ends, 0 to 1."""
        span = self.high - self.low
        return min(1.0, max(0.0, (value - self.low) / span)) if span else 0.5

    def marks(self) -> list[tuple[float, str]]:
        """Where to mark the axis, and with what."""
        if not self.log_odds:
            return [(tick, f"{tick:g}") for tick in self.ticks()]
        places = [(math.log(share / (1 - share)), f"{share:g}") for share in _PROBABILITIES]
        return [place for place in places if self.low <= place[0] <= self.high]

    def ticks(self) -> list[float]:
        """Five or so round numbers between the ends."""
        span = self.high - self.low
        if not span > 0:
            return [self.low]
        step = 10 ** math.floor(math.log10(span / 4))
        step *= next(times for times in (1, 2, 5, 10) if span / (step * times) <= 6)
        first = math.ceil(self.low / step - 1e-9)
        return [at * step for at in range(first, math.floor(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Series:
    """A line. `low`, `high`: its band, or the reach of its points where `points`; a missing value breaks nothing."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    points: bool = False


def lines(title: str, series: Sequence[Series], x: Axis, y: Axis, *, even: bool = False) -> str:
    """Lines over one another; up to four have colours of their own.

    Args:
        title: read to those who do not see the plot.
        even: draw the diagonal.
    """
    parts = [_frame(x, y)]
    if even:
        parts.append(_line((x.low, y.low), (x.high, y.high), x, y, "even"))
    for number, one in enumerate(series):
        colour = number % 4
        if one.low is not None and one.high is not None and not one.points:
            edge = [*zip(one.x, one.high, strict=True), *reversed([*zip(one.x, one.low, strict=True)])]
            parts.append(f'<polygon class="band f{colour}" points="{_points(edge, x, y)}"/>')
        dashed = " dashed" if number % 2 else ""
        at = [*zip(one.x, one.y, strict=True)]
        parts.append(f'<polyline class="line s{colour}{dashed}" points="{_points(at, x, y)}"/>')
        if one.points:
            if one.low is not None and one.high is not None:
                for here, low, high in zip(one.x, one.low, one.high, strict=True):
                    parts.append(_line((here, low), (here, high), x, y, f"reach s{colour}"))
            for place in at:
                left, top = _place(place, x, y)
                parts.append(f'<circle class="f{colour}" cx="{left}" cy="{top}" r="3"/>')
    return _svg(title, parts, [one.name for one in series], HEIGHT)


def bars(title: str, names: Sequence[str], values: Sequence[tuple[float, float, float]], x: Axis) -> str:
    """Lying bars, each with its reach: value, low, high; the first on top."""
    row, left = 18, 216
    height = row * len(names) + BOTTOM + TOP
    width = WIDTH - left - RIGHT
    parts = []
    for tick in x.ticks():
        at = left + x.share(tick) * width
        parts.append(f'<line class="grid" x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{height - BOTTOM}"/>')
        parts.append(f'<text {_TEXT} x="{at:.1f}" y="{height - BOTTOM + 14}" text-anchor="middle">{tick:g}</text>')
    zero = left + x.share(0.0) * width
    for number, (name, (value, low, high)) in enumerate(zip(names, values, strict=True)):
        top = TOP + number * row
        end, first, last = (left + x.share(at) * width for at in (value, low, high))
        short = name if len(name) <= 30 else f"…{name[-29:]}"
        parts.append(f'<text {_TEXT} x="{left - 6}" y="{top + 13}" text-anchor="end">{escape(short)}</text>')
        box = f'x="{min(zero, end):.1f}" y="{top + 3}" width="{abs(end - zero):.1f}" height="{row - 6}"'
        parts.append(f'<rect class="f0" {box}/>')
        middle = top + row / 2
        parts.append(f'<line class="reach s1" x1="{first:.1f}" y1="{middle}" x2="{last:.1f}" y2="{middle}"/>')
    middle = left + width / 2
    parts.append(f'<text {_TEXT} x="{middle:.1f}" y="{height - 12}" text-anchor="middle">{escape(x.label)}</text>')
    return _svg(title, parts, [], height)


def _frame(x: Axis, y: Axis) -> str:
    """Grid, ticks and labels of both axes."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for tick, mark in x.marks():
        at, _ = _place((tick, y.low), x, y)
        parts.append(f'<line class="grid" x1="{at}" y1="{TOP}" x2="{at}" y2="{bottom}"/>')
        parts.append(f'<text {_TEXT} x="{at}" y="{bottom + 14}" text-anchor="middle">{mark}</text>')
    for tick in y.ticks():
        _, at = _place((x.low, tick), x, y)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{at}" x2="{right}" y2="{at}"/>')
        parts.append(f'<text {_TEXT} x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{tick:g}</text>')
    middle = (LEFT + right) / 2
    parts.append(f'<text {_TEXT} x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x.label)}</text>')
    upright = f"translate(14 {(TOP + bottom) / 2}) rotate(-90)"
    parts.append(f'<text {_TEXT} transform="{upright}" text-anchor="middle">{escape(y.label)}</text>')
    return "".join(parts)


def _place(at: tuple[float, float], x: Axis, y: Axis) -> tuple[float, float]:
    left = LEFT + x.share(at[0]) * (WIDTH - LEFT - RIGHT)
    top = HEIGHT - BOTTOM - y.share(at[1]) * (HEIGHT - BOTTOM - TOP)
    return round(left, 1), round(top, 1)


def _points(places: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    return " ".join("{:g},{:g}".format(*_place(place, x, y)) for place in places)


def _line(start: tuple[float, float], end: tuple[float, float], x: Axis, y: Axis, kind: str) -> str:
    (x1, y1), (x2, y2) = _place(start, x, y), _place(end, x, y)
    return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'


def _svg(title: str, parts: Sequence[str], names: Sequence[str], height: int) -> str:
    legend = ""
    if len(names) > 1:
        keys = []
        for number, name in enumerate(names):
            dashed = " dashed" if number % 2 else ""
            line = f'<line class="line s{number % 4}{dashed}" x1="0" y1="6" x2="22" y2="6"/>'
            swatch = f'<svg viewBox="0 0 22 12" width="22" height="12" aria-hidden="true">{line}</svg>'
            keys.append(f"<span>{swatch}{escape(name)}</span>")
        legend = f'<div class="legend">{"".join(keys)}</div>'
    drawn = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    return f"{drawn}{legend}"
