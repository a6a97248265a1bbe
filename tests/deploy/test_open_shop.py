"""KEEP=1: what the shop sends once the demo is through."""

from __future__ import annotations

import itertools
import json

import pytest
from fixtures.cards import CARDS

from batch.replay import Message
from deploy.demo.open_shop import WEEK_MS, again, weeks_of
from deploy.demo.shop import Shop

DAY_MS = WEEK_MS // 7
MONDAY = 1_700_438_400_000
NOW = MONDAY + 52 * WEEK_MS
PAN = 10**17


def payment(time_ms: int, **changes: object) -> Message:
    event = {"txn": f"t-{time_ms}", "pan": PAN, "ts": time_ms // 1000, "cents": 5, "mcc": 1, "mode": 0, **changes}
    return Message("network.authorizations", str(PAN).encode(), json.dumps(event).encode(), time_ms, str(event["txn"]))


def login(time_ms: int, text: str) -> Message:
    event = {"card_number": PAN, "moment": text, "what": "login", "success": True, "device": "téléphone"}
    return Message("bank.activity", str(PAN).encode(), json.dumps(event).encode(), time_ms)


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop.of(str(CARDS))


@pytest.mark.parametrize(("days", "weeks"), [(0, 1), (6, 1), (7, 2), (8, 2), (30, 5)])
def test_a_round_begins_behind_the_last_one(shop: Shop, days: int, weeks: int) -> None:
    events = [payment(MONDAY), payment(MONDAY + days * DAY_MS)]
    times = [event.time for event in itertools.islice(again(shop, events, NOW), 6)]
    assert times == sorted(times)
    assert (times[0] - MONDAY) / WEEK_MS == weeks == weeks_of(events)
    assert {(time - MONDAY) % WEEK_MS for time in times} == {0, days % 7 * DAY_MS}


def test_each_stream_spells_its_own_times(shop: Shop) -> None:
    events = [payment(MONDAY), login(MONDAY + 1, "2023-11-20T01:00:00.001+01:00")]
    paid, entered = (json.loads(event.value) for event in itertools.islice(again(shop, events, NOW), 2))
    assert paid["ts"] == (MONDAY + WEEK_MS) // 1000
    assert entered["moment"] == "2023-11-27T00:00:00.001+00:00"
    assert entered["device"] == "téléphone"


def test_a_request_has_a_name_of_its_own_and_is_one_that_the_scorer_takes(shop: Shop) -> None:
    found = list(itertools.islice(again(shop, [payment(MONDAY)], NOW), 3))
    rows = [shop.request_row(event) for event in found]
    assert len({row["payment_id"] for row in rows} | {f"t-{MONDAY}"}) == 4
    assert [row["paid_at"] for row in rows] == [MONDAY + n * WEEK_MS for n in (1, 2, 3)]


def test_nothing_comes_of_a_time_that_is_still_to_come(shop: Shop) -> None:
    events = [payment(MONDAY), payment(MONDAY + DAY_MS)]
    assert len(list(again(shop, events, MONDAY + WEEK_MS))) == 1
    assert list(again(shop, events, MONDAY + WEEK_MS - 1)) == []
