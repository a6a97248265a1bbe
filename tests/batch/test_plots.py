"""Plots: what is drawn lies where its values are, a file stands alone, and wrong input is one line that names it."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.plots.axis import Axis, Scale, spanning
from batch.plots.chart import Chart, Series, bars, dots, in_page, lines
from batch.plots.latency import LatencyFigures, Load, Measured, latency_charts, read_figures, write_latency
from batch.plots.parity import parity_charts, write_parity
from batch.plots.sheet import sheet, write_sheet
from batch.plots.style import COLOURS, STROKES
from streaming.errors import BadInput, OutputRefused

SVG = "{http://www.w3.org/2000/svg}"
numbers = st.floats(-1e9, 1e9) | st.just(math.nan)


def drawn(chart: Chart) -> ET.Element:
    return ET.fromstring(f"<svg>{chart.drawn}</svg>")


def polylines(chart: Chart) -> list[list[tuple[float, float]]]:
    return [
        [(float(x), float(y)) for x, y in (point.split(",") for point in line.attrib["points"].split())]
        for line in drawn(chart).iter("polyline")
    ]


@pytest.mark.parametrize(
    ("scale", "low", "middle", "high"),
    [
        (Scale.LINEAR, 0, 5, 10),
        (Scale.LOG, 1, 10, 100),
        (Scale.LOG_ODDS, 0.1, 0.5, 0.9),
        (Scale.PERCENTILE, 90, 99, 99.9),
    ],
)
def test_a_value_lies_where_its_scale_says(scale: Scale, low: float, middle: float, high: float) -> None:
    axis = Axis("", low, high, scale)
    assert [axis.share(value) for value in (low, middle, high)] == pytest.approx([0, 0.5, 1])
    assert axis.share(low - 1) == 0
    assert axis.share(high * 2) == 1
    marks = [value for value, _ in axis.marks()]
    assert len(marks) >= 3
    assert all(low * (1 - 1e-9) <= mark <= high * (1 + 1e-9) for mark in marks)


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=20), st.sampled_from([Scale.LINEAR, Scale.LOG]))
def test_an_axis_spans_its_values_and_has_few_marks(values: list[float], scale: Scale) -> None:
    axis = spanning("", values, scale)
    assert axis.low <= min(values) * (1 + 1e-9)
    assert axis.high >= max(values) * (1 - 1e-9)
    assert 1 <= len(axis.marks()) <= 11
    shares = [axis.share(value) for value in sorted(values)]
    assert shares == sorted(shares)


def test_large_marks_are_short() -> None:
    assert [mark for _, mark in Axis("", 0, 2000).marks()] == ["0", "500", "1k", "1.5k", "2k"]
    assert [mark for _, mark in Axis("", 1, 1e9, Scale.LOG).marks()] == ["1", "100", "10k", "1M", "100M"]


def test_a_line_is_drawn_through_its_points_and_broken_where_there_is_none() -> None:
    series = Series("one", [0, 1, 2, 3, 4], [0, 1, math.nan, 0.5, 0])
    chart = lines("plot", [series], Axis("x", 0, 4), Axis("y"), size=(478, 254))
    assert polylines(chart) == [[(58, 210), (158, 10)], [(358, 110), (458, 210)]]
    assert chart.legend == []


def test_each_series_has_its_colour_and_its_name() -> None:
    chart = lines("", [Series(f"n{at}", [0, 1], [0, 1]) for at in range(9)], Axis(""), Axis(""))
    strokes = {stroke.line for _, stroke in chart.legend}
    assert len(strokes) == 9 - 1  # the ninth looks like the first
    for name in strokes | {stroke.fill for _, stroke in chart.legend}:
        for one in name.split():
            assert f".{one} {{" in STROKES, one
    assert "n8" in in_page(chart)
    for colour in set(re.findall(r"var\((--\w+)\)", STROKES)):
        assert COLOURS.count(f"{colour}:") == 2, f"{colour}: light and dark"


def test_bars_and_dots_stand_in_the_row_of_their_name() -> None:
    bar = drawn(bars("", ["a", "b"], [(1, 0.5, 2), (2, 1, 2)], Axis("", 0, 2)))
    widths = [float(rect.attrib["width"]) for rect in bar.iter("rect")]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)
    chart = dots("", ["a" * 80, "b"], [[1.0], [1.0, 4.0, 2.0]], Axis("", 1, 4), width=800)
    rows = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in drawn(chart).iter("circle")]
    assert rows[0][0] == rows[1][0] < rows[3][0] < rows[2][0]
    assert rows[0][1] < rows[1][1] == rows[2][1] == rows[3][1]
    assert "…" + "a" * 40 in chart.drawn


def test_a_long_name_stands_whole_above_its_bar() -> None:
    name = "flattenRequest_pair_id_window_unique_count_of_27"
    chart = bars("", [name, "b"], [(1, 1, 1), (2, 2, 2)], Axis("", 0, 2))
    texts = {text.text: text for text in drawn(chart).iter("text")}
    boxes = [float(box.attrib["y"]) for box in drawn(chart).iter("rect")]
    above = [float(texts[shown].attrib["y"]) for shown in (name, "b")]
    assert above[0] < boxes[0] < above[1] < boxes[1] < chart.height


@given(st.lists(st.tuples(numbers, numbers), max_size=8), st.sampled_from([Scale.LINEAR, Scale.LOG]), st.booleans())
def test_whatever_is_drawn_is_a_file_without_a_number_that_is_none(
    places: list[tuple[float, float]], scale: Scale, joined: bool
) -> None:
    x, y = [0.0 if math.isnan(at) else at for at, _ in places], [at for _, at in places]
    chart = lines("<&>", [Series("<&>", x, y, joined=joined)] * 2, spanning("<&>", x), spanning("", y, scale))
    text = sheet("<&>", "<&>", [chart, chart, chart], columns=2)
    found = ET.fromstring(text)
    assert found.tag == f"{SVG}svg"
    assert "nan" not in text
    assert "inf" not in re.sub("infinity", "", text)


def test_a_file_stands_alone_and_only_an_svg_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "new" / "plot.svg"
    charts = [lines("plot", [Series("", [0, 1], [0, 1])], Axis("x"), Axis("y"))]
    write_sheet(file, "one", "", charts)
    write_sheet(file, "two", "", charts)
    assert ">two<" in file.read_text()
    assert not re.search(r"href|url\(|src=|<script", file.read_text())
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    for wrong in (other, tmp_path):
        with pytest.raises(OutputRefused, match="is no SVG file"):
            write_sheet(wrong, "one", "", charts)
    assert other.read_text() == "mine"


def figures() -> LatencyFigures:
    loads = [Load(per_s, {"50": 1.0, "99": 10.0, "99.9": 100.0}) for per_s in (100.0, 1000.0, 10_000.0)]
    return LatencyFigures("title", [Measured("a", loads), Measured("b", loads[:2])])


def test_latency_is_read_as_it_is_documented(tmp_path: Path) -> None:
    from batch.plots import latency

    example = re.search(r"    (\{\"title.*\})\n\n", latency.__doc__ or "", re.DOTALL)
    assert example is not None
    file = tmp_path / "figures.json"
    file.write_text(example[1])
    read = read_figures(file)
    assert [load.per_s for load in read.series[0].loads] == [1000, 2000]
    write_latency(tmp_path / "latency.svg", read)
    assert "embedded, p99" in (tmp_path / "latency.svg").read_text()


def test_latency_against_the_load_and_by_percentile() -> None:
    against, a, b = latency_charts(figures())
    assert [name for name, _ in against.legend] == [f"{s}, p{p}" for s in "ab" for p in ("50", "99", "99.9")]
    assert {stroke.colour for name, stroke in against.legend if name.startswith("a")} == {0}
    first = polylines(against)[0]
    assert [x for x, _ in first] == pytest.approx(np.linspace(first[0][0], first[-1][0], 3), abs=0.1)
    assert [name for name, _ in a.legend] == ["100/s", "1,000/s", "10,000/s"]
    assert len(polylines(b)) == 2
    single = LatencyFigures("", [Measured(name, [Load(7, {"50": 1.0, "99": 2.0})]) for name in "ab"])
    (only,) = latency_charts(single)
    assert [name for name, _ in only.legend] == ["a, 7/s", "b, 7/s"]


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda one: one.pop("title"), "title"),
        (lambda one: one.update(series=[]), "no series has a load"),
        (lambda one: one["series"][0].update(nme=1), "nme"),
        (lambda one: one["series"][0]["loads"][0].update(per_s=0), "x at 0/s: a load must be above 0"),
        (lambda one: one["series"][0]["loads"][0].update(ms={"p50": 1}), "x at 5/s: 'p50' is no percentile"),
        (lambda one: one["series"][0]["loads"][0].update(ms={"100": 1}), "'100' is no percentile"),
        (lambda one: one["series"][0]["loads"][0].update(ms={"50": -1}), "percentile 50 is -1 ms"),
    ],
)
def test_wrong_figures_are_named(tmp_path: Path, harm: object, told: str) -> None:
    assert callable(harm)
    good = {"title": "t", "series": [{"name": "x", "loads": [{"per_s": 5, "ms": {"50": 1}}]}]}
    harm(good)
    file = tmp_path / "figures.json"
    file.write_text(json.dumps(good))
    with pytest.raises(BadInput, match=re.escape(told)) as error:
        read_figures(file)
    assert str(file) in str(error.value)


def test_parity_draws_equal_ones_on_the_diagonal_and_all_that_differ(tmp_path: Path) -> None:
    offline = np.linspace(0.001, 0.9, 5000, dtype=np.float64)
    served = offline.copy()
    served[:40] += 0.05
    beside, apart, columns = parity_charts((served, offline, 1e-6), [("a", 1), ("b", 40)])
    assert [name for name, _ in beside.legend] == ["equal: 4,960, 1,654 drawn", "different: 40"]
    colours = [dot.attrib["class"] for dot in drawn(beside).iter("circle")]
    assert colours.count("dot f1") == 40
    assert any("tolerance 1e-06" in name for name, _ in apart.legend)
    assert columns.drawn.index(">b<") < columns.drawn.index(">a<")
    nothing = np.full(3, np.nan, dtype=np.float64)
    assert parity_charts((nothing, nothing, 1e-6)) == parity_charts(None) == []
    write_parity(tmp_path / "parity.svg", "none", "nothing to compare", None)
    ET.fromstring((tmp_path / "parity.svg").read_text())
