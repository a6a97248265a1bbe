"""Latency as a file of plots: against the load, and by percentile.

    python -m batch.plots.latency FIGURES.json --out latency.svg

`FIGURES.json`:

    {"title": "From event to committed score",
     "note": "two cores, 5,000 users",
     "series": [{"name": "embedded",
                 "loads": [{"per_s": 1000, "ms": {"50": 11.2, "90": 20, "99": 41.5, "99.9": 80}},
                           {"per_s": 2000, "ms": {"50": 12.0, "90": 22, "99": 50.1, "99.9": 95}}]}]}

A series is a system or a setting; each of its loads has events (or requests) a second and milliseconds by percentile.
`note` may be left out, and so may percentiles that were not measured.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import msgspec

from batch.plots.axis import Axis, Scale, spanning
from batch.plots.chart import Chart, Series, lines
from batch.plots.sheet import write_sheet
from streaming.errors import BadInput

__all__ = ["LatencyFigures", "Load", "Measured", "latency_charts", "read_figures", "write_latency"]

_SHOWN = ("50", "99", "99.9")  # of the plot against the load: each its dashes
_WIDE = (560, 340)


class Load(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One load: events a second, and milliseconds by percentile (`"50"`, `"99.9"`)."""

    per_s: float
    ms: dict[str, float]


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was measured of one system or setting, at each of its loads."""

    name: str
    loads: list[Load]


class LatencyFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The input, see this module."""

    title: str
    series: list[Measured]
    note: str = ""


def read_figures(file: Path) -> LatencyFigures:
    """Reads the input.

    Raises:
        BadInput: it is not readable, of another form, or has a load or a latency that is not above 0, or a percentile
            that is none.
    """
    try:
        figures = msgspec.json.decode(file.read_bytes(), type=LatencyFigures)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: {error}") from error
    if not any(one.loads for one in figures.series):
        raise BadInput(f"{file}: no series has a load")
    for one in figures.series:
        for load in one.loads:
            place = f"{file}: {one.name} at {load.per_s:g}/s"
            if not (math.isfinite(load.per_s) and load.per_s > 0):
                raise BadInput(f"{place}: a load must be above 0")
            for percentile, ms in load.ms.items():
                if not _is_percentile(percentile):
                    raise BadInput(f"{place}: {percentile!r} is no percentile from 0 to below 100")
                if not (math.isfinite(ms) and ms > 0):
                    raise BadInput(f"{place}: percentile {percentile} is {ms:g} ms, which is not above 0")
    return figures


def latency_charts(figures: LatencyFigures) -> list[Chart]:
    """Milliseconds against the load, of all series; then for each series by percentile, a curve for each load.

    Where no series has more than one load, one plot by percentile with a curve for each series.
    """
    y = spanning("ms", [ms for one in figures.series for load in one.loads for ms in load.ms.values()], Scale.LOG)
    if all(len(one.loads) < 2 for one in figures.series):
        curves = [(f"{one.name}, {load.per_s:,.0f}/s", load) for one in figures.series for load in one.loads]
        return [_by_percentile("By percentile", curves, y)]
    found = [_against_load(figures, y)]
    for one in figures.series:
        curves = [(f"{load.per_s:,.0f}/s", load) for load in one.loads]
        found.append(_by_percentile(f"By percentile: {one.name}", curves, y))
    return found


def write_latency(file: Path, figures: LatencyFigures) -> None:
    """Writes the plots as one SVG file."""
    write_sheet(file, figures.title, figures.note, latency_charts(figures), columns=2)


def _by_percentile(title: str, loads: list[tuple[str, Load]], y: Axis) -> Chart:
    curves = []
    for name, load in loads:
        points = sorted((float(percentile), ms) for percentile, ms in load.ms.items())
        curves.append(Series(name, [at for at, _ in points], [ms for _, ms in points], points=True, dash=0))
    measured = [at for curve in curves for at in curve.x]
    x = Axis("percentile", min([50.0, *measured]), max([99.0, *measured]), Scale.PERCENTILE)
    return lines(title, curves, x, y, size=_WIDE)


def _against_load(figures: LatencyFigures, y: Axis) -> Chart:
    """A colour for each series, dashes for each percentile."""
    found = []
    for colour, one in enumerate(figures.series):
        for dash, percentile in enumerate(_SHOWN):
            points = sorted((load.per_s, load.ms[percentile]) for load in one.loads if percentile in load.ms)
            if points:
                x, ms = [at for at, _ in points], [at for _, at in points]
                found.append(Series(f"{one.name}, p{percentile}", x, ms, points=True, colour=colour, dash=dash))
    axis = spanning("events/s", [load.per_s for one in figures.series for load in one.loads], Scale.LOG)
    return lines("Against the load", found, axis, y, size=_WIDE)


def _is_percentile(text: str) -> bool:
    try:
        return 0 <= float(text) < 100
    except ValueError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m batch.plots.latency")
    parser.add_argument("figures", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    words = parser.parse_args()
    try:
        write_latency(words.out, read_figures(words.figures))
    except BadInput as error:
        sys.exit(f"latency: {error}")


if __name__ == "__main__":
    main()
