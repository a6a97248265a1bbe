"""The model's report: its figures beside scikit-learn's and beside counting by hand, and the page that shows them."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from fixtures.model import InModelEnvironment
from fixtures.reports import report_of, samples, write_sample_report
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, log_loss, precision_recall_curve, roc_auc_score, roc_curve

from batch.dataset.read import DatasetError, Texts
from batch.report.comparison import compare_reports, difference
from batch.report.figures import PartFigures, choose_thresholds, part_figures, wilson
from batch.report.page import page, write_report
from batch.report.probability_metrics import BINS, calibration_error, measure
from batch.report.ranking import Ranking
from batch.report.report import read_report
from batch.report.slices import VALUES_MAX, sliced
from batch.report.tables import with_interval
from batch.train.importance import permutation_importance, samples_max
from streaming.model.auc import auc_interval


def figures(labels: Any, probabilities: Any, seed: int = 1) -> PartFigures:
    labels, probabilities = np.asarray(labels, np.float32), np.asarray(probabilities, np.float32)
    ranking = Ranking.of(labels, probabilities)
    return part_figures(measure(labels, probabilities, 0.1), ranking, choose_thresholds(ranking), seed)


@pytest.mark.parametrize("seed", range(5))
def test_curves_are_scikit_learn_s(seed: int) -> None:
    labels, probabilities = samples(700, 60, 1.0, seed)
    ranking = Ranking.of(labels, probabilities)
    assert ranking.auc() == pytest.approx(roc_auc_score(labels, probabilities), abs=1e-12)
    assert ranking.average_precision() == pytest.approx(average_precision_score(labels, probabilities), abs=1e-12)
    false, true, _ = roc_curve(labels, probabilities, drop_intermediate=False)
    last = np.append(np.diff(false) > 0, True)
    assert ranking.roc(false[last]) == pytest.approx(true[last], abs=1e-12)
    precision, recall, _ = precision_recall_curve(labels, probabilities)
    for at in np.linspace(0.01, 1, 50):
        reached = recall >= at - 1e-12
        highest = max(np.flatnonzero(reached))  # recall falls: the last is of the highest threshold
        assert ranking.precision(np.array([at]))[0] == pytest.approx(precision[highest], abs=1e-12)


def test_cuts_and_thresholds_are_counted_by_hand() -> None:
    labels, probabilities = samples(1000, 100, 1.0, 3)
    found = figures(labels, probabilities)
    for cut in found.top:
        order = [
            labels[np.lexsort((np.random.default_rng(seed).random(1000), -probabilities))][: cut.count].mean()
            for seed in range(300)
        ]
        assert cut.precision == pytest.approx(np.mean(order), abs=0.1 if cut.count < 10 else 0.03)
        assert cut.lift == pytest.approx(cut.precision / 0.1)
        assert cut.threshold == np.sort(probabilities)[::-1][cut.count - 1]
        assert cut.precision_interval is not None
        assert cut.precision_interval[0] - 1e-9 <= cut.precision <= cut.precision_interval[1] + 1e-9
    assert len(found.thresholds) == 3
    for threshold in found.thresholds:
        chosen = probabilities >= threshold.probability
        assert threshold.chosen == chosen.sum()
        assert threshold.right == labels[chosen].sum()
        assert threshold.missed == labels[~chosen].sum()
        assert threshold.recall == pytest.approx(labels[chosen].sum() / 100)
    scores = [
        2 * labels[probabilities >= t].sum() / ((probabilities >= t).sum() + 100) for t in np.unique(probabilities)
    ]
    best = found.thresholds[1]
    assert 2 * best.right / (best.chosen + 100) == pytest.approx(max(scores))
    wide = found.thresholds[2]
    assert wide.right >= 80 > labels[probabilities > wide.probability].sum()


def world(count: int, off: float, seed: int) -> tuple[Any, Any, Any]:
    """Labels, what a model says whose log odds are `off` too high, and the true probabilities; no two are equal."""
    generator = np.random.default_rng(seed)
    odds = generator.normal(size=count) * 1.2 - 2.2
    true = 1 / (1 + np.exp(-odds))
    return (generator.random(count) < true).astype(float), 1 / (1 + np.exp(-odds - off)), true


def distance(labels: Any, probabilities: Any) -> float:
    """The calibration error of samples, bin by bin."""
    order = np.argsort(probabilities, kind="stable")
    parts = np.array_split(order, BINS)
    return sum(len(part) * abs(float(probabilities[part].mean() - labels[part].mean())) for part in parts) / len(order)


@pytest.mark.parametrize("count", [10, 703, 5000])
def test_log_loss_and_calibration_error_are_those_of_the_samples(count: int) -> None:
    labels, probabilities, _ = world(count, 0.5, 1)
    ranking = Ranking.of(labels, probabilities)
    assert ranking.log_loss() == pytest.approx(log_loss(labels, probabilities, labels=[0, 1]), rel=1e-12)
    assert calibration_error(labels, probabilities) == pytest.approx(distance(labels, probabilities), abs=1e-12)
    sure = np.where(labels == 1, 0.0, probabilities)
    assert Ranking.of(labels, sure).log_loss() == pytest.approx(log_loss(labels, sure, labels=[0, 1]), rel=1e-12)


def test_a_calibration_bin_takes_of_equal_scores_what_a_random_order_would() -> None:
    labels, probabilities = samples(1003, 150, 1.0, 3)
    orders = [np.random.default_rng(seed).permutation(1003) for seed in range(400)]
    gaps = [
        [
            (probabilities[part] - labels[part]).sum() / 1003
            for part in np.array_split(order[np.argsort(p, kind="stable")], BINS)
        ]
        for order in orders
        for p in [probabilities[order]]
    ]
    assert Ranking.of(labels, probabilities).calibration_gaps(BINS) == pytest.approx(np.mean(gaps, axis=0), abs=5e-4)
    constant = np.full(1003, 0.25)
    assert calibration_error(labels, constant) == pytest.approx(abs(0.25 - labels.mean()))


@pytest.mark.parametrize(("off", "count"), [(0.0, 1500), (0.3, 1500), (1.0, 1500), (1.0, 6000)])
def test_intervals_of_log_loss_and_calibration_error_are_those_of_samples_drawn_one_by_one(
    off: float, count: int
) -> None:
    labels, probabilities, _ = world(count, off, 7)
    found = figures(labels, probabilities)
    generator = np.random.default_rng(99)
    losses, errors, by_chance = [], [], []
    order = np.argsort(probabilities)
    gaps = [(probabilities[part] - labels[part]).sum() for part in np.array_split(order, BINS)]
    for _ in range(1000):
        again = generator.integers(0, count, count)
        y, p = labels[again], probabilities[again]
        losses.append(log_loss(y, p, labels=[0, 1]))
        errors.append(distance(y, p))
        drawn = [(p[part] - y[part]).sum() for part in np.array_split(np.argsort(p), BINS)]
        by_chance.append(sum(abs(one - other) for one, other in zip(drawn, gaps, strict=True)) / count)
    wide = np.percentile(losses, 97.5) - np.percentile(losses, 2.5)
    assert found.log_loss_interval == pytest.approx(tuple(np.percentile(losses, [2.5, 97.5])), abs=0.12 * wide)
    error = distance(labels, probabilities)
    bias = np.mean(errors) - error
    low, high = np.percentile(errors, [2.5, 97.5]) - bias
    if error < np.percentile(by_chance, 97.5):
        low = 0.0
    assert found.calibration_error_interval == pytest.approx((low, high), abs=0.12 * (high - low))
    assert (low == 0) == (off == 0)
    assert low <= found.metrics.calibration_error <= high


@pytest.mark.parametrize("off", [0.0, 0.3, 1.0])
def test_intervals_of_log_loss_and_calibration_error_hold_the_truth(off: float) -> None:
    """Of 60 draws; the plain middle 95% would never hold the calibration error of a model that is right."""
    _, said, true = world(400_000, off, 0)
    order = np.argsort(said)
    error = sum(abs((said[part] - true[part]).sum()) for part in np.array_split(order, BINS)) / len(order)
    loss = -float((true * np.log(said) + (1 - true) * np.log1p(-said)).mean())
    held = [0, 0]
    for seed in range(1, 61):
        found = figures(*world(1500, off, seed)[:2])
        for at, (interval, value) in enumerate(
            ((found.log_loss_interval, loss), (found.calibration_error_interval, error))
        ):
            assert interval is not None
            held[at] += interval[0] <= value <= interval[1]
    assert min(held) >= 51


pairs = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=40)


@given(pairs, st.randoms())
def test_no_figure_depends_on_the_order_of_equal_scores(given_pairs: list[tuple[bool, int]], shuffle: Any) -> None:
    """Whatever comes: one class only, ties, a single sample; every figure is a number or absent."""
    mixed = list(given_pairs)
    shuffle.shuffle(mixed)
    one, other = (
        msgspec.to_builtins(figures([float(a) for a, _ in some], [b / 6 for _, b in some]))
        for some in (given_pairs, mixed)
    )
    for name in ("metrics", "log_loss_interval"):  # sums of floats
        assert one.pop(name) == pytest.approx(other.pop(name), nan_ok=True)
    assert one == other
    assert all(np.isfinite(value) for value in numbers(one))
    positives = sum(label for label, _ in given_pairs)
    assert sum(found["count"] for found in one["reliability"]) == len(given_pairs)
    assert sum(one["histogram"]["positives"]) == positives
    assert sum(one["histogram"]["negatives"]) == len(given_pairs) - positives
    assert (one["roc"] is None) == (positives in (0, len(given_pairs)))


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from numbers(one)
    elif isinstance(value, (int, float)):
        yield float(value)


def test_intervals_hold_what_they_say() -> None:
    """Of 60 draws of one world some 95% of the intervals hold its precision among the highest tenth, and its AP."""
    labels, probabilities = samples(200_000, 20_000, 1.5, 0)
    truth = figures(labels, probabilities)
    true_cut = next(cut for cut in truth.top if cut.share == pytest.approx(0.1))
    held = [0, 0]
    for seed in range(1, 61):
        chosen = np.random.default_rng(seed).choice(len(labels), 1000, replace=False)
        found = figures(labels[chosen], probabilities[chosen])
        cut = next(cut for cut in found.top if cut.count == 100)
        ends = (cut.precision_interval, found.average_precision_interval)
        for at, (interval, value) in enumerate(zip(ends, (true_cut.precision, truth.average_precision), strict=True)):
            assert interval is not None
            assert value is not None
            held[at] += interval[0] <= value <= interval[1]
    assert min(held) >= 51


def test_too_few_of_a_class_have_no_intervals() -> None:
    found = figures(*samples(500, 9, 1.0, 1))
    assert found.average_precision_interval is None
    assert found.log_loss_interval is None
    assert found.calibration_error_interval is None
    assert found.roc is not None
    assert found.roc.low is None
    assert all(cut.precision_interval is None for cut in found.top)
    assert figures(*samples(500, 10, 1.0, 1)).average_precision_interval is not None


def test_wilson_by_hand() -> None:
    assert wilson(0, 0) is None
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert (wilson(0, 10) or (1, 1))[0] == 0


def test_slices_are_parts_counted_alone() -> None:
    labels, probabilities = samples(600, 200, 1.0, 2)
    generator = np.random.default_rng(0)
    columns = {
        "few": generator.choice(["a", "b"], 600, p=[0.97, 0.03]),
        "one": np.array(["same"] * 600),
        "names": np.array([str(at) for at in range(600)]),
        "many": np.array([f"{min(at, 29):02}" for at in generator.geometric(0.1, 600)]),
    }
    found = sliced({by: Texts.of(pa.array(values)) for by, values in columns.items()}, labels, probabilities)
    assert {one.by for one in found} == {"few", "many"}
    for one in found:
        if one.value.endswith("others"):
            continue
        chosen = columns[one.by] == one.value
        assert (one.count, one.positives) == (chosen.sum(), labels[chosen].sum())
        assert one.mean == pytest.approx(probabilities[chosen].mean(), abs=1e-6)
        if one.auc is not None:
            assert one.auc == pytest.approx(roc_auc_score(labels[chosen], probabilities[chosen]))
            assert one.auc_interval == auc_interval(labels[chosen].astype(np.int8), probabilities[chosen].astype(float))
        assert (one.auc is None) == (min(one.positives, one.count - one.positives) < 10)
    many = [one for one in found if one.by == "many"]
    assert sum(one.count for one in many) == 600
    assert len(many) <= VALUES_MAX + 1


def test_importance_is_of_what_the_model_uses() -> None:
    generator = np.random.default_rng(0)
    rows = generator.integers(0, 100, (20_000, 4)).astype(np.int32)
    labels = (generator.random(20_000) < np.where(rows[:, 2] > 80, 0.3, 0.01)).astype(np.float32)

    def predict(asked: Any) -> Any:
        return (asked[:, 2] * 0.009 + asked[:, 0] * 0.00001).astype(np.float32)

    found, count = permutation_importance(predict, rows, labels, list("abcd"), samples=3000, seed=5)
    assert count == 3000
    assert [one.field for one in found] == ["a", "b", "c", "d"]
    whole = roc_auc_score(labels, predict(rows))
    assert found[2].loss == pytest.approx(whole - 0.5, abs=0.05)
    assert found[2].least <= found[2].loss <= found[2].most
    assert abs(found[0].loss) < 0.01
    assert found[1].loss == found[3].loss == 0
    assert permutation_importance(predict, rows, labels, list("abcd"), samples=3000, seed=5)[0] == found
    assert permutation_importance(predict, rows, np.zeros(20_000, np.float32), list("abcd"), samples=9, seed=5) == (
        [],
        0,
    )


def test_a_wide_network_is_asked_for_fewer_samples() -> None:
    assert samples_max(41, 16, [256, 128]) == 4000
    assert 200 <= samples_max(41, 16, [1000] * 5) < 1000


# -- the page ----------------------------------------------------------------------------------------------------------


def texts(page_text: str) -> str:
    return " ".join(" ".join(ET.fromstring(page_text).itertext()).split())


def needs_nothing(page_text: str) -> None:
    """Well formed; no script; nothing in it names another place."""
    root = ET.fromstring(page_text)
    assert not re.search(r"https?:|//|url\(|@import|\bsrc=|\bhref=", page_text.replace("</", ""))
    assert {"script", "link", "img", "iframe", "object"}.isdisjoint({element.tag for element in root.iter()})
    for element in root.iter("svg"):
        assert element.get("aria-label") or element.get("aria-hidden") == "true"
        assert "nan" not in ET.tostring(element, "unicode")


def test_the_page_has_every_figure_and_needs_nothing_besides(tmp_path: Path) -> None:
    folder = write_sample_report(tmp_path / "a", 1)
    page_text, report = (folder / "report.html").read_text(), json.loads((folder / "report.json").read_bytes())
    needs_nothing(page_text)
    shown = texts(page_text)
    assert report["verdict"] in shown
    assert "bank & <co>" in shown
    for one in report["importance"]:
        what = f"{one['field']} {one['meaning']}".rstrip()
        assert f"{what} {one['loss']:.4f} {one['least']:.4f} {one['most']:.4f}" in shown
    assert {one["meaning"] for one in report["importance"]} == {"", "sum(<a>) of b by c, last 1h"}
    for line in report["training"]:
        assert f"{line['step']} {line['epoch']:g} {line['loss']:.4f} {line['val_log_loss']:.4f}" in shown
    for value in (*report["model"]["hashes"].values(), *report["model"]["versions"].values()):
        assert value in shown
    for name, part in report["parts"].items():
        found = part["figures"]
        for key in ("auc", "auc_low", "auc_high", "log_loss", "calibration_error", "base_log_loss"):
            assert f"{found['metrics'][key]:.4f}" in shown, (name, key)
        for key in ("log_loss", "calibration_error"):
            low, high = found[f"{key}_interval"]
            assert f"{found['metrics'][key]:.4f} ({low:.4f} to {high:.4f})" in shown, (name, key)
        for cut in found["top"]:
            ends = "{:.4f} to {:.4f}".format(*cut["precision_interval"])
            assert f"{cut['precision']:.4f} ({ends}) {cut['lift']:.2f}× {cut['recall']:.2%}" in shown
        for threshold in found["thresholds"]:
            what = (
                f"{threshold['probability']:.4f} {threshold['chosen']:,} {threshold['right']:,} {threshold['missed']:,}"
            )
            assert f"{threshold['name']} {what}" in shown
        for one in found["reliability"]:
            assert f"{one['mean']:.4f} {one['rate']:.4f} (" in shown
        histogram = found["histogram"]
        for at, (positive, negative) in enumerate(zip(histogram["positives"], histogram["negatives"], strict=True)):
            edges = f"{histogram['edges'][at]:.4g} to {histogram['edges'][at + 1]:.4g}"
            assert f"{edges} {positive:,} {negative:,}" in shown
        for one in part["slices"]:
            assert f"{one['by']} {one['value']} {one['count']:,} {one['positives']:,}" in shown


@pytest.mark.parametrize(
    ("count", "positives", "probability"),
    [(300, 0, None), (300, 300, None), (1, 1, None), (300, 30, 0.25), (9, 4, 1.0)],
)
def test_pages_of_odd_parts(count: int, positives: int, probability: float | None, tmp_path: Path) -> None:
    """One class only, a single sample, a constant model, one that is sure."""
    labels, probabilities = samples(count, positives, 1.0, 1)
    if probability is not None:
        probabilities[:] = probability
    report = report_of({"test": (labels, probabilities)})
    needs_nothing(page({"": report}))
    write_report(tmp_path, report)
    assert read_report(tmp_path) == report
    assert b"NaN" not in (tmp_path / "report.json").read_bytes()
    assert report.better is False
    assert ("cannot be judged" in texts(page({"": report}))) == (min(positives, count - positives) < 10)


def test_two_reports_stand_side_by_side(tmp_path: Path) -> None:
    one, other = write_sample_report(tmp_path / "x" / "run", 1), write_sample_report(tmp_path / "y" / "run", 5)
    lines = compare_reports(one, other, tmp_path / "out")
    assert [line.split(":")[0] for line in lines[:2]] == ["x/run", "y/run"]
    page_text = (tmp_path / "out" / "report.html").read_text()
    needs_nothing(page_text)
    shown = texts(page_text)
    for folder in (one, other):
        report = read_report(folder)
        assert report.verdict in shown
        measured = report.parts["test"].figures
        assert f"{measured.metrics.auc:.4f}" in shown
        low, high = measured.calibration_error_interval or (-1.0, -1.0)
        assert f"{measured.metrics.calibration_error:.4f} ({low:.4f} to {high:.4f})" in shown
    assert "x/run test y/run test" in shown
    # The two are of other samples: the slices of each stand by themselves.
    assert "by value samples positive share predicted AUC" in shown


def test_slices_on_the_same_samples_stand_in_one_table() -> None:
    labels, good = samples(800, 80, 2.0, 1)
    weak = samples(800, 80, 0.5, 1)[1]
    reports = {"a": report_of({"test": (labels, good)}), "b": report_of({"test": (labels, weak)})}
    shown = texts(page(reports))
    assert "by value samples positive share a predicted a AUC b predicted b AUC" in shown
    pairs_of_slices = [*zip(*(reports[name].parts["test"].slices for name in "ab"), strict=True)]
    assert len(pairs_of_slices) == 2
    for one, other in pairs_of_slices:
        assert one.auc is not None
        assert other.auc is not None
        assert one.auc > other.auc
        low, high = one.rate_interval or (0, 0)
        assert low < one.rate < high
        share = f"{one.rate:.2%} ({low:.2%} to {high:.2%})"
        figures_of = f"{one.mean:.2%} {with_interval(one.auc, one.auc_interval)} "
        figures_of += f"{other.mean:.2%} {with_interval(other.auc, other.auc_interval)}"
        assert f"{one.by} {one.value} {one.count:,} {one.positives:,} {share} {figures_of}" in shown


def test_what_two_reports_say_of_each_other() -> None:
    def told(a: Any, b: Any) -> str:
        return difference({"a": a, "b": b})

    good, weak = report_of({"test": samples(2000, 200, 2.5, 1)}), report_of({"test": samples(2000, 200, 0.5, 2)})
    assert told(good, weak).startswith("a is better than b: AUC ")
    assert told(weak, good).startswith("b is better than a: AUC ")
    like = report_of({"test": samples(2000, 200, 2.5, 3)})
    assert "cannot be told apart" in told(good, like)
    assert "judged on different data" in told(good, report_of({"test": samples(2000, 200, 1, 3)}, judged_on="other"))
    assert "judged on different samples" in told(good, report_of({"test": samples(1999, 200, 1, 3)}))
    few = report_of({"test": samples(2000, 3, 1, 3)})
    assert "too few samples" in told(few, few)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "does not exist: run `jd-intent-batch evaluate` first"),
        (b"", "evaluate` again"),
        (b"\xff\xfe", "evaluate` again"),
        (b"[]", "evaluate` again"),
    ],
)
def test_a_wrong_report_is_named_on_one_line(content: bytes | None, complaint: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(DatasetError, match=r"report\.json.*" + complaint) as told:
        read_report(tmp_path)
    assert "\n" not in str(told.value)


def test_a_report_of_another_form_is_named(tmp_path: Path) -> None:
    report = json.loads((write_sample_report(tmp_path / "a", 1) / "report.json").read_bytes())
    for change, complaint in (({"format": 99}, "has format 99"), ({"judged": "train"}, "'train', which was judged")):
        (tmp_path / "report.json").write_text(json.dumps(report | change))
        with pytest.raises(DatasetError, match=complaint):
            read_report(tmp_path)


def test_a_report_of_before_some_intervals_is_read_and_shown(tmp_path: Path) -> None:
    folder = write_sample_report(tmp_path / "a", 1)
    report = json.loads((folder / "report.json").read_bytes())
    for part in report["parts"].values():
        del part["figures"]["log_loss_interval"], part["figures"]["calibration_error_interval"]
    (folder / "report.json").write_text(json.dumps(report))
    loss = report["parts"]["test"]["figures"]["metrics"]["log_loss"]
    assert f"log loss {report['parts']['val']['figures']['metrics']['log_loss']:.4f} " in texts(
        page({"": read_report(folder)})
    )
    assert f"{loss:.4f} (" not in texts(page({"": read_report(folder)}))


# -- what evaluation writes --------------------------------------------------------------------------------------------

ANSWERS_NAN = """
import json, sys
from pathlib import Path
import numpy as np
from batch.train.evaluation import evaluate_checkpoint
dataset, checkpoint, out = map(Path, sys.argv[1:])
bias = checkpoint / "model" / "deep.6.bias" / "out"
bias.write_bytes(np.array([np.nan], "<f4").tobytes())
try:
    evaluate_checkpoint(dataset, checkpoint, out)
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def test_evaluation_writes_a_report_of_its_metrics(tiny_checkpoint: Path) -> None:
    report = read_report(tiny_checkpoint)
    needs_nothing((tiny_checkpoint / "report.html").read_text())
    metrics = json.loads((tiny_checkpoint / "metrics.json").read_bytes())
    for name, part in report.parts.items():
        assert msgspec.to_builtins(part.figures.metrics) == metrics[name]
    assert report.better
    assert report.judged == "test"
    assert len(report.importance) == 41
    assert report.importance[0].loss > 0.01
    assert len(report.training) == len((tiny_checkpoint / "history.jsonl").read_text().splitlines())
    assert report.model.hashes["weights"] == metrics["weights_sha256"]
    assert "oneflow" in report.model.versions


def test_an_answer_that_is_no_number_is_named(
    in_model_environment: InModelEnvironment, tiny_dataset: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    kind, message = in_model_environment(ANSWERS_NAN, tiny_dataset, checkpoint, tmp_path / "out")
    assert kind == "DatasetError"
    assert "the model answers nan for request val-0 of val" in message
    assert not (tmp_path / "out").exists()


def test_the_log_loss_has_the_interval_of_a_mean() -> None:
    """As often as it says, the true one lies in it."""
    random = np.random.default_rng(3)
    p = random.uniform(0.02, 0.6, 400)
    truth = float(np.mean(-p * np.log(p) - (1 - p) * np.log(1 - p)))
    held = 0
    for _ in range(300):
        found = measure((random.random(400) < p).astype(np.float64), p, 0.3)
        assert found.log_loss_low is not None
        assert found.log_loss_high is not None
        assert found.log_loss_low < found.log_loss < found.log_loss_high
        held += found.log_loss_low <= truth <= found.log_loss_high
    assert 275 <= held <= 297  # 285 expected, four deviations
    assert measure(np.array([1.0]), np.array([0.5]), 0.5).log_loss_low is None
