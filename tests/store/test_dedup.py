"""Which actions repeat a request: as the whole log says, however it is cut, undone, captured and read again."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fixtures.jd import jd
from fixtures.records import Fake
from fixtures.scorer import Shop, Stage, check, loaded_store, poison, running, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation.workload import repeats

from streaming.app.configured import application
from streaming.config import Dedup, Store
from streaming.engine import BadRow
from streaming.errors import ConfigError
from streaming.events.batch import EventBatch
from streaming.events.record import Record
from streaming.kafka.connection import Connection
from streaming.kafka.lineage import Lineages
from streaming.kafka.topics import Topics
from streaming.model.encoder import Encoder
from streaming.predict.state_replica import Follower
from streaming.state.snapshots import identity
from streaming.store import dedup
from streaming.store.dedup import SCHEMA, SeenRequests
from streaming.store.open import open_store

HORIZON_MS = 10

Log = list[tuple[int, str | None, int]]


def drop_repeats(seen: SeenRequests, log: Sequence[tuple[int, str | None, int]]) -> list[bool]:
    """Of each record, whether it was kept."""
    records: list[Record] = [
        Fake(b"", b"", place=("user-actions", number, offset), written_ms=time)
        for offset, (number, _, time) in enumerate(log)
    ]
    kept = seen.drop_repeats(EventBatch(records, np.zeros(len(log), np.int64), [name for _, name, _ in log]))
    stayed = {record.offset(): name for record, name in zip(kept.records, kept.sender_ids, strict=True)}
    assert list(stayed) == sorted(stayed)
    assert all(log[offset][1] == name for offset, name in stayed.items())
    return [offset in stayed for offset in range(len(log))]


def by_looking_back(log: Log) -> list[bool]:
    """The same, by looking back at everything."""
    accepted: dict[int, list[tuple[str | None, int]]] = {}
    return [
        name is None or not repeats(accepted.setdefault(number, []), name, time, HORIZON_MS)
        for number, name, time in log
    ]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of four entries, of which eight can be undone: a few records go through all of it."""
    monkeypatch.setattr(dedup, "CHUNK", 4)
    monkeypatch.setattr(dedup, "UNDONE_MAX", 8)


records = st.tuples(
    st.integers(0, 1), st.one_of(st.none(), st.sampled_from("abcdefgh")), st.integers(-3, 8)
)  # partition, id, milliseconds since the record before


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.lists(records, max_size=4), st.integers(0, 3)), max_size=40))
def test_batches_and_rollbacks_change_nothing(batches: list[tuple[list[tuple[int, str | None, int]], int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedup, "CHUNK", 4)
        patch.setattr(dedup, "UNDONE_MAX", 8)
        seen, log, kept, clock = SeenRequests(HORIZON_MS), Log(), list[bool](), 0
        for drawn, undone in batches:
            batch = Log()
            for number, name, step in drawn:
                clock = max(0, clock + step)
                batch.append((number, name, clock))
            for cut in range(undone):  # it is aborted, whole or with another one behind it, and read again
                mark = seen.mark()
                drop_repeats(seen, batch[: len(batch) - cut])
                drop_repeats(seen, batch[len(batch) - cut :])
                seen.rollback(mark)
            log += batch
            kept += drop_repeats(seen, batch)
        assert kept == by_looking_back(log)


def test_what_is_behind_the_horizon_is_forgotten_and_what_may_come_back_is_not(small: None) -> None:
    seen = SeenRequests(HORIZON_MS)
    for n in range(100):
        assert drop_repeats(seen, [(0, f"request-{n}", 20 * n)]) == [True]
    assert len(seen) < 20
    assert drop_repeats(seen, [(0, "request-99", 1990), (0, "request-98", 1990)]) == [False, True]
    mark = seen.mark()
    drop_repeats(seen, [(0, f"{n}", 5000) for n in range(8)])
    assert drop_repeats(seen, [(0, "request-98", 5000)]) == [True]
    seen.rollback(mark)
    assert drop_repeats(seen, [(0, "request-98", 1991)]) == [False]
    with pytest.raises(RuntimeError, match="the oldest of them pushed out is gone"):
        seen.rollback({})


def test_a_request_without_an_id_of_its_own_repeats_nothing() -> None:
    assert drop_repeats(SeenRequests(HORIZON_MS), [(0, None, 1), (0, None, 1)]) == [True, True]


def test_partitions_do_not_know_of_each_other() -> None:
    assert drop_repeats(SeenRequests(HORIZON_MS), [(0, "a", 1), (1, "a", 1), (0, "a", 1)]) == [True, True, False]


def test_topics_do_not_know_of_each_other() -> None:
    records: list[Record] = [Fake(b"", b"", place=(topic, 0, at), written_ms=1) for at, topic in enumerate("abab")]
    events = EventBatch(records, np.zeros(4, np.int64), ["x"] * 4)
    seen = SeenRequests(HORIZON_MS)
    assert seen.drop_repeats(events).records == records[:2]
    other = SeenRequests(HORIZON_MS)
    for piece in seen.capture(seen.mark()):
        other.restore(piece())
    assert len(other.drop_repeats(events)) == 0


def test_a_capture_is_of_its_moment_and_brings_everything_back(small: None) -> None:
    seen = SeenRequests(HORIZON_MS)
    before = [(n % 3, f"{n}", n) for n in range(30)]
    drop_repeats(seen, before)
    capture = seen.capture(seen.mark())
    first = next(capture)
    mark = seen.mark()
    drop_repeats(seen, [(n % 3, f"later-{n}", 40) for n in range(6)])
    seen.rollback(mark)
    drop_repeats(
        seen, [(n % 3, f"last-{n}", 500) for n in range(60)]
    )  # these push out what the capture still has to read
    other = SeenRequests(HORIZON_MS)
    for piece in [first, *capture]:
        other.restore(piece())
    assert len(other) == len(before)
    again = [(n % 3, f"{n}", 29) for n in range(18, 30)]
    assert drop_repeats(other, again) == [29 - n > HORIZON_MS for n in range(18, 30)]
    assert drop_repeats(other, [(0, "later-0", 30), (0, "last-0", 30)]) == [True, True]


def test_what_is_no_capture_is_refused() -> None:
    seen = SeenRequests(HORIZON_MS)
    with pytest.raises(BadRow, match="request ids: other columns"):
        seen.restore(pa.record_batch({"id": ["a"]}))
    columns = [pa.array(["t", "t"]), pa.array([3, 3], pa.int32()), pa.array(["a", "b"]), pa.array([2, 1])]
    with pytest.raises(BadRow, match=r"the clock of t\[3\] goes back to 1"):
        seen.restore(pa.record_batch(columns, SCHEMA))


def test_a_cluster_takes_no_horizon() -> None:
    with pytest.raises(ConfigError, match=r"dedup.horizon_s: store.kind 'openmldb' keeps rows, but no request ids"):
        open_store(Store(kind="openmldb"), jd(), dedup=Dedup(horizon_s=1))


# ── on real parts ────────────────────────────────────────────────────────────────────────────────────────────────────

HOUR = {"horizon_s": 3600.0}


def with_repeats(shop: Shop) -> list[dict[str, Any]]:
    """The shop's actions and ten repeats, some at once, some much later."""
    actions = list(shop.actions)
    for n in (0, 1, 7, 50, 51, 52):
        actions.insert(actions.index(shop.actions[n]) + 1, shop.actions[n])
    return actions + [shop.actions[n] for n in (0, 3, 7, 100)]


def test_repeats_are_scored_once_whatever_is_restarted(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, tmp_path: Path
) -> None:
    repeated = with_repeats(shop)
    folder = {"folder": str(tmp_path / "snapshots"), "every_s": 0.2}
    config = stage.config(dedup=HOUR, snapshots=folder, batch={"messages_max": 20})
    stage.send_shop(dataclasses.replace(shop, actions=repeated[:200]))
    with running(config, scorer_encoder) as first:
        wait_until(lambda: sum(stage.committed()) == 200, "repeats are committed, too")
        wait_until(lambda: bool((tmp_path / "snapshots" / "one").glob("snapshot-*")), "a snapshot")
    counted = first.metrics.repeats._value.get()
    assert counted == 6
    stage.send_actions(repeated[200:])
    with running(config, scorer_encoder) as second:  # what its snapshot does not know, the log does
        check(stage.collect(len(shop.actions)), truth)
        wait_until(lambda: sum(stage.committed()) == len(repeated), "repeats are committed, too")
    assert counted + second.metrics.repeats._value.get() == len(repeated) - len(shop.actions)
    stage.send_actions([shop.actions[5], {**shop.actions[5], "request_id": "another"}])
    with running(stage.config(dedup=HOUR), scorer_encoder) as third:  # without a snapshot
        wait_until(lambda: sum(stage.committed()) == len(repeated) + 2, "all are committed")
    assert third.metrics.repeats._value.get() == 1
    assert third.store.sizes()["JD_db.flattenRequest"][0] == len(shop.actions) + 1
    assert third.store.sizes()["request ids"][0] == len(shop.actions) + 1
    assert len(stage.collect(len(shop.actions) + 1).records) == len(shop.actions) + 1


def test_an_id_may_come_again_after_a_refusal(stage: Stage, shop: Shop, scorer_encoder: Encoder) -> None:
    good = shop.actions[0]
    key, value, _ = poison(good)["unknown type"]
    stage.send([("actions", key, value)])
    stage.send_actions([good, good])
    with running(stage.config(dedup=HOUR), scorer_encoder):
        found = stage.collect(1, 1)
        wait_until(lambda: sum(stage.committed()) == 3, "all are committed")
    assert list(found.scores) == [good["request_id"]]
    assert len(found.dead) == 1


def test_the_predict_servers_copy_leaves_repeats_out(stage: Stage, shop: Shop) -> None:
    stage.send_shop(dataclasses.replace(shop, actions=with_repeats(shop)))
    config = stage.config(dedup=HOUR)
    follower = Follower(config, *application(config), store := loaded_store(3_600_000))
    follower.start()
    try:
        wait_until(lambda: follower.missing() is None, "the copy is there")
        assert store.sizes()["JD_db.flattenRequest"][0] == len(shop.actions)
    finally:
        follower.stop()


def test_a_snapshot_belongs_to_its_horizon(stage: Stage) -> None:
    def of(horizon_s: float) -> dict[str, str]:
        config = stage.config(dedup={"horizon_s": horizon_s})
        app, topics = application(config)
        return identity(config, app, Lineages(config, Topics(config.kafka, topics, Connection(threading.Event()))))

    assert of(0).keys() ^ of(1).keys() == {"[dedup]"}
    assert of(1)["[dedup]"] != of(2)["[dedup]"]
