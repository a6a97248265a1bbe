"""A cluster's answers where events write several tables, and some ask nothing: those of one event at a time.

paid        into payments (asks), and into large where the amount is
withdrawn   into payments (asks), and into cash
card_rows   into cards and alerts; asks nothing
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from fixtures.records import Fake
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs.fake_openmldb import Cluster, running_cluster

from streaming.app.folder import App, load_app
from streaming.app.inputs import InputDecoder
from streaming.app.topics import TopicNames
from streaming.config import Events, OpenMLDB, Store
from streaming.events.batch import EventBatch, joined
from streaming.events.record import Record
from streaming.store.embedded import EmbeddedStore
from streaming.store.openmldb.cluster import ClusterStore
from streaming.store.openmldb.sdk import Client, connect_options

FILES = {
    "tables.sql": """CREATE DATABASE IF NOT EXISTS bank;
USE bank;
CREATE TABLE payments (id string NOT NULL, card bigint NOT NULL, shop string, `at` timestamp NOT NULL, cents int);
CREATE TABLE large (n bigint, card bigint, `at` timestamp NOT NULL, cents int);
CREATE TABLE cash (n bigint, card bigint, shop string, `at` timestamp NOT NULL, cents int);
CREATE TABLE cards (n bigint, card bigint, since timestamp NOT NULL, country string);
CREATE TABLE alerts (n bigint, country string, since timestamp NOT NULL);
""",
    "features.sql": """SELECT
    out0.id AS id, cents, by_card, same, last_cents, spent, large_n, large_sum, cash_n, newest, country, any_n
FROM (
    SELECT id, cents, count(cents) OVER w AS by_card, count(id) OVER v AS same, lag(cents, 1) OVER w AS last_cents,
        sum(cents) OVER u AS spent
    FROM payments
    WINDOW w AS (PARTITION BY card ORDER BY `at` ROWS BETWEEN 2 PRECEDING AND CURRENT ROW),
    v AS (PARTITION BY shop ORDER BY `at` ROWS_RANGE BETWEEN 1h PRECEDING AND CURRENT ROW),
    u AS (UNION (SELECT '' AS id, card, shop, `at`, cents FROM cash) PARTITION BY card ORDER BY `at`
        ROWS BETWEEN 3 PRECEDING AND CURRENT ROW)
) AS out0
LAST JOIN (
    SELECT id, count(n) OVER w AS large_n, sum(cents) OVER w AS large_sum
    FROM (SELECT bigint(0) AS n, card, `at`, int(0) AS cents, id FROM payments)
    WINDOW w AS (UNION (SELECT n, card, `at`, cents, '' AS id FROM large) PARTITION BY card ORDER BY `at`
        ROWS_RANGE BETWEEN 1h PRECEDING AND CURRENT ROW INSTANCE_NOT_IN_WINDOW)
) AS out1 ON out0.id = out1.id
LAST JOIN (
    SELECT id, count(n) OVER w AS cash_n, max(n) OVER w AS newest
    FROM (SELECT bigint(0) AS n, card, shop, `at`, int(0) AS cents, id FROM payments)
    WINDOW w AS (UNION (SELECT n, card, shop, `at`, cents, '' AS id FROM cash) PARTITION BY card, shop ORDER BY `at`
        ROWS BETWEEN 2 PRECEDING AND CURRENT ROW INSTANCE_NOT_IN_WINDOW)
) AS out2 ON out0.id = out2.id
LAST JOIN (
    SELECT payments.id AS id, cards.country AS country, alerts.n AS any_n
    FROM payments
    LAST JOIN cards ORDER BY cards.since ON payments.card = cards.card
    LAST JOIN alerts ORDER BY alerts.since ON cards.country = alerts.country
) AS out3 ON out0.id = out3.id;
""",
    "events.sql": """CREATE TABLE paid (
    id string NOT NULL, n bigint NOT NULL, card bigint NOT NULL, shop string, moment timestamp NOT NULL, cents int
) WITH (key = 'card', event_time = 'moment', request_id = 'id');
INSERT INTO payments SELECT id, card, shop, moment AS at, cents FROM paid;
INSERT INTO large SELECT n, card, moment AS at, cents FROM paid WHERE cents > 5;
CREATE TABLE withdrawn (
    id string NOT NULL, n bigint NOT NULL, card bigint NOT NULL, shop string, moment timestamp NOT NULL
) WITH (key = 'card', event_time = 'moment', request_id = 'id');
INSERT INTO cash SELECT n, card, shop, moment AS at, 7 AS cents FROM withdrawn;
INSERT INTO payments SELECT id, card, shop, moment AS at FROM withdrawn;
CREATE TABLE card_rows (n bigint NOT NULL, card bigint NOT NULL, since timestamp NOT NULL, country string)
WITH (key = 'card', event_time = 'since', partitioned = true);
INSERT INTO cards SELECT n, card, since, country FROM card_rows;
INSERT INTO alerts SELECT n, country, since FROM card_rows;
""",
    "app.toml": """name = "bank"
[request]
id = "id"
[label]
column = "any_n"
[scores]
topic = "scores"
[scores.fields]
id = "id"
risk = "$probability"
""",
}
START_MS = 1_459_419_080_000

Drawn = tuple[str, int, str | None, int, int]
"""Stream, card, shop (of card_rows the country), minutes since the start, cents."""

drawn_events = st.lists(
    st.tuples(
        st.sampled_from(["paid", "paid", "withdrawn", "card_rows"]),
        st.integers(1, 3),
        st.sampled_from(["a", "b", None]),
        st.integers(0, 3),
        st.integers(1, 9),
    ),
    max_size=24,
)


@dataclass(frozen=True, repr=False)
class Bank:
    """The application on a cluster, and on the embedded engine."""

    app: App
    cluster: Cluster
    store: ClusterStore
    embedded: EmbeddedStore

    def decoded(self, drawn: list[Drawn]) -> EventBatch:
        """The events that were drawn; the cluster is empty then."""
        self.cluster.clear()
        records: list[Record] = [record(number, one) for number, one in enumerate(drawn)]
        events, refused = InputDecoder(self.app, Events(), TopicNames.of(self.app, {})).decode(records)
        assert refused == []
        return events

    def one_by_one(self, events: EventBatch) -> list[dict[str, Any]]:
        """What the embedded engine answers when the events come alone, on tables that were empty."""
        self.embedded.reset()
        return [row for number in range(len(events)) for row in answered(self.embedded, events.event(number))]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    folder = tmp_path_factory.mktemp("bank")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    app = load_app(folder)
    embedded = EmbeddedStore(app)
    embedded.load()
    with running_cluster(tmp_path_factory.mktemp("openmldb"), app) as cluster:
        settings = Store(kind="openmldb", openmldb=OpenMLDB(zk="zk:2181"))
        options = connect_options(settings, "bank", "rigs.fake_openmldb:cluster_sdk")
        store = ClusterStore(app, Client(options, "demo"))
        store.load()
        yield Bank(app, cluster, store, embedded)
        store.close()


def record(number: int, drawn: Drawn) -> Fake:
    """The event that was drawn; its number makes its rows differ from all others'."""
    stream, card, text, minute, cents = drawn
    moment = START_MS + 60_000 * minute
    if stream == "card_rows":
        fields: dict[str, Any] = {"n": number, "card": card, "since": moment, "country": text}
    else:
        fields = {"id": f"r{number}", "n": number, "card": card, "shop": text, "moment": moment}
    if stream == "paid":
        fields["cents"] = cents
    return Fake(str(card).encode(), json.dumps(fields).encode(), place=(stream, card, number))


def answered(store: ClusterStore | EmbeddedStore, events: EventBatch) -> list[dict[str, Any]]:
    """As the loop asks: what asks nothing is only inserted."""
    if "payments" in events.rows:
        found: list[dict[str, Any]] = store.answer(events).to_pylist()
        return found
    store.restore(events)
    return []


@settings(max_examples=60, deadline=None)
@given(drawn=drawn_events, data=st.data())
def test_batches_are_answered_as_events_one_by_one(bank: Bank, drawn: list[Drawn], data: st.DataObject) -> None:
    events = bank.decoded(drawn)
    expected = bank.one_by_one(events)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(events)), max_size=3)))
    bank.embedded.reset()
    found, at_once, number = [], [], np.arange(len(events))
    for first, last in zip([0, *cuts], [*cuts, len(events)], strict=True):
        if first < last:
            batch = events.take((first <= number) & (number < last))
            found += answered(bank.store, batch)
            bank.store.accept(batch)
            at_once += answered(bank.embedded, batch)
    assert at_once == expected
    assert found == expected
    assert {table: bank.cluster.rows(table) for table in events.rows} == {
        table: rows.num_rows for table, rows in events.rows.items()
    }


@settings(max_examples=60, deadline=None)
@given(drawn=drawn_events, data=st.data())
def test_micro_batches_that_are_transactions_are_answered_as_events_one_by_one(
    bank: Bank, drawn: list[Drawn], data: st.DataObject
) -> None:
    """Some are aborted and come again: what one has inserted the first time changes no answer."""
    events = bank.decoded(drawn)
    expected = {row["id"]: row for row in bank.one_by_one(events)}
    partitions = [one.partition() for one in events.records]
    seen: list[int] = []
    found: dict[str, dict[str, Any]] = {}
    for micro_batch in bank.store.micro_batches(events, partitions):
        part = joined([events.event(number) for number in micro_batch])
        if data.draw(st.booleans()):
            answered(bank.store, part)
        found |= {row["id"]: row for row in answered(bank.store, part)}
        bank.store.accept(part)
        seen += micro_batch
    assert sorted(seen) == list(range(len(events)))
    for partition in set(partitions):
        mine = [number for number in seen if partitions[number] == partition]
        assert mine == sorted(mine)
    assert found == expected


@settings(max_examples=60, deadline=None)
@given(drawn=drawn_events, data=st.data())
def test_events_that_overtake_others_of_their_partition_are_answered_as_in_their_order(
    bank: Bank, drawn: list[Drawn], data: st.DataObject
) -> None:
    """As the loop goes: of what is open the events that need no earlier one's rows, while more are read. Some
    transactions are aborted, what is owed goes in beside the next rows, or was inserted before by who died."""
    events = bank.decoded(drawn)
    expected = {row["id"]: row for row in bank.one_by_one(events)}
    reading, window, owed = list(range(len(events))), list[int](), EventBatch()
    found: dict[str, dict[str, Any]] = {}
    scored: list[int] = []
    while reading or window:
        count = data.draw(st.integers(0 if window else 1, 8))
        window += reading[:count]
        del reading[:count]
        part = joined([events.event(number) for number in window])
        keys = [(record.topic(), record.partition(), record.key()) for record in part.records]
        first = [window[number] for number in bank.store.micro_batches(part, keys)[0]]
        turn = joined([events.event(number) for number in first])
        asks = "payments" in turn.rows
        if asks and data.draw(st.booleans()):
            bank.store.answer(turn, owed)
        if not asks:
            bank.store.accept(owed)
        rows = bank.store.answer(turn, owed).to_pylist() if asks else answered(bank.store, turn)
        found |= {row["id"]: row for row in rows}
        owed = turn
        if data.draw(st.booleans()):
            bank.store.accept(owed)
        scored += first
        window = [number for number in window if number not in first]
    bank.store.accept(owed)
    assert found == expected
    assert sorted(scored) == list(range(len(events)))
    for key in {(record.topic(), record.key()) for record in events.records}:
        mine = [n for n in scored if (events.records[n].topic(), events.records[n].key()) == key]
        assert mine == sorted(mine), "scores of a key keep their order"
    assert bank.cluster.rows("payments") == (events.rows["payments"].num_rows if "payments" in events.rows else 0)


def test_events_that_ask_nothing_share_a_turn_with_those_that_do(bank: Bank) -> None:
    paid: list[Drawn] = [("paid", card, f"{card}", 0, 1) for card in range(1, 6)]
    cards: list[Drawn] = [("card_rows", 100 + card, "x", 0, 1) for card in range(5)]
    events = bank.decoded([*paid, *cards])
    assert bank.store.micro_batches(events) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    bank.store.answer(events)
    assert bank.cluster.calls == [5]
    only_cards = bank.decoded(cards)
    assert bank.store.micro_batches(only_cards) == [[0, 1, 2, 3, 4]]
    bank.store.restore(only_cards)
    bank.store.accept(only_cards)
    assert bank.cluster.calls == []
    assert [bank.cluster.rows(table) for table in ("cards", "alerts", "payments")] == [5, 5, 0]


def test_rows_before_the_first_request_wait_for_no_turn(bank: Bank) -> None:
    cards: list[Drawn] = [("card_rows", 1, f"c{number}", 0, 1) for number in range(5)]
    answer = bank.store.answer(bank.decoded([*cards, ("paid", 1, "a", 1, 1), ("paid", 2, "b", 1, 1)]))
    assert bank.cluster.calls == [2]
    assert answer["country"].to_pylist() == ["c4", None]
