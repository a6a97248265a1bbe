"""Many pairs go by: what is kept to label their scores does not grow, whether their labels are known or not."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from fixtures import applications
from fixtures.jd import jd

import streaming
from streaming.app.folder import App, load_app
from streaming.app.topics import TopicNames
from streaming.board.decoding import Raw
from streaming.board.fields import score_fields
from streaming.board.labels import Labels, find_labels
from streaming.board.outcomes import Outcomes
from streaming.board.pairs import Pairs
from streaming.events.batch import EventBatch

DAY_MS = 86_400_000
T0 = 1_459_000_000_000
SCORES, EVENTS = 1000, 2000
BATCH, WARM, ROUNDS = 500, 20, 120


class Made(Labels):
    """Labels whose events are handed over as they are."""

    def events(self, rows: object) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        assert isinstance(rows, tuple)
        return rows


def jd_score(number: int, at: int) -> dict[str, object]:
    return {
        "request_id": f"r{number}",
        "user_id": f"user {number}",
        "sku_id": str(number % 700),
        "event_time": at,
        "purchase_probability": 0.5,
    }


def bank_score(number: int, at: int) -> dict[str, object]:
    return {"payment": f"payment {number}", "card": number, "at": at, "risk": 0.5}


def ours_in_memory() -> tracemalloc.Snapshot:
    """What our code keeps; not what the session does beside: a proxy waits with 64 KB in hand."""
    gc.collect()
    of = [tracemalloc.Filter(True, pattern) for pattern in (f"{Path(streaming.__file__).parent}/*", __file__)]
    return tracemalloc.take_snapshot().filter_traces(of)


def card_told(folder: Path) -> App:
    told = ('payment = "id"', 'payment = "id"\ncard = "card"\nat = "at"')
    return load_app(applications.make(folder / "app", app=told))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("app_of", "score", "key"),
    [(lambda _: jd(), jd_score, ("user_id", "sku_id")), (card_told, bank_score, ("card",))],
    ids=["of the pair", "of the score"],
)
def test_many_pairs_leave_nothing_behind(
    app_of: Callable[[Path], App],
    score: Callable[[int, int], dict[str, object]],
    key: tuple[str, ...],
    known: bool,
    tmp_path: Path,
) -> None:
    app = app_of(tmp_path)
    fields = score_fields(app)
    found = find_labels(app, TopicNames.of(app, {}), fields)
    labels = Made(found.later, found.horizon_ms, found.topics, found.keys, found._rows)
    pairs = Pairs(fields, SCORES, best_max=100, keys=labels.keys)
    outcomes = Outcomes(labels, pairs, events_max=EVENTS)
    order = sorted(key, key=labels.keys.fields.index)

    def feed(turn: int) -> None:
        """New pairs, and the event that follows every other one of them."""
        at = T0 + turn * 1000 if known else T0
        made = [score(turn * BATCH + n, at) for n in range(BATCH)]
        pairs.add([Raw(json.dumps(one).encode(), at, 0, turn * BATCH + n) for n, one in enumerate(made)])
        codes = labels.keys([tuple(one[name] for name in order) for one in made[::2]])
        outcomes.take(EventBatch(rows=(codes, np.full(len(codes), at + 1))))  # type: ignore[arg-type]
        if known:
            outcomes.reach(at + labels.horizon_ms, loaded=True)
        outcomes.compute()

    tracemalloc.start()
    try:
        for turn in range(WARM):
            feed(turn)
        before = ours_in_memory()
        for turn in range(WARM, WARM + ROUNDS):
            feed(turn)
        after = ours_in_memory()
    finally:
        tracemalloc.stop()
    assert pairs.received == (WARM + ROUNDS) * BATCH
    grown = after.compare_to(before, "lineno")
    assert sum(line.size_diff for line in grown) < 300_000, grown[:10]  # of 60,000 pairs: five bytes each
    assert outcomes.events_kept() <= EVENTS
    figures = outcomes.figures
    assert figures.positives == SCORES // 2
    assert figures.matured == (SCORES if known else SCORES // 2)


def test_events_that_come_one_by_one_cost_no_more_than_those_that_come_together() -> None:
    app = jd()
    fields = score_fields(app)
    found = find_labels(app, TopicNames.of(app, {}), fields)
    labels = Made(found.later, found.horizon_ms, found.topics, found.keys, found._rows)
    outcomes = Outcomes(labels, Pairs(fields, SCORES, keys=labels.keys))
    tracemalloc.start()
    try:
        for number in range(20_000):
            event = np.array([number]), np.array([T0])
            outcomes.take(EventBatch(rows=event))  # type: ignore[arg-type]
        kept = ours_in_memory()
    finally:
        tracemalloc.stop()
    assert outcomes.events_kept() == 20_000
    assert (
        sum(trace.size for trace in kept.traces) < 16 * 20_000 + 400_000
    )  # the last thousand are not put together yet
