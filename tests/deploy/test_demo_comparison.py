"""The demo's verdict: which requests may differ from offline, and that all others may not."""

from __future__ import annotations

import io
from collections import Counter
from types import SimpleNamespace
from typing import cast

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from batch.replay import Message, Replay
from deploy.demo.comparison import Stream, compare, summarise
from deploy.demo.shop import Shop
from deploy.demo.traffic import ScoreSubscriber

EVENTS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.booleans()), max_size=12)


def replay_of(events: list[tuple[str, int, bool]]) -> Replay:
    return Replay(
        [], [Message("t", k.encode(), b"", t, f"r{n}" if asks else "") for n, (k, t, asks) in enumerate(events)]
    )


@given(EVENTS)
def test_requests_that_share_a_moment_of_their_key_are_tied(events: list[tuple[str, int, bool]]) -> None:
    alone = {
        f"r{n}"
        for n, (key, time, asks) in enumerate(events)
        if asks and all((key, time) != other[:2] for m, other in enumerate(events) if m != n)
    }
    replay = replay_of(events)
    assert replay.tied == set(replay.request_ids) - alone


@given(EVENTS, st.sets(st.integers(0, 11)))
def test_only_tied_requests_may_differ(events: list[tuple[str, int, bool]], wrong: set[int]) -> None:
    replay = replay_of(events)
    scores = {name: {"p": 0.9 if int(name[1:]) in wrong else 0.5} for name in replay.request_ids}
    count = len(scores)
    offline = pa.table({"request_id": list(scores), "probability": [0.5] * count, "label": [0] * count})
    found = compare(scores, "p", offline, replay.tied)
    different = {name for name in scores if int(name[1:]) in wrong}
    assert found.differing == len(different - replay.tied)
    assert found.tied == len(different & replay.tied)
    assert (found.difference_max > 0.1) == bool(different - replay.tied)


def test_the_page_fits_and_says_when_there_is_no_auc() -> None:
    replay, shop = replay_of([("a", 1, True), ("b", 2, True)]), Shop.of("sql/jd")
    scores = {name: {"user_id": "u" * 30, "sku_id": "s", shop.probability: 0.5} for name in replay.request_ids}
    seen = SimpleNamespace(scores=scores, doubled=[], dead=Counter({"x" * 99: 12}), received=dict.fromkeys(scores, 2.0))
    offline = pa.table({"request_id": list(scores), "probability": [0.5] * 2, "label": [0] * 2})
    result = Stream(shop, replay, dict.fromkeys(scores, 1.0), cast(ScoreSubscriber, seen), 1.0, 1)
    sink = io.StringIO()
    comparison = compare(scores, shop.probability, offline, replay.tied)
    summarise(Console(file=sink, width=80, highlight=False), result, comparison, {"data": "/long" * 30})
    page = sink.getvalue()
    assert "none, all labels are alike" in page
    assert "up to 1 in flight" in page
    assert "nan" not in page
    assert max(map(len, page.splitlines())) <= 80
