"""Parity as a file of plots: probabilities of the same requests, served and offline."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from batch.plots.axis import Axis, Scale
from batch.plots.chart import Chart, Series, bars, lines
from batch.plots.sheet import write_sheet

__all__ = ["parity_charts", "write_parity"]

DOTS_MAX = 2000  # of the requests whose probabilities agree; all that differ are drawn, up to as many
COLUMNS_MAX = 25
BINS_PER_DECADE = 4
_BESIDE, _APART, _HEIGHT = 620, 460, 340
_EQUAL = 1e-12  # where equal probabilities are drawn on the axis of differences

Floats = npt.NDArray[np.float64]


def write_parity(
    file: Path,
    title: str,
    note: str,
    probabilities: tuple[Floats, Floats, float] | None,
    differing: Sequence[tuple[str, int]] = (),
) -> None:
    """Writes `parity_charts` as one SVG file; of nothing to draw its title and note."""
    write_sheet(file, title, note, parity_charts(probabilities, differing), columns=2)


def parity_charts(
    probabilities: tuple[Floats, Floats, float] | None, differing: Sequence[tuple[str, int]] = ()
) -> list[Chart]:
    """Served against offline, and how far they are apart; then the columns that differ.

    Args:
        probabilities: served [n] and offline [n] of the same requests, and the tolerance; None: there are none.
        differing: columns and the number of requests in which they differ.
    """
    charts = []
    if probabilities is not None and len(probabilities[0]):
        served, offline, tolerance = probabilities
        known = np.isfinite(served) & np.isfinite(offline)
        if known.any():
            charts += [
                _beside(served[known], offline[known], tolerance),
                _apart(served[known] - offline[known], tolerance),
            ]
    if differing:
        most = sorted(differing, key=lambda found: -found[1])[:COLUMNS_MAX]
        counts = [float(count) for _, count in most]
        axis = Axis("requests that differ", 0.0, max(counts))
        charts.append(
            bars("Columns that differ", [name for name, _ in most], [(c, c, c) for c in counts], axis, _BESIDE)
        )
    return charts


def _beside(served: Floats, offline: Floats, tolerance: float) -> Chart:
    """A dot for each request, on the diagonal where both sides agree; of many that agree evenly chosen ones."""
    differs = np.abs(served - offline) > tolerance
    series = []
    for name, chosen in (("equal", np.flatnonzero(~differs)), ("different", np.flatnonzero(differs))):
        if len(chosen):
            shown = chosen[np.argsort(offline[chosen])][:: math.ceil(len(chosen) / DOTS_MAX)]
            label = f"{name}: {len(chosen):,}" + (f", {len(shown):,} drawn" if len(shown) < len(chosen) else "")
            x, y = offline[shown].tolist(), served[shown].tolist()
            series.append(Series(label, x, y, points=True, joined=False, colour=int(name == "different")))
    ends = np.concatenate([served, offline])
    low, high = (float(end) for end in np.clip([ends.min(), ends.max()], 1e-6, 1 - 1e-6))
    axes = (Axis(label, low, high, Scale.LOG_ODDS) for label in ("offline", "served"))
    of = f" ({series[0].name})" if len(series) == 1 else ""
    return lines(f"Probabilities, served beside offline{of}", series, *axes, even=True, size=(_BESIDE, _HEIGHT))


def _apart(difference: Floats, tolerance: float) -> Chart:
    """The share of requests by how far their probabilities are apart, and the tolerance."""
    apart = np.maximum(np.abs(difference), _EQUAL)
    first = math.floor(math.log10(_EQUAL))
    last = max(math.ceil(math.log10(float(apart.max()))), math.ceil(math.log10(tolerance)) + 1, first + 1)
    edges = np.logspace(first, last, (last - first) * BINS_PER_DECADE + 1)
    counts, _ = np.histogram(apart, edges)
    shares = counts / len(apart)
    x = [float(end) for pair in itertools.pairwise(edges) for end in pair]
    y = [float(share) for share in shares for _ in range(2)]
    top = float(shares.max())
    series = [
        Series("requests", x, y, dash=0),
        Series(f"tolerance {tolerance:g}", [tolerance, tolerance], [0.0, top], dash=1),
    ]
    x_axis = Axis(
        "difference of the probabilities (at the left end: none)", float(edges[0]), float(edges[-1]), Scale.LOG
    )
    return lines(
        "How far they are apart", series, x_axis, Axis("share of the requests", 0.0, top), size=(_APART, _HEIGHT)
    )
