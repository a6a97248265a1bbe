"""What the demo concludes: streamed beside offline, one readable page, and the reasons to fail."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sklearn.metrics import roc_auc_score

from batch.plots.latency import LatencyFigures, Load, Measured, write_latency
from batch.plots.parity import write_parity
from batch.replay import Replay
from deploy.demo.shop import Shop
from deploy.demo.traffic import PACED_PER_S, POISON, WINDOW, ScoreSubscriber
from streaming.events.scores import MODEL_VERSION, PROBABILITY

__all__ = ["LATENCY", "PARITY", "Comparison", "Stream", "compare", "draw", "faults", "summarise"]

PARITY, LATENCY = "parity.svg", "latency.svg"
PERCENTILES = (50, 75, 90, 95, 99, 99.9)
SHOWN = 10  # of the highest scores

Floats = npt.NDArray[np.float64]
_NONE: Floats = np.empty(0, np.float64)

PROBABILITY_TOLERANCE = 1e-5
"""Streamed and offline probabilities come from other batch sizes: float32 sums in another order."""


@dataclass(frozen=True, slots=True)
class Stream:
    """What came of the traffic.

    Attributes:
        shop: whose events they were.
        replay: what was sent.
        sent: request id → when it was sent, monotonic seconds.
        subscriber: what was seen.
        seconds: that the flooded part took.
        flooded: requests that were sent as fast as they were scored; the rest was paced.
    """

    shop: Shop
    replay: Replay
    sent: Mapping[str, float]
    subscriber: ScoreSubscriber
    seconds: float
    flooded: int

    def latency_ms(self, part: slice) -> npt.NDArray[np.float64]:
        """Milliseconds from a request's send to the sight of its committed score, over a part of the requests."""
        sent, received = self.sent, self.subscriber.received
        ids = self.replay.request_ids[part]
        return np.array([(received[i] - sent[i]) * 1000 for i in ids if i in received])


@dataclass(frozen=True, slots=True)
class Comparison:
    """Streamed beside offline.

    Attributes:
        streamed_auc, offline_auc: of the same requests; NaN where they have one class.
        compared: requests that are on both sides.
        differing: of them those whose probability differs, without `tied`.
        difference_max: the largest difference of two probabilities, without `tied`.
        tied: those that differ, and may, as another event of their key has the same time.
        probabilities: streamed and offline, of the compared requests.
    """

    streamed_auc: float
    offline_auc: float
    compared: int
    differing: int
    difference_max: float
    tied: int = 0
    probabilities: tuple[Floats, Floats] = field(default=(_NONE, _NONE), compare=False, repr=False)


def compare(
    scores: Mapping[str, Mapping[str, Any]], probability: str, predictions: pa.Table, tied: Collection[str] = ()
) -> Comparison:
    """Joins by request id and compares probability by probability.

    Args:
        probability: the field of a score.
        tied: requests that may differ, see `Replay.tied`.
    """
    columns = (predictions[name].to_pylist() for name in ("request_id", "probability", "label"))
    offline = {str(request_id): (expected, label) for request_id, expected, label in zip(*columns, strict=True)}
    both = [request_id for request_id in scores if request_id in offline]
    streamed = np.array([scores[request_id][probability] for request_id in both])
    expected = np.array([offline[request_id][0] for request_id in both])
    labels = np.array([offline[request_id][1] for request_id in both])
    difference = np.abs(streamed - expected)
    differs = difference > PROBABILITY_TOLERANCE
    excused = differs & np.array([request_id in tied for request_id in both], dtype=bool)
    learnable = 0 < labels.sum() < len(labels)
    return Comparison(
        streamed_auc=float(roc_auc_score(labels, streamed)) if learnable else float("nan"),
        offline_auc=float(roc_auc_score(labels, expected)) if learnable else float("nan"),
        compared=len(both),
        differing=int((differs & ~excused).sum()),
        difference_max=float(difference[~excused].max(initial=0.0)),
        tied=int(excused.sum()),
        probabilities=(streamed.astype(np.float64), expected.astype(np.float64)),
    )


def summarise(console: Console, result: Stream, comparison: Comparison, places: Mapping[str, object]) -> None:
    """Prints the one readable page; `places` says where every artifact lies."""
    subscriber, requests = result.subscriber, len(result.replay.request_ids)
    others = len(result.replay.events) - requests
    flood = result.latency_ms(slice(0, result.flooded))
    paced = result.latency_ms(slice(result.flooded, None))
    same = comparison.compared - comparison.differing - comparison.tied
    rows = {
        "events in": f"{len(result.replay.events) + POISON:,} ({requests:,} requests, {POISON} poison messages"
        f"{f', {others:,} of other topics' if others else ''})",
        "scores out": f"{len(subscriber.scores):,}, {len(subscriber.doubled)} doubled",
        "dead letters": f"{subscriber.dead.total()}",
        "throughput": f"{result.flooded / result.seconds:,.0f} events/s, sent as fast as scored",
        "latency, flooded": f"{_percentiles(flood)}, up to {min(WINDOW, result.flooded):,} in flight",
        "latency, paced": f"{_percentiles(paced)}, at {PACED_PER_S:,.0f} events/s",
        "AUC streamed": _auc(comparison.streamed_auc),
        "AUC offline": f"{_auc(comparison.offline_auc)}, the same {comparison.compared:,} requests",
        "same probability": f"{same:,} of {comparison.compared:,}, differences up to {comparison.difference_max:.0e}",
    }
    if comparison.tied:
        rows["of one moment"] = f"{comparison.tied:,} differ: offline they see another event of their key and time"
    rows |= {name: str(place) for name, place in places.items()}
    page = _table("What happened")
    page.show_header = False
    page.add_column(style="bold")
    page.add_column(overflow="fold")
    for name, text in rows.items():
        page.add_row(name, text)
    for table in (page, _highest(result.shop, subscriber), _dead_letters(subscriber)):
        console.print()
        console.print(table)
    console.print()


def draw(work: Path, result: Stream, comparison: Comparison) -> None:
    """Plots of the run: streamed probabilities beside offline ones, and latency by percentile."""
    streamed, offline = comparison.probabilities
    title = f"{comparison.compared:,} requests of {result.shop.app.settings.name}, streamed beside offline"
    note = f"{comparison.differing} probabilities differ"
    write_parity(work / PARITY, title, note, (streamed, offline, PROBABILITY_TOLERANCE))
    series = []
    for name, part, per_s in (
        ("sent as fast as scored", slice(0, result.flooded), result.flooded / result.seconds),
        ("paced", slice(result.flooded, None), PACED_PER_S),
    ):
        latency = result.latency_ms(part)
        found = {f"{at:g}": float(ms) for at, ms in zip(PERCENTILES, np.percentile(latency, PERCENTILES), strict=True)}
        series.append(Measured(name, [Load(per_s, found)]))
    write_latency(work / LATENCY, LatencyFigures("From event sent to committed score seen", series))


def faults(result: Stream, comparison: Comparison) -> list[str]:
    """Why the run failed; empty where every event is accounted for once and streamed equals offline."""
    subscriber, requests = result.subscriber, len(result.replay.request_ids)
    found = []
    if len(subscriber.scores) != requests or subscriber.doubled:
        found.append(f"{requests} requests, {len(subscriber.scores)} scores, {len(subscriber.doubled)} doubled")
    if subscriber.dead.total() != POISON:
        found.append(f"{POISON} poison messages, {subscriber.dead.total()} dead letters")
    if comparison.compared != requests:
        found.append(f"{requests} requests, {comparison.compared} of them answered on both sides")
    if comparison.differing:
        found.append(
            f"{comparison.differing} probabilities differ from offline, by up to {comparison.difference_max:.2e}"
        )
    return found


def _auc(auc: float) -> str:
    return "none, all labels are alike" if np.isnan(auc) else f"{auc:.6f}"


def _percentiles(milliseconds: npt.NDArray[np.float64]) -> str:
    return f"p50 {np.percentile(milliseconds, 50):.1f} ms, p99 {np.percentile(milliseconds, 99):.1f} ms"


def _table(title: str) -> Table:
    """Without lines: these cost columns, and ASCII has none."""
    return Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0), pad_edge=False)


def _dead_letters(subscriber: ScoreSubscriber) -> Table:
    table = _table("Dead letters")
    table.add_column("", justify="right")
    table.add_column("why", overflow="fold")
    for reason, count in sorted(subscriber.dead.items()):
        table.add_row(f"{count}", escape(reason))
    return table


def _highest(shop: Shop, subscriber: ScoreSubscriber) -> Table:
    """Of scores that differ in more than their request and time, those with the greatest probability."""
    fields = shop.app.settings.scores.fields
    times = set(shop.app.times(shop.app.main))
    shown = [
        field
        for field, source in fields.items()
        if source not in (PROBABILITY, MODEL_VERSION, shop.app.settings.request.id, *times)
        and not pa.types.is_timestamp(shop.app.query.requests.field(source).type)
        and source != "time"
    ]
    highest: dict[tuple[str, ...], float] = {}
    for score in subscriber.scores.values():
        named = tuple(str(score[field]) for field in shown)
        highest[named] = max(highest.get(named, 0.0), score[shop.probability])
    table = _table(f"The {SHOWN} highest scores")
    for name in shown:
        table.add_column(name)
    table.add_column(shop.probability, justify="right")
    for named, probability in sorted(highest.items(), key=lambda item: -item[1])[:SHOWN]:
        table.add_row(*named, f"{probability:.4f}")
    return table
