"""Plots side by side in one SVG file that stands alone: a README shows it, a browser opens it, light or dark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from batch.plots.chart import Chart, Stroke
from batch.plots.style import COLOURS, STROKES
from streaming.errors import OutputRefused

__all__ = ["sheet", "write_sheet"]

MARGIN = 16
HEAD = 26  # of a plot: its title
KEY = 17  # a line of a legend
LETTER = 6.1  # a letter's width on average, at most
_KEY_LINE = 22


def write_sheet(file: Path, title: str, note: str, charts: Sequence[Chart], columns: int = 1) -> None:
    """Writes `sheet` to a file, making its folder; an SVG file of that name is replaced.

    Raises:
        OutputRefused: something else of that name is there.
        OSError: it cannot be written.
    """
    if file.exists() and not (file.is_file() and _is_svg(file)):
        raise OutputRefused(f"{file} is there and is no SVG file: name another")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(sheet(title, note, charts, columns), encoding="utf-8")


def sheet(title: str, note: str, charts: Sequence[Chart], columns: int = 1) -> str:
    """An SVG file of plots, equal for equal plots.

    Args:
        title: of the whole.
        note: a line below it; "": none.
        charts: row by row.
        columns: plots in a row; columns are as wide as their widest plot.
    """
    rows = [charts[at : at + columns] for at in range(0, len(charts), columns)]
    widths = [max(row[at].width for row in rows if at < len(row)) for at in range(min(columns, len(charts)))]
    width = sum(widths) + MARGIN * (len(widths) + 1)
    top = 56 if note else 40
    parts = [f'<text font-size="17" font-weight="600" x="{MARGIN}" y="26">{escape(title)}</text>']
    if note:
        parts.append(f'<text class="soft" font-size="12" x="{MARGIN}" y="45">{escape(note)}</text>')
    for row in rows:
        heights = [HEAD + chart.height + KEY * len(_legend_rows(chart)) + 8 for chart in row]
        left = MARGIN
        for chart, at_most in zip(row, widths, strict=False):
            parts.append(_card(chart, left, top, at_most, max(heights)))
            left += at_most + MARGIN
        top += max(heights) + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" height="{top}" '
        f'role="img" aria-label="{escape(title)}" font-family="system-ui, sans-serif">\n'
        f'<style>{COLOURS}{STROKES}</style>\n<rect class="back" width="{width}" height="{top}"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _is_svg(file: Path) -> bool:
    with file.open("rb") as source:
        return b"<svg" in source.read(1024)


def _card(chart: Chart, left: int, top: int, width: int, height: int) -> str:
    parts = [
        f'<g transform="translate({left} {top})"><rect class="card" width="{width}" height="{height}" rx="6"/>',
        f'<text font-size="13" font-weight="600" x="12" y="18">{escape(chart.title)}</text>',
        f'<g transform="translate(0 {HEAD})">{chart.drawn}</g>',
    ]
    for number, row in enumerate(_legend_rows(chart)):
        baseline = HEAD + chart.height + KEY * number + 4
        for at, name, stroke in row:
            parts.append(
                f'<line class="{stroke.line}" x1="{at:.0f}" y1="{baseline - 4}" x2="{at + _KEY_LINE:.0f}" '
                f'y2="{baseline - 4}"/><text font-size="11" x="{at + _KEY_LINE + 5:.0f}" y="{baseline}">'
                f"{escape(name)}</text>"
            )
    return "".join([*parts, "</g>"])


def _legend_rows(chart: Chart) -> list[list[tuple[float, str, Stroke]]]:
    """The legend in lines that fit: where each key begins, its name, its stroke."""
    placed = _placed(chart)
    return [[(at, name, stroke) for _, at, name, stroke in row] for _, row in groupby(placed, lambda key: key[0])]


def _placed(chart: Chart) -> Iterator[tuple[int, float, str, Stroke]]:
    number, at = 0, 12.0
    for name, stroke in chart.legend:
        room = _KEY_LINE + 5 + LETTER * len(name) + 14
        if at > 12 and at + room > chart.width:
            number, at = number + 1, 12.0
        yield number, at, name, stroke
        at += room
