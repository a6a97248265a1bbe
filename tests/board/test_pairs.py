"""The board's state beside a plain one that forgets nothing; what it keeps when it must forget; what is no score."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures import applications
from fixtures.jd import jd
from places import SQL

from streaming.app.folder import load_app
from streaming.board.decoding import Raw
from streaming.board.fields import Join, score_fields
from streaming.board.pairs import TREND, VALUES_MAX, Pairs

FIELDS = score_fields(jd())


def raw(user: Any, item: Any, probability: Any, number: int = 0, **more: Any) -> Raw:
    """A score as the scorer writes it."""
    score = {"user_id": user, "sku_id": item, "event_time": 5_000 + number, "purchase_probability": probability}
    return Raw(
        json.dumps({"request_id": f"r{number}", **score, "model_version": "1", **more}).encode(), number, 0, number
    )


def drawn(count: int, users: int, items: int, seed: int) -> list[tuple[str, str, float]]:
    random = np.random.default_rng(seed)
    probabilities = random.permutation(count) / count  # no two are equal: a ranking has one order
    return [
        (str(user), str(item), float(p))
        for user, item, p in zip(
            random.integers(0, users, count), random.integers(0, items, count), probabilities, strict=True
        )
    ]


def fed(scores: list[tuple[str, str, float]], batch: int, scores_max: int, best_max: int = 10_000) -> Pairs:
    pairs = Pairs(FIELDS, scores_max, best_max)
    records = [raw(user, item, p, n) for n, (user, item, p) in enumerate(scores)]
    for start in range(0, len(records), batch):
        pairs.add(records[start : start + batch])
    return pairs


@pytest.mark.parametrize("batch", [1, 7, 500, 5000])
def test_a_ranking_is_that_of_each_pair_s_last_score(batch: int) -> None:
    scores = drawn(5000, 30, 20, seed=batch)
    pairs = fed(scores, batch, scores_max=5000)
    of = defaultdict(list)
    for user, item, p in scores:
        of[user, item].append(np.float32(p))
    expected = sorted(of, key=lambda key: -of[key][-1])
    rows, total = pairs.ranking(50)
    assert total == len(of)
    assert [row.key for row in rows] == expected[:50]
    for row in rows:
        assert row.probability == of[row.key][-1]
        assert list(row.trend) == of[row.key][-TREND:]
        assert row.count == len(of[row.key])
        assert row.version == "1"
        found = pairs.pair(row.key)
        assert found is not None
        assert [score.probability for score in found[1]] == of[row.key][::-1]


@pytest.mark.parametrize(("batch", "scores_max"), [(1, 100), (13, 100), (400, 100), (5000, 3000)])
def test_the_newest_and_the_best_are_kept_and_nothing_else(batch: int, scores_max: int) -> None:
    scores = drawn(30_000, 5000, 400, seed=3)
    pairs = fed(scores, batch, scores_max=scores_max, best_max=20)
    assert pairs.received == len(scores)
    assert pairs.pairs_kept() <= scores_max + 20 + max(1000, scores_max // 4)
    last = {(user, item): np.float32(p) for user, item, p in scores}
    newest = scores[-scores_max:]
    for user, item, _ in newest:  # each is there, with all of its scores among these
        found = pairs.pair((user, item))
        assert found is not None
        assert found[0].probability == last[user, item]
        assert [score.probability for score in found[1]] == [
            np.float32(p) for u, i, p in reversed(newest) if (u, i) == (user, item)
        ]
    best = sorted(last, key=lambda key: -last[key])[:20]
    rows, _ = pairs.ranking(20)
    assert [row.key for row in rows] == best


def test_the_history_of_a_user_has_the_scores_of_its_pairs() -> None:
    scores = drawn(3000, 50, 20, seed=5)
    pairs = fed(scores, 100, scores_max=1000)
    newest = scores[-1000:]
    for user in {user for user, _, _ in newest}:
        found, its = pairs.history("user_id", user)
        assert [(score.key, score.probability) for score in found] == [
            ((u, i), float(np.float32(p))) for u, i, p in reversed(newest) if u == user
        ]
        assert {row.key for row in its} >= {(u, i) for u, i, _ in newest if u == user}
        assert [row.probability for row in its] == sorted((row.probability for row in its), reverse=True)
    assert pairs.history("user_id", "nobody") == ([], [])
    assert pairs.history("nothing", "1") == ([], [])


def test_a_search_finds_the_name_itself_first() -> None:
    pairs = fed([("12", "7", 0.5), ("120", "12", 0.9), ("312", "8", 0.4), ("12", "9", 0.6)], 10, scores_max=1000)
    found = [(match.field, match.value, match.pairs) for match in pairs.find("12")]
    assert found == [("sku_id", "12", 1), ("user_id", "12", 2), ("user_id", "120", 1), ("user_id", "312", 1)]
    assert pairs.find("12")[1].best == np.float32(0.6)
    assert pairs.find("  ") == pairs.find("x") == []


def test_filters_are_of_what_is_declared_whenever_it_is() -> None:
    scores = drawn(2000, 40, 30, seed=8)
    pairs = Pairs(FIELDS, 2000)
    pairs.add([raw(user, item, p, n) for n, (user, item, p) in enumerate(scores[:1000])])
    pairs.declare("br", lambda key: None if key[1] == "0" else str(int(key[1]) % 3))
    pairs.declare("name", lambda key: key[0] + key[1] + "x" * VALUES_MAX)
    pairs.add([raw(user, item, p, n) for n, (user, item, p) in enumerate(scores[1000:], 1000)])
    there = {(user, item) for user, item, _ in scores}
    wanted = {key for key in there if key[1] != "0" and int(key[1]) % 3 == 1}
    rows, total = pairs.ranking(10_000, filters={"br": "1"})
    assert ({row.key for row in rows}, total) == (wanted, len(wanted))
    choices = pairs.choices()
    assert choices.keys() == {"br"}, "a field of too many values is no filter"
    assert dict(choices["br"])["1"] == len(wanted)
    assert pairs.ranking(10, filters={"br": "9"}) == pairs.ranking(10, filters={"what": "1"}) == ([], 0)


def test_a_ranking_has_no_scores_that_are_too_old() -> None:
    pairs = fed([("1", "1", 0.9), ("2", "2", 0.8), ("3", "3", 0.7)], 1, scores_max=1000)
    rows, total = pairs.ranking(10, not_before=1)
    assert ([row.key[0] for row in rows], total) == (["2", "3"], 2)


def test_what_is_no_score_is_counted_and_passed_by() -> None:
    good = [raw("1", "2", 0.25, 1), raw("1", "3", 1, 2)]
    wrong = [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"user_id": "1", "sku_id": "2"}',
        raw("1", "2", 1.5).value,
        raw("1", "2", "much").value,
        raw(["1"], "2", 0.5).value,
        raw(None, "2", 0.5).value,
        good[0].value + b"\n" + good[1].value,
    ]
    pretty = json.dumps(json.loads(raw("9", "9", 0.75).value), indent=1).encode()
    pairs = Pairs(FIELDS, 1000)
    pairs.add([good[0], *(Raw(value, 5, 0, n) for n, value in enumerate(wrong)), Raw(pretty, 5, 0, 9), good[1]])
    assert (pairs.received, pairs.unreadable) == (3, len(wrong))
    assert [row.key for row in pairs.ranking(10)[0]] == [("1", "3"), ("9", "9"), ("1", "2")]


def test_the_throughput_is_that_of_whole_seconds() -> None:
    now = [100.5]
    pairs = Pairs(FIELDS, 1000, clock=lambda: now[0])
    pairs.add([raw("1", "1", 0.5)], live=False)  # of the look-back
    pairs.add([raw("1", "1", 0.5)] * 3)
    now[0] = 102.0
    pairs.add([raw("1", "1", 0.5)] * 2)
    assert pairs.per_second(3) == [0, 3, 0]
    now[0] = 103.9
    assert pairs.per_second(4) == [0, 3, 0, 2][:4]
    assert pairs.received == 6


def test_an_empty_board_answers() -> None:
    pairs = Pairs(FIELDS, 1000)
    assert pairs.ranking(10) == ([], 0)
    assert (pairs.pair(("1", "2")), pairs.any(0.5), pairs.version(), pairs.choices()) == (None, None, "", {})


def test_any_score_of_the_ring_can_be_drawn() -> None:
    pairs = fed(drawn(2500, 40, 30, seed=8), 500, scores_max=1000)
    offsets = [place.offset for draw in (0.0, 0.5, 0.9999) if (place := pairs.any(draw)) is not None]
    assert offsets == [1500, 2000, 2499]


def test_the_fields_are_what_the_application_says() -> None:
    assert (FIELDS.users, FIELDS.items, FIELDS.pair) == (("user_id",), ("sku_id",), ("user_id", "sku_id"))
    assert (FIELDS.probability, FIELDS.version, FIELDS.request) == (
        "purchase_probability",
        "model_version",
        "request_id",
    )
    assert FIELDS.time == "event_time"
    assert Join("sku_id", "bo_product", "sku_id", ("a1", "a2", "a3", "cate", "br")) in FIELDS.joins
    clicks = score_fields(load_app(SQL / "talkingdata"))
    assert (clicks.pair, clicks.probability, clicks.time) == (("ip",), "download_probability", "click_time")
    pairs = Pairs(clicks, 1000)
    score = {"click_id": "a", "ip": 77, "click_time": 9, "download_probability": 0.5, "model_version": "2"}
    pairs.add([Raw(json.dumps(score).encode(), 1, 0, 0)])
    (row,), _ = pairs.ranking(5)
    assert (row.key, row.id, row.time, row.version) == ((77,), "[77]", 9, "2")


def test_scores_need_no_version_and_no_time(tmp_path: Path) -> None:
    fields = score_fields(load_app(applications.make(tmp_path / "app")))
    assert (fields.version, fields.time) == (None, None)
    pairs = Pairs(fields, 1000)
    pairs.add([Raw(b'{"payment": "a", "risk": 0.5}', 1, 0, 0)])
    (row,), _ = pairs.ranking(5)
    assert (row.key, row.time, row.version) == (("a",), None, "")
