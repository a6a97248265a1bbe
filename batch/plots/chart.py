"""One plot: lines with bands, lying bars, dots by name. Colours come from the style around it, light or dark.

Drawn here and not by a plotting library: neither environment that serves or trains has one, a page with these is small,
stays sharp, and changes its colours with the reader's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from batch.plots.axis import Axis
from batch.plots.style import COLOUR_COUNT

__all__ = ["Chart", "Series", "bars", "dots", "in_page", "lines"]

WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 20, 10, 44
NAMES, NAMES_WIDE = 216, 290  # the room of names at the left of bars and dots, of a plot that is wide
WIDE = 600
LETTER = 6.9  # a letter's width, of words of many wide ones
_TEXT = 'font-size="11"'


@dataclass(frozen=True)
class Stroke:
    """How a series is drawn: the number of its colour, and of its dashes (0: none)."""

    colour: int
    dash: int

    @property
    def line(self) -> str:
        """The classes of a line."""
        return f"line s{self.colour % COLOUR_COUNT}" + (f" d{self.dash % 4}" if self.dash % 4 else "")

    @property
    def fill(self) -> str:
        """The class of what is filled."""
        return f"f{self.colour % COLOUR_COUNT}"


@dataclass(frozen=True)
class Chart:
    """A drawn plot.

    Attributes:
        title: read to those who do not see the plot.
        width, height: units of its drawing.
        drawn: its elements.
        legend: names with their strokes; empty: there is but one series.
    """

    title: str
    width: int
    height: int
    drawn: str
    legend: list[tuple[str, Stroke]] = field(default_factory=list)


@dataclass(frozen=True)
class Series:
    """A line through points; it is broken where a y is not a number.

    Attributes:
        low, high: its band, or the reach of its points where `points`.
        points: mark every point.
        joined: draw the line; else only the points.
        colour, dash: numbers of both; None: by the place among the series, every second dashed.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    points: bool = False
    joined: bool = True
    colour: int | None = None
    dash: int | None = None


@dataclass(frozen=True)
class _Frame:
    """Both axes and the size of what they frame."""

    x: Axis
    y: Axis
    width: int
    height: int

    def place(self, at: tuple[float, float]) -> tuple[float, float]:
        left = LEFT + self.x.share(at[0]) * (self.width - LEFT - RIGHT)
        top = self.height - BOTTOM - self.y.share(at[1]) * (self.height - BOTTOM - TOP)
        return round(left, 1), round(top, 1)

    def points(self, places: Sequence[tuple[float, float]]) -> str:
        return " ".join("{:g},{:g}".format(*self.place(place)) for place in places)

    def line(self, start: tuple[float, float], end: tuple[float, float], kind: str) -> str:
        (x1, y1), (x2, y2) = self.place(start), self.place(end)
        return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'

    def drawn(self) -> str:
        """Grid, marks and labels of both axes."""
        bottom, right = self.height - BOTTOM, self.width - RIGHT
        parts = []
        for tick, mark in self.x.marks():
            at, _ = self.place((tick, self.y.low))
            parts.append(f'<line class="grid" x1="{at}" y1="{TOP}" x2="{at}" y2="{bottom}"/>')
            parts.append(f'<text {_TEXT} x="{at}" y="{bottom + 14}" text-anchor="middle">{mark}</text>')
        for tick, mark in self.y.marks():
            _, at = self.place((self.x.low, tick))
            parts.append(f'<line class="grid" x1="{LEFT}" y1="{at}" x2="{right}" y2="{at}"/>')
            parts.append(f'<text {_TEXT} x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{mark}</text>')
        middle = (LEFT + right) / 2
        parts.append(f'<text {_TEXT} x="{middle}" y="{self.height - 10}" text-anchor="middle">{_text(self.x)}</text>')
        upright = f"translate(14 {(TOP + bottom) / 2}) rotate(-90)"
        parts.append(f'<text {_TEXT} transform="{upright}" text-anchor="middle">{_text(self.y)}</text>')
        return "".join(parts)


def lines(
    title: str, series: Sequence[Series], x: Axis, y: Axis, *, even: bool = False, size: tuple[int, int] | None = None
) -> Chart:
    """Lines over one another; up to eight have colours of their own.

    Args:
        title: read to those who do not see the plot.
        even: draw the diagonal.
        size: width and height, units of the drawing.
    """
    frame = _Frame(x, y, *(size or (WIDTH, HEIGHT)))
    parts, legend = [frame.drawn()], []
    if even:
        parts.append(frame.line((x.low, y.low), (x.high, y.high), "even"))
    for number, one in enumerate(series):
        stroke = Stroke(
            number if one.colour is None else one.colour, (number % 2 if one.dash is None else one.dash) * one.joined
        )
        legend.append((one.name, stroke))
        parts += _series(frame, one, stroke)
    return Chart(title, frame.width, frame.height, "".join(parts), legend if len(series) > 1 else [])


def bars(
    title: str, names: Sequence[str], values: Sequence[tuple[float, float, float]], x: Axis, width: int = WIDTH
) -> Chart:
    """Lying bars, each with its reach (value, low, high; none where they are equal); the first on top.

    A name stands above its bar: so a long one is whole, on a phone, too.
    """
    rows = _Rows(names, x, width, above=True)
    zero = rows.place(0.0)
    parts = [rows.drawn()]
    for number, (value, low, high) in enumerate(values):
        end, first, last = map(rows.place, (value, low, high))
        top = rows.top(number) + rows.name + 3
        box = f'x="{min(zero, end):.1f}" y="{top}" width="{abs(end - zero):.1f}" height="{BAR}"'
        parts.append(f'<rect class="f0" {box}/>')
        middle = top + BAR / 2
        if low < high:
            parts.append(f'<line class="reach s1" x1="{first:.1f}" y1="{middle}" x2="{last:.1f}" y2="{middle}"/>')
    return Chart(title, width, rows.height, "".join(parts))


def dots(title: str, names: Sequence[str], values: Sequence[Sequence[float]], x: Axis, width: int = WIDTH) -> Chart:
    """A row of dots for each name, one for each value, and a stroke at their median; the first row on top."""
    rows = _Rows(names, x, width)
    parts = [rows.drawn()]
    for number, found in enumerate(values):
        middle = rows.top(number) + ROW / 2
        parts += [f'<circle class="dot f0" cx="{rows.place(one):.1f}" cy="{middle}" r="4"/>' for one in found]
        if found:
            at = f"{rows.place(sorted(found)[len(found) // 2]):.1f}"
            parts.append(f'<line class="line s1" x1="{at}" y1="{middle - 7}" x2="{at}" y2="{middle + 7}"/>')
    return Chart(title, width, rows.height, "".join(parts))


def in_page(chart: Chart) -> str:
    """The plot as a part of a page, its legend below it."""
    keys = []
    for name, stroke in chart.legend:
        line = f'<line class="{stroke.line}" x1="0" y1="6" x2="22" y2="6"/>'
        swatch = f'<svg viewBox="0 0 22 12" width="22" height="12" aria-hidden="true">{line}</svg>'
        keys.append(f"<span>{swatch}{escape(name)}</span>")
    legend = f'<div class="legend">{"".join(keys)}</div>' if keys else ""
    box = f'viewBox="0 0 {chart.width} {chart.height}" role="img" aria-label="{escape(chart.title)}"'
    return f"<svg {box}>{chart.drawn}</svg>{legend}"


ROW, BAR = 18, 12
ROW_ABOVE, NAME_ABOVE, EDGE = 32, 14, 14  # a row whose name stands above it; its name; what is left of it


class _Rows:
    """Names at the left of a grid of x, or each above its row.

    Attributes:
        height: of the whole.
        name: what a name takes of the height of its row.
    """

    def __init__(self, names: Sequence[str], x: Axis, width: int, *, above: bool = False) -> None:
        self._names, self._x, self._width, self._above = names, x, width, above
        self._row, self.name = (ROW_ABOVE, NAME_ABOVE) if above else (ROW, 0)
        beside = NAMES_WIDE if width > WIDE else NAMES
        self._left = EDGE if above else beside
        self._letters = int((width - EDGE - RIGHT if above else beside - 6) / LETTER)
        self.height = self._row * len(names) + BOTTOM + TOP

    def place(self, value: float) -> float:
        return self._left + self._x.share(value) * (self._width - self._left - RIGHT)

    def top(self, number: int) -> int:
        return TOP + number * self._row

    def drawn(self) -> str:
        parts, bottom = [], self.height - BOTTOM
        for tick, mark in self._x.marks():
            at = f"{self.place(tick):.1f}"
            parts.append(f'<line class="grid" x1="{at}" y1="{TOP}" x2="{at}" y2="{bottom}"/>')
            parts.append(f'<text {_TEXT} x="{at}" y="{bottom + 14}" text-anchor="middle">{mark}</text>')
        for number, name in enumerate(self._names):
            shown = escape(name)
            if len(name) > self._letters:  # the whole name is a tooltip
                shown = f"<title>{shown}</title>…{escape(name[1 - self._letters :])}"
            left, anchor = (self._left, "start") if self._above else (self._left - 6, "end")
            parts.append(f'<text {_TEXT} x="{left}" y="{self.top(number) + 13}" text-anchor="{anchor}">{shown}</text>')
        middle = (self._left + self._width - RIGHT) / 2
        parts.append(f'<text {_TEXT} x="{middle}" y="{self.height - 12}" text-anchor="middle">{_text(self._x)}</text>')
        return "".join(parts)


def _series(frame: _Frame, one: Series, stroke: Stroke) -> list[str]:
    """The elements of a series."""
    parts = []
    reach = [] if one.low is None or one.high is None else [*zip(one.x, one.low, one.high, strict=True)]
    if reach and not one.points:
        edge = [(at, high) for at, _, high in reach] + [(at, low) for at, low, _ in reversed(reach)]
        parts.append(f'<polygon class="band {stroke.fill}" points="{frame.points(edge)}"/>')
    if reach and one.points:
        kind = f"reach s{stroke.colour % COLOUR_COUNT}"
        parts += [frame.line((at, low), (at, high), kind) for at, low, high in reach]
    for piece in _pieces([*zip(one.x, one.y, strict=True)]):
        if one.joined and len(piece) > 1:
            parts.append(f'<polyline class="{stroke.line}" points="{frame.points(piece)}"/>')
        if one.points or len(piece) == 1:
            for place in piece:
                left, top = frame.place(place)
                kind = stroke.fill if one.joined else f"dot {stroke.fill}"
                parts.append(f'<circle class="{kind}" cx="{left}" cy="{top}" r="{3 if one.joined else 2}"/>')
    return parts


def _pieces(places: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """The runs of places whose y is a number."""
    found: list[list[tuple[float, float]]] = [[]]
    for place in places:
        if math.isfinite(place[1]):
            found[-1].append(place)
        elif found[-1]:
            found.append([])
    return [piece for piece in found if piece]


def _text(axis: Axis) -> str:
    return escape(axis.label)
