"""Records without a value that delete the rows of their key: of a dimension, where its stream says so."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from fixtures.applications import make
from fixtures.records import NOW_MS, Fake
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.app.folder import App, load_app
from streaming.app.inputs import InputDecoder
from streaming.app.topics import TopicNames
from streaming.app.wrong import WrongApp
from streaming.config import Events
from streaming.errors import ConfigError
from streaming.events.record import WrongKey
from streaming.store.embedded import EmbeddedStore
from streaming.store.openmldb.cluster import ClusterStore
from streaming.store.protocol import restore_good

OPTIONS = "timestamp_format = 'iso-8601', partitioned = true"
DELETES = (OPTIONS, "timestamp_format = 'iso-8601', tombstone = 'delete'")
CARDS = (400_000_000_000_000_001, 400_000_000_000_000_002, -7)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    return load_app(make(tmp_path_factory.mktemp("tombstones") / "app", events=DELETES))


@pytest.fixture(scope="module")
def decoder(app: App) -> InputDecoder:
    return InputDecoder(app, Events(), TopicNames.of(app, {}))


def row(card: int, country: str) -> Fake:
    value = {"card": card, "since": "2016-03-31T12:00:00+02:00", "country": country}
    return Fake(str(card).encode(), json.dumps(value).encode(), place=("card_rows", 0, 0))


def tombstone(card: int) -> Fake:
    return Fake(str(card).encode(), None, place=("card_rows", 0, 0))


def paid(card: int, name: str) -> Fake:
    value = {"number": card, "moment": NOW_MS, "cents": 5, "reference": name}
    return Fake(str(card).encode(), json.dumps(value).encode(), place=("paid", 0, 0))


def filled(app: App) -> EmbeddedStore:
    store = EmbeddedStore(app)
    store.load()
    return store


step = st.tuples(
    st.sampled_from(["row", "row", "delete", "ask"]), st.sampled_from(CARDS), st.sampled_from(["DE", "FR"])
)


@given(st.lists(step, max_size=14), st.lists(st.integers(1, 5), min_size=1), st.booleans())
@settings(deadline=None, max_examples=150)
def test_what_a_tombstone_has_deleted_is_in_no_answer(
    app: App, decoder: InputDecoder, steps: list[tuple[str, int, str]], sizes: list[int], aborted: bool
) -> None:
    """However records are cut into batches; and a batch that is taken back, and comes again, deletes again.

    Of a batch the dimensions come first, as `streaming.loop.preparation` has them.
    """
    cuts = [0, *itertools.accumulate(itertools.islice(itertools.cycle(sizes), len(steps)))]
    batches = [sorted(steps[a:b], key=lambda step: step[0] == "ask") for a, b in itertools.pairwise(cuts)]
    known: dict[int, str] = {}
    records, expected = [], []
    for number, (kind, card, country) in enumerate(itertools.chain(*batches)):
        if kind == "row":
            known[card] = country
            records.append(row(card, country))
        elif kind == "delete":
            known.pop(card, None)
            records.append(tombstone(card))
        else:
            expected.append(known.get(card))
            records.append(paid(card, str(number)))
    store, answers = filled(app), []
    for a, b in itertools.pairwise(cuts):
        events, refused = decoder.decode(records[a:b])
        assert refused == []
        for again in range(1 + aborted):
            mark = store.mark()
            found: list[Any] = []
            if app.main in events.rows:
                found = store.answer(events)["country"].to_pylist()
            else:
                assert restore_good(store, events) == []
            if again < aborted:
                store.rollback(mark)
        answers += found
    # What was rolled back after a deletion is not what it was before it, but the next try ends where one alone would.
    assert answers == expected
    rows = store.sizes()["cards"][0]
    assert rows >= len(known)


def test_rows_leave_their_table_and_others_stay(app: App, decoder: InputDecoder) -> None:
    store = filled(app)
    events, _ = decoder.decode([row(card, country) for card in CARDS for country in ("DE", "FR")])
    store.restore(events)
    mark = store.mark()
    events, _ = decoder.decode([row(CARDS[0], "IT"), tombstone(CARDS[0]), row(CARDS[1], "IT")])
    store.restore(events)
    assert store.sizes()["cards"][0] == 5
    store.rollback(mark)
    assert store.sizes()["cards"][0] == 4, "what was deleted does not come back"


def test_a_capture_is_given_up_before_rows_are_deleted(app: App, decoder: InputDecoder) -> None:
    store = filled(app)
    events, _ = decoder.decode([row(CARDS[0], "DE")])
    store.restore(events)
    capture = store.capture(store.mark())
    store.before_delete = capture.close
    events, _ = decoder.decode([tombstone(CARDS[0])])
    store.restore(events)
    assert store.sizes()["cards"][0] == 0


@pytest.mark.parametrize("key", [None, b"", b"x", b"01", b"\xff", b"9223372036854775808", b"1.0"])
def test_a_tombstone_of_no_key_is_a_dead_letter(decoder: InputDecoder, key: bytes | None) -> None:
    events, ((_, why),) = decoder.decode([Fake(key, None, place=("card_rows", 0, 0))])
    assert len(events) == 0
    assert isinstance(why, WrongKey)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ((OPTIONS, f"{OPTIONS}, tombstone = 'delete'"), "of a stream that is not read whole by every scorer"),
        ((OPTIONS, "timestamp_format = 'iso-8601', tombstone = 'forget'"), "is none of refuse, delete"),
        (("request_id = 'reference'", "request_id = 'reference', tombstone = 'delete'"), "not read whole"),
    ],
)
def test_who_may_not_delete_is_told_so(tmp_path: Path, options: tuple[str, str], why: str) -> None:
    with pytest.raises(WrongApp, match=rf"events\.sql:\d+:\d+: .*{why}"):
        load_app(make(tmp_path / "app", events=options))


def test_a_cluster_deletes_nothing(app: App) -> None:
    with pytest.raises(ConfigError, match=r"events\.sql: tombstones of card_rows delete rows"):
        ClusterStore(app, None)  # type: ignore[arg-type]  # refused before it is used
