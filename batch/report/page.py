"""A report as one page that opens from a disk: no script, nothing that is fetched; and two reports side by side.

It is well-formed XML, so that any parser can read it back.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import msgspec

from batch.plots.axis import Axis, Scale
from batch.plots.chart import Chart, Series, bars, in_page, lines
from batch.plots.style import COLOURS, STROKES
from batch.report import tables
from batch.report.figures import Curve, PartFigures
from batch.report.plain_words import in_plain_words
from batch.report.report import REPORT_HTML, REPORT_JSON, Report
from batch.report.tables import Rows

__all__ = ["page", "write_report"]

FIELDS_MAX = 25  # of the importance, that are drawn

Reports = Mapping[str, Report]

_STYLE = """
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1100px; padding: 16px; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
body.several { max-width: 1400px; } .beside { max-width: 1068px; }
h1 { font-size: 24px; margin: 8px 0; }
h2 { font-size: 18px; margin: 32px 0 8px; } h3 { font-size: 15px; margin: 8px 0; }
p { margin: 6px 0; } .soft, figcaption, caption { color: var(--soft); font-size: 13px; }
.verdict { border-left: 5px solid var(--bad); background: var(--card); padding: 10px 14px; border-radius: 4px; }
.verdict.better { border-color: var(--good); } .verdict.told { border-color: var(--c0); font-weight: 600; }
.beside { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 360px), 1fr)); gap: 16px; }
figure { margin: 0; padding: 12px; max-width: 580px; background: var(--card); border-radius: 6px; min-width: 0; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 13px; }
.legend svg { display: inline-block; vertical-align: middle; margin-right: 6px; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 4px 0; }
th, td { padding: 3px 10px; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th:first-child, td:first-child, .words th, .words td, th.text, td.text { text-align: left; }
td.text { min-width: 8em; max-width: 30em; overflow-wrap: anywhere; white-space: normal; }
th:first-child, td:first-child { padding-left: 0; } td.again { color: var(--soft); }
@media print { @page { margin: 14mm; } body { max-width: none; padding: 0; font-size: 12px; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } h2, h3, summary, p.soft { break-after: avoid; }
  .beside { grid-template-columns: 1fr 1fr; gap: 10px; } .words { font-size: 10px; }
  figure, tr, .verdict { break-inside: avoid; } .wide { overflow: visible; } table { font-size: 9px; }
  th, td { padding: 2px 4px; } th { white-space: normal; } .folded { display: none; } }
summary { cursor: pointer; color: var(--soft); } code { font-size: 12px; overflow-wrap: anywhere; white-space: normal; }
"""


def write_report(folder: Path, report: Report) -> None:
    """Writes `report.json` and `report.html`."""
    (folder / REPORT_JSON).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    (folder / REPORT_HTML).write_text(page({"": report}), encoding="utf-8")


def page(reports: Reports, told: str = "") -> str:
    """The page of one report, or of several side by side.

    Args:
        reports: by a name for each; of a single one its name is not shown.
        told: of several, what they say of each other.
    """
    apps = ", ".join(dict.fromkeys(report.app for report in reports.values()))
    title = f"Model of {apps}" if len(reports) == 1 else f"Models of {apps}: {' and '.join(reports)}"
    sections = [
        _verdicts(reports),
        f'<p class="verdict told">{escape(told)}</p>\n' if told else "",
        _section("Data and split", "", _each(reports, lambda report: [tables.data(report)])),
        _section("Learning curves", _LEARNING, _learning(reports)),
        _section("Metrics", _METRICS, _table(tables.metrics(reports))),
        _section("Order: ROC and precision", _ORDER, _order(reports)),
        _section("Reliability", _RELIABILITY, _reliability(reports)),
        _section("Scores by class", _HISTOGRAM, _histograms(reports)),
        _section("The highest scores", _TOP, _parts(reports, tables.top)),
        _section("Three thresholds", _THRESHOLDS, _parts(reports, tables.thresholds)),
        _section("What the model looks at", _IMPORTANCE, _importance(reports)),
        _section("Slices", _SLICES, _slices(reports)),
        _section("How it was made", "", _each(reports, lambda report: [tables.options(report), tables.hashes(report)])),
    ]
    body = "<body>" if len(reports) == 1 else '<body class="several">'
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(title)}</title>\n<style>{COLOURS}{_STYLE}{STROKES}</style>\n</head>\n"
        f"{body}\n<main>\n"
        f"<h1>{escape(title)}</h1>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


_LEARNING = "The loss on the training part, averaged since the point before, beside validation's log loss and AUC."
_METRICS = (
    "Each with its 95% interval where there are samples enough; beside it, what the constant base rate has. "
    "Chance alone makes a calibration error: an interval from 0 says that it may be no more than that."
)
_ORDER = (
    "Left: of the positives, the share that is found when that share of the negatives is taken along; chance is the "
    "diagonal. Right: of what is taken, the share that is positive. Bands are 95% intervals by a seeded bootstrap."
)
_RELIABILITY = (
    "Samples in bins of equal number by what the model says: on the diagonal, what it says is what happens. "
    "Bars are Wilson's 95% intervals."
)
_HISTOGRAM = "The share of each class by probability; the further apart, the better. The axis is even in log odds."
_TOP = "What is found among the samples of the highest score. Lift: how many times more often than at random."
_THRESHOLDS = (
    "Chosen on validation, then applied as they would be in use: all that have the probability or more are chosen."
)
_IMPORTANCE = (
    "The AUC that is lost when one input is shuffled among the samples; the line is the least and the most of three. "
    "Inputs that say the same share their importance."
)
_SLICES = (
    "Where the model is weak, or says too much or too little: what it predicts lies outside of the share's 95% "
    "interval (Wilson's; by chance some five of a hundred slices do). No AUC: fewer than ten samples of a class. "
    "Columns of too many values are left out."
)


def _section(title: str, what: str, content: str) -> str:
    text = f'<p class="soft">{escape(what)}</p>\n' if what else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{text}{content}</section>\n"


def _verdicts(reports: Reports) -> str:
    found = []
    for name, report in reports.items():
        kind = "verdict better" if report.better else "verdict"
        head = f"<strong>{escape(name)}</strong> " if name else ""
        plain = "".join(f"<br/>{escape(line)}" for line in in_plain_words(report))
        found.append(f'<p class="{kind}">{head}{escape(report.verdict)}{plain}</p>\n')
    return "".join(found)


def _beside(parts: Iterable[str]) -> str:
    return f'<div class="beside">\n{"".join(parts)}</div>\n'


def _figure(chart: Chart, caption: str) -> str:
    return f"<figure>{in_page(chart)}<figcaption>{escape(caption)}</figcaption></figure>\n"


def _table(found: Rows) -> str:
    texts = [' class="text"' if at in found.texts else "" for at in range(len(found.head))]
    head = "".join(f'<th scope="col"{kind}>{escape(cell)}</th>' for kind, cell in zip(texts, found.head, strict=True))
    body, before = "", ""
    for first, *others in found.rows:
        # What a row shares with the one above steps back: groups are seen, and each row can be read alone.
        cells = [f'<td class="again">{escape(first)}</td>' if first == before else f"<td>{escape(first)}</td>"]
        cells += [
            f"<td{kind}><code>{escape(cell)}</code></td>" if found.words else f"<td{kind}>{escape(cell)}</td>"
            for kind, cell in zip(texts[1:], others, strict=True)
        ]
        body, before = f"{body}<tr>{''.join(cells)}</tr>\n", first
    caption = f"<caption>{escape(found.caption)}</caption>" if found.caption else ""
    box = f'<div class="wide" tabindex="0" role="group" aria-label="{escape(found.caption or "table")}">'
    table = '<table class="words">' if found.words else "<table>"
    return f"{box}{table}{caption}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"


def _each(reports: Reports, make: tables.OfReport) -> str:
    if len(reports) == 1:  # by itself it has the whole width
        return "".join(_table(found) for report in reports.values() for found in make(report))
    return _beside(
        f"<div>{f'<h3>{escape(name)}</h3>' if name else ''}{''.join(map(_table, make(report)))}</div>\n"
        for name, report in reports.items()
    )


def _parts(reports: Reports, make: tables.OfPart, *, folded: bool = False) -> str:
    """A table for each report and part; folded away those of the parts that are not judged, or all."""
    found = []
    for name, report in reports.items():
        for part_name in _judged_first(report):
            label = _label(name, part_name)
            table = _table(make(label, report.parts[part_name]))
            found.append(
                _folded(f"{label}, as a table" if folded else label, table, part_name != report.judged or folded)
            )
    return "".join(found)


def _folded(label: str, table: str, fold: bool) -> str:
    return f'<details class="folded"><summary>{escape(label)}</summary>{table}</details>\n' if fold else table


def _slices(reports: Reports) -> str:
    """Of several reports on the same samples one table for each part, else one for each report and part."""
    first = next(iter(reports.values()))
    if len(reports) == 1 or any(report.parts.keys() != first.parts.keys() for report in reports.values()):
        return _parts(reports, tables.slices)
    found = []
    for part in _judged_first(first):
        beside = tables.slices_beside(part, {name: report.parts[part] for name, report in reports.items()})
        if beside is None:
            return _parts(reports, tables.slices)
        found.append(_folded(part, _table(beside), part != first.judged))
    return "".join(found)


def _judged_first(report: Report) -> list[str]:
    return [report.judged, *(part for part in report.parts if part != report.judged)]


def _label(name: str, part: str) -> str:
    return f"{name} {part}".strip()


def _shown(reports: Reports) -> list[tuple[str, PartFigures]]:
    """Whose curves are drawn: of one report all parts, the judged one first; of several the judged ones."""
    found = []
    for name, report in reports.items():
        names = _judged_first(report) if len(reports) == 1 else [report.judged]
        found += [(_label(name, part), report.parts[part].figures) for part in names]
    return found


def _learning(reports: Reports) -> str:
    losses, aucs = [], []
    for name, report in reports.items():
        steps = [line.epoch for line in report.training]
        if not steps:
            continue
        losses.append(Series(_label(name, "training"), steps, [line.loss for line in report.training]))
        losses.append(Series(_label(name, "validation"), steps, [line.val_log_loss for line in report.training]))
        known = [(line.epoch, line.val_auc) for line in report.training if line.val_auc is not None]
        if known:
            aucs.append(Series(name, [at for at, _ in known], [auc for _, auc in known]))
    if not losses:
        return "<p>No learning curve was kept.</p>\n"
    epochs = Axis("epoch", 0, max(max(one.x) for one in losses))
    figures = [_figure(lines("Loss by epoch", losses, epochs, _around("log loss", losses)), "Loss")]
    if aucs:
        figures.append(_figure(lines("AUC by epoch", aucs, epochs, _around("validation AUC", aucs)), "AUC"))
    return _beside(figures) + _each(reports, lambda report: [tables.training(report)])


def _around(label: str, series: Sequence[Series]) -> Axis:
    values = [value for one in series for value in one.y]
    room = (max(values) - min(values)) * 0.08 or 0.01
    return Axis(label, min(values) - room, max(values) + room)


def _curve(name: str, curve: Curve) -> Series:
    return Series(name, curve.x, curve.y, curve.low, curve.high)


def _order(reports: Reports) -> str:
    shown = _shown(reports)
    roc = [_curve(name, part.roc) for name, part in shown if part.roc is not None]
    precision = [_curve(name, part.precision_recall) for name, part in shown if part.precision_recall is not None]
    if not roc:
        return "<p>No curve: there is one class only.</p>\n"
    return _beside(
        [
            _figure(lines("ROC curve", roc, Axis("false positive rate"), Axis("true positive rate"), even=True), "ROC"),
            _figure(lines("Precision by recall", precision, Axis("recall"), Axis("precision")), "Precision and recall"),
        ]
    )


def _reliability(reports: Reports) -> str:
    series = []
    for name, part in _shown(reports):
        bins = part.reliability
        reach = [found.interval or (found.rate, found.rate) for found in bins]
        low, high = [ends[0] for ends in reach], [ends[1] for ends in reach]
        series.append(Series(name, [b.mean for b in bins], [b.rate for b in bins], low, high, points=True))
    top = max(max(*one.x, *(one.high or one.y)) for one in series)
    drawn = lines("Reliability", series, Axis("predicted", 0, top), Axis("share of positives", 0, top), even=True)
    least = min((value for one in series for value in (*one.x, *one.y) if value > 0), default=1e-3)
    first = max(1e-5, min(least, 0.5) / 2)
    last = min(1 - 1e-5, max(top, 4 * first))
    axes = (Axis(label, first, last, Scale.LOG_ODDS) for label in ("predicted", "share of positives"))
    close = lines("Reliability, even in log odds", series, *axes, even=True)
    figures = [_figure(drawn, "Reliability"), _figure(close, "The same, even in log odds; none positive: at the edge")]
    return _beside(figures) + _parts(reports, tables.reliability, folded=True)


def _histograms(reports: Reports) -> str:
    figures = []
    for name, part in _shown(reports):
        found = part.histogram
        steps = [end for ends in itertools.pairwise(found.edges) for end in ends]
        series = []
        for kind, counts in (("positive", found.positives), ("negative", found.negatives)):
            total = sum(counts)
            if total:
                shares = [count / total for count in counts for _ in range(2)]
                series.append(Series(f"{kind} ({total:,})", steps, shares))
        high = 1.05 * max(max(one.y) for one in series)
        axis = Axis("probability", found.edges[0], found.edges[-1], Scale.LOG_ODDS)
        drawn = lines(f"Scores of {name}", series, axis, Axis("share of class", 0, high))
        figures.append(_figure(drawn, name))
    return _beside(figures) + _parts(reports, tables.histogram, folded=True)


def _importance(reports: Reports) -> str:
    figures = []
    for name, report in reports.items():
        found = report.importance[:FIELDS_MAX]
        if not found:
            figures.append("<p>Too few samples of a class to tell.</p>\n")
            continue
        ends = [end for one in found for end in (one.least, one.most)]
        axis = Axis("AUC lost", min(0.0, *ends), max(0.001, *ends))
        drawn = bars(
            f"Importance {name}", [one.field for one in found], [(o.loss, o.least, o.most) for o in found], axis
        )
        what = (
            f"{report.importance_samples:,} samples of {report.judged}, {len(found)} of {len(report.importance)} inputs"
        )
        figures.append(_figure(drawn, f"{name}: {what}" if name else what))
    told = {name: report for name, report in reports.items() if report.importance}
    if not told:
        return "".join(figures)
    with_meanings = len(told) == 1  # of several beside each other a table has no room for them
    each = _each(told, lambda report: [tables.importance(report, with_meanings=with_meanings)])
    return _beside(figures) + _folded("all inputs", each, True)
