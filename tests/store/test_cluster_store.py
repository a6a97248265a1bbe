"""The store over OpenMLDB's SDK: its own process and builder of rows; the embedded engine answers for the cluster."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fixtures import odd_names
from fixtures.jd import actions_of, dimensions_of, jd
from fixtures.records import Fake
from fixtures.scorer import START_MS, Shop, answers, loaded_store
from rigs import fake_openmldb
from rigs.fake_openmldb import Cluster, running_cluster

from streaming.config import OpenMLDB, Store
from streaming.engine import BadRow
from streaming.errors import ArtifactMismatch, ConfigError, StoreUnavailable
from streaming.events.batch import EventBatch, joined
from streaming.events.record import Record
from streaming.predict.state_replica import Direct
from streaming.store.embedded import EmbeddedStore
from streaming.store.openmldb import sdk
from streaming.store.openmldb.cluster import ClusterStore
from streaming.store.openmldb.columns import cells
from streaming.store.openmldb.sdk import Client, connect_options

FAKE = "rigs.fake_openmldb:cluster_sdk"


def settings(**changes: Any) -> Store:
    return Store(kind="openmldb", openmldb=OpenMLDB(**{"zk": "zk:2181", "timeout_s": 20.0, **changes}))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, ClusterStore]]:
    """One cluster and one client for all tests that do not take them apart."""
    with running_cluster(tmp_path_factory.mktemp("openmldb"), jd()) as cluster:
        store = ClusterStore(jd(), Client(connect_options(settings(), "JD_db", FAKE), "demo"))
        store.load()
        yield cluster, store
        store.close()


@pytest.fixture
def cluster(made: tuple[Cluster, ClusterStore]) -> Cluster:
    """Empty, without faults."""
    made[0].clear()
    return made[0]


@pytest.fixture
def store(made: tuple[Cluster, ClusterStore], cluster: Cluster) -> ClusterStore:
    return made[1]


@pytest.fixture(scope="module")
def embedded() -> EmbeddedStore:
    """What answers are compared with; tests leave rows in it, so they `reset` it."""
    return loaded_store()


def client_of(store: ClusterStore) -> Client:
    client = store._transport
    assert isinstance(client, Client)
    return client


@pytest.mark.parametrize("batch", [1, 7, 200])
def test_a_batch_in_waves_is_answered_as_the_embedded_store_answers_one_by_one(
    batch: int, store: ClusterStore, cluster: Cluster
) -> None:
    shop = Shop.seeded(200 if batch > 1 else 40, seed=batch)
    expected = answers(shop)
    found, before = [], [dimensions_of(shop)]
    for at in range(0, len(shop.actions), batch):
        actions = actions_of(shop.actions[at : at + batch])
        found.append(store.answer(joined([*before, actions])))
        store.accept(actions)
        before = []
    answered = pa.concat_tables(found)
    assert answered.schema == store.schema() == expected.schema
    assert answered.equals(expected)
    assert cluster.rows("bo_action") == cluster.rows("flattenRequest") == len(shop.actions)
    if batch == 200:
        busiest = max(sum(a["user_id"] == b["user_id"] for b in shop.actions) for a in shop.actions)
        assert len(cluster.calls) == busiest  # as few calls as there are events of one user


def test_redelivered_events_get_the_same_features_and_count_once(store: ClusterStore, cluster: Cluster) -> None:
    shop = Shop.seeded(120, seed=3)
    expected = answers(shop)
    store.restore(dimensions_of(shop))
    at, found = 0, []
    random = np.random.default_rng(1)
    while at < len(shop.actions):
        micro_batches = store.micro_batches(
            actions_of(shop.actions[at : at + 30]), [0] * len(shop.actions[at : at + 30])
        )
        actions = actions_of([shop.actions[at + int(p)] for p in micro_batches[0]])
        answer = store.answer(actions)
        if random.random() < 0.4:
            continue  # its transaction was aborted: it comes again
        found.append(answer)
        store.accept(actions)
        if random.random() < 0.4:
            store.accept(actions)  # as the next start does, which does not know
        at += len(micro_batches[0])
    assert pa.concat_tables(found).equals(expected)
    assert cluster.rows("bo_action") == cluster.rows("flattenRequest") == len(shop.actions)


def test_stretches_of_partitions_are_pieces_of_them(store: ClusterStore) -> None:
    shop = Shop.seeded(300, seed=5)
    partitions = [int(action["user_id"]) % 3 for action in shop.actions]
    micro_batches = store.micro_batches(actions_of(shop.actions), partitions)
    assert sorted(int(p) for micro_batch in micro_batches for p in micro_batch) == list(range(300))
    for micro_batch in micro_batches:
        users = [shop.actions[int(p)]["user_id"] for p in micro_batch]
        assert len(users) == len(set(users))
    assert len(micro_batches) > 10


def test_every_type_null_and_text_come_back_exactly(store: ClusterStore, embedded: EmbeddedStore) -> None:
    odd = ["", "26-35岁😀", 'it\'s \\ "q"\n\t', "a\0b", "NULL", "x" * 5000, "'; drop table x; --?", "é"]
    odd_actions = [
        {
            "user_id": f"user {n} {text[:100]}",
            "sku_id": f"sku {text[:100]}",
            "time": START_MS + n,
            "type": "1",
            "model_id": text[:256],
            "cate": text[:256],
            "br": text[:256],
            "request_id": f"id {n} {text[:100]}",
        }
        for n, text in enumerate(odd)
    ]
    user = pa.table(
        {
            "ingestionTime": pa.array([START_MS], pa.timestamp("ms")),
            "user_id": pa.array([odd_actions[1]["user_id"]]),
            "age": pa.array([odd[1]]),
            "sex": pa.array([None], pa.string()),
            "user_lv_cd": pa.array([""]),
            "user_reg_tm": pa.array([-(2**63)], pa.int64()),
        }
    )
    comment = pa.table(
        {
            "ingestionTime": pa.array([START_MS], pa.timestamp("ms")),
            "dt": pa.array([2**63 - 1]),
            "sku_id": pa.array([odd_actions[1]["sku_id"]]),
            "comment_num": pa.array([-(2**31)], pa.int32()),
            "has_bad_comment": pa.array([None], pa.string()),
            "bad_comment_rate": pa.array([0.1], pa.float32()),
        }
    )
    records: list[Record] = [Fake(b"", b"", place=("users", 0, 0)), Fake(b"", b"", place=("comments", 0, 0))]
    numbers = {"bo_user": np.array([0]), "bo_comment": np.array([1])}
    odd_rows = EventBatch(
        records, np.array([START_MS] * 2), [None] * 2, {"bo_user": user, "bo_comment": comment}, numbers
    )
    embedded.reset()
    events = joined([odd_rows, actions_of(odd_actions)])
    expected = embedded.answer(events)
    found = store.answer(events)
    assert found.equals(expected)
    assert found["bo_user_age_multi_direct_9"][1].as_py() == odd[1]
    assert found["bo_user_sex_multi_direct_11"][1].as_py() is None
    assert found["bo_comment_bad_comment_rate_multi_max_13"][1].as_py() == np.float32(0.1)


def test_twins_are_one_row_of_bo_action_and_two_requests(store: ClusterStore, cluster: Cluster) -> None:
    event = Shop.seeded(1).actions[0]
    actions = actions_of([event, {**event, "request_id": "another"}])
    store.answer(actions)
    store.accept(actions)
    assert cluster.rows("bo_action") == 1
    assert cluster.rows("flattenRequest") == 2


def test_rows_that_no_server_takes_are_refused_before_anything_is_in(store: ClusterStore, cluster: Cluster) -> None:
    actions = actions_of(Shop.seeded(2).actions)
    rows = actions.rows["bo_action"].set_column(0, "ingestionTime", pa.array([START_MS, -1], pa.timestamp("ms")))
    wrong = dataclasses.replace(actions, rows={**actions.rows, "bo_action": rows})
    with pytest.raises(BadRow, match="bo_action row 1: ingestionTime is NULL or negative"):
        store.answer(wrong)
    assert cluster.inserts == []
    with pytest.raises(BadRow, match="flattenRequest row 0: eventTime is NULL or negative"):
        store.request([dict.fromkeys(store.request_schema().names)])
    with pytest.raises(BadRow, match=r"request of demo: .*"):
        store.request([{"reqId": 5}])


def alone(embedded: EmbeddedStore, actions: EventBatch) -> pa.Table:
    """What the embedded engine answers on empty tables."""
    embedded.reset()
    return embedded.answer(actions)


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cluster_that_is_not_there_is_unavailable_and_comes_later(cluster: Cluster) -> None:
    cluster.faults.down = True
    with Client(connect_options(settings(password="s3cret"), "JD_db", FAKE), "demo") as client:
        store = ClusterStore(jd(), client)
        with pytest.raises(StoreUnavailable, match="OpenMLDB at ZooKeeper zk:2181/openmldb does not answer") as raised:
            store.load()
        assert "s3cret" not in str(raised.value)
        cluster.faults.down = False
        store.load()


def test_a_wrong_password_is_said_to_be_one_and_is_no_outage(cluster: Cluster) -> None:
    cluster.faults.password = "s3cret"
    for wrong in ("", "s3cre"):
        options = connect_options(settings(password=wrong), "JD_db", FAKE)
        with Client(options, "demo") as client, pytest.raises(ConfigError) as raised:
            client.schemas()
        why = "OpenMLDB at ZooKeeper zk:2181/openmldb lets nobody in: wrong password: see user and password of"
        assert str(raised.value).startswith(why)
        assert "s3cre" not in str(raised.value)
        assert client.pid is None
    with Client(connect_options(settings(password="s3cret"), "JD_db", FAKE), "demo") as client:
        assert len(client.schemas()[1]) == 42
        cluster.faults.down = True  # nobody asks for a password then
        client.close()
        with pytest.raises(StoreUnavailable, match="does not answer"):
            client.schemas()


def test_a_nameserver_that_hangs_up_refuses_the_password_unless_it_took_it_before(cluster: Cluster) -> None:
    cluster.faults.password, cluster.faults.hangs_up = "s3cret", True
    options = connect_options(settings(password="s3cre"), "JD_db", FAKE)
    with Client(options, "demo") as client, pytest.raises(ConfigError, match="hangs up, as it does on a wrong user"):
        client.schemas()
    with Client(connect_options(settings(password="s3cret"), "JD_db", FAKE), "demo") as client:
        client.schemas()
        client.close()
        cluster.faults.password = "no longer"
        with pytest.raises(StoreUnavailable, match="hangs up"):  # as it does until it has read its users
            client.schemas()


def test_names_that_need_backquotes_have_them(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as own:
        own.execute("", f"CREATE DATABASE `{odd_names.DATABASE}`")
        with Client(connect_options(settings(), odd_names.DATABASE, FAKE), "d") as client:
            found = odd_names.asked_and_inserted(client)
    assert found == [{"select": "x", "how many": 3}, {"select": "y", "how many": 2}]


def test_the_native_client_says_why_it_does_not_connect_where_it_is_asked(tmp_path: Path) -> None:
    """The real SDK: its log, at this level, goes to standard error of the process, where it is looked for."""
    with Client(connect_options(settings(zk="127.0.0.1:1", timeout_s=1.0), "JD_db"), "demo") as client:
        with (tmp_path / "log").open("w+b") as told, pytest.raises(StoreUnavailable, match="does not answer"):
            client._connected(dataclasses.replace(client._options, log_level=1), told)
        assert "fail to init zk" in (tmp_path / "log").read_text()
        with pytest.raises(StoreUnavailable, match="does not answer"):
            client.schemas()


def test_an_insert_that_fails_half_way_is_repeated_without_doubles(
    store: ClusterStore, cluster: Cluster, embedded: EmbeddedStore
) -> None:
    shop = Shop.seeded(10, seed=2)
    actions = actions_of(shop.actions[:6])
    cluster.faults.inserts["bo_action"] = [2]
    with pytest.raises(StoreUnavailable, match=r"INSERT OR IGNORE INTO bo_action: \[2001\] put failed.*E112"):
        store.answer(actions)
    assert cluster.calls == []  # nothing was asked over half of the rows
    assert cluster.rows("bo_action") == 2
    expected = alone(embedded, actions)
    assert store.answer(actions).equals(expected)
    store.accept(actions)
    assert cluster.rows("bo_action") == len(actions)


def test_an_answer_with_missing_features_is_refused(
    store: ClusterStore, cluster: Cluster, embedded: EmbeddedStore
) -> None:
    actions = actions_of(Shop.seeded(5, seed=2).actions)
    cluster.faults.forgetful = 1
    with pytest.raises(
        StoreUnavailable, match=r"1 of [1-5] answers have no flattenRequest_pair_id_window_unique_count_27"
    ):
        store.answer(actions)
    assert store.answer(actions).equals(alone(embedded, actions))


def test_dead_replicas_whose_leaders_live_stop_nobody(
    store: ClusterStore, cluster: Cluster, embedded: EmbeddedStore
) -> None:
    """One of two tablets is dead, failover is done: all is served, and the server counts 8 dead for ever."""
    actions = actions_of(Shop.seeded(5, seed=2).actions)
    cluster.faults.inserts["bo_action"] = [0]
    cluster.faults.unalive = 8
    with pytest.raises(StoreUnavailable, match="E112"):
        store.answer(actions)
    assert store.answer(actions).equals(alone(embedded, actions))


def test_partitions_without_a_leader_are_waited_for_whatever_the_server_counts(
    store: ClusterStore, cluster: Cluster, embedded: EmbeddedStore
) -> None:
    """The server counts 0, the micro-batch's own rows lie elsewhere: requests to all partitions find the dead one."""
    actions = actions_of(Shop.seeded(1, seed=2).actions)
    mine = {fake_openmldb.partition_of(row) for rows in actions.rows.values() for row in cells(rows)}
    others = frozenset(range(8)) - mine
    assert others
    cluster.faults.inserts["bo_action"] = [0]
    cluster.faults.dead = others
    with pytest.raises(StoreUnavailable, match="E112"):
        store.answer(actions)
    inserted = list(cluster.inserts)
    for one in sorted(others):
        cluster.faults.dead = frozenset([one])
        with pytest.raises(StoreUnavailable, match=r"of 64 answers have no \w+, which is never NULL: a tablet is away"):
            store.answer(actions)
    assert cluster.inserts == inserted, "probes leave no trace"
    cluster.faults.dead = frozenset()
    assert store.answer(actions).equals(alone(embedded, actions))
    assert cluster.rows("flattenRequest") == 0


def test_rows_of_a_dead_partition_are_inserted_once_it_is_led_again(
    store: ClusterStore, cluster: Cluster, embedded: EmbeddedStore
) -> None:
    actions = actions_of(Shop.seeded(40, seed=2).actions)
    cluster.faults.dead = frozenset([1, 5])
    with pytest.raises(StoreUnavailable, match="E112"):
        store.restore(actions)
    assert 0 < cluster.rows("bo_action") < 40
    cluster.faults.dead = frozenset()
    store.restore(actions)
    assert cluster.rows("bo_action") == cluster.rows("flattenRequest") == 40


def test_a_client_that_hangs_is_killed_and_made_anew(
    cluster: Cluster, embedded: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[float] = []
    actions = actions_of(Shop.seeded(5, seed=2).actions)
    with Client(connect_options(settings(), "JD_db", FAKE), "demo", lambda: beats.append(time.monotonic())) as client:
        store = ClusterStore(jd(), client)
        store.load()
        store.insert(actions)
        cluster.faults.hung = threading.Event()
        asking, (inserting, *_) = client.pid, client.inserting_pids
        with monkeypatch.context() as patch:
            patch.setattr("streaming.store.openmldb.sdk.MARGIN_S", -19.5)  # half a second, beside timeout_s
            patch.setattr("streaming.store.openmldb.sdk.SLICE_S", 0.1)
            beats.clear()
            with pytest.raises(StoreUnavailable, match="did not answer `insert` for 0 s: it was killed"):
                store.answer(actions)
        assert beats
        assert (client.pid, client.inserting_pids[0]) == (asking, None)
        cluster.faults.hung.set()
        cluster.faults.hung = None
        assert store.answer(actions).equals(alone(embedded, actions))
        assert client.pid == asking
        assert client.inserting_pids[0] not in (None, inserting)


def test_a_client_that_dies_is_made_anew(store: ClusterStore, cluster: Cluster, embedded: EmbeddedStore) -> None:
    client = client_of(store)
    actions = actions_of(Shop.seeded(5, seed=2).actions)
    store.insert(actions)
    pid = client.inserting_pids[0]
    assert pid is not None
    os.kill(pid, 9)
    with pytest.raises(StoreUnavailable, match="OpenMLDB's client died in `insert`"):
        store.answer(actions)
    assert store.answer(actions).equals(alone(embedded, actions))
    cluster.disconnect()  # the servers go and come back, the client stays
    with pytest.raises(StoreUnavailable, match="E112"):
        store.request(actions.rows["flattenRequest"])
    assert store.request(actions.rows["flattenRequest"]).num_rows == 5
    client.close()  # its peers have not noticed yet


def test_a_client_that_lost_sight_of_the_tablets_is_made_anew(
    store: ClusterStore, cluster: Cluster, embedded: EmbeddedStore
) -> None:
    """Statements and requests are served meanwhile, only inserts fail: each of a table, also when others go in."""
    actions = actions_of(Shop.seeded(5, seed=2).actions)
    store.load()
    store.insert(actions.take(np.arange(5) == 0))
    before = client_of(store).inserting_pids
    cluster.lose_sight()
    for _ in range(sdk.FAILURES_MAX):
        with pytest.raises(StoreUnavailable, match=r"\[0\] fail to get table bo_action tablet"):
            store.answer(actions)
    assert store.answer(actions).equals(alone(embedded, actions))
    made = client_of(store).inserting_pids
    assert made[0] is not None
    assert made != before
    for _ in range(sdk.FAILURES_MAX + 1):  # not in a row
        cluster.faults.inserts["bo_action"] = [0]
        with pytest.raises(StoreUnavailable, match="E112"):
            store.answer(actions)
        store.answer(actions)
    assert client_of(store).inserting_pids == made


def test_a_deployment_that_is_missing_or_another_is_refused(tmp_path: Path) -> None:
    with (
        running_cluster(tmp_path, jd()) as cluster,
        Client(connect_options(settings(), "JD_db", FAKE), "demo") as client,
    ):
        store = ClusterStore(jd(), client)
        cluster.execute("JD_db", "DROP DEPLOYMENT demo")
        with pytest.raises(ArtifactMismatch, match="has no deployment demo: run `jd-intent-score deploy`"):
            store.load()
        cluster.execute("JD_db", "DEPLOY demo SELECT reqId, pair_id FROM flattenRequest")
        with pytest.raises(ArtifactMismatch, match=r"of its answers reqId_1 is missing; .*deploy --replace"):
            store.load()
        actions = actions_of(Shop.seeded(2).actions)
        with pytest.raises(
            ArtifactMismatch, match="the deployment was changed while the scorer ran: reqId_1 is missing"
        ):
            store.answer(actions)
        cluster.databases.clear()
        with pytest.raises(ArtifactMismatch, match="has no database JD_db"):
            store.load()


def test_a_deployment_dropped_and_made_again_is_waited_for(
    store: ClusterStore, cluster: Cluster, embedded: EmbeddedStore
) -> None:
    actions = actions_of(Shop.seeded(5, seed=2).actions)
    (made,) = (statement for (_, name), statement in cluster.deployments.items() if name == "demo")
    cluster.execute("JD_db", "DROP DEPLOYMENT demo")
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match=r"no deployment demo|1203"):
            store.answer(actions)
    cluster.execute("JD_db", made)
    assert store.answer(actions).equals(alone(embedded, actions))


def test_the_predict_server_asks_the_cluster_itself(
    store: ClusterStore, cluster: Cluster, embedded: EmbeddedStore
) -> None:
    direct = Direct(store)
    assert direct.missing() is None
    actions = actions_of(Shop.seeded(3, seed=4).actions)
    embedded.reset()
    for each in (store, embedded):
        each.restore(actions)
    row = actions.rows["flattenRequest"].slice(1, 1).to_pylist()[0]
    row["eventTime"] = int(actions.times[1])
    assert direct.request([row]).equals(embedded.request([row]))
    assert cluster.rows("flattenRequest") == 3
    cluster.faults.down = True
    with pytest.raises(StoreUnavailable, match="E112"):
        direct.request([row])
    assert "E112" in (direct.missing() or "")
    cluster.faults.down = False
    assert direct.request([row]).num_rows == 1
    assert direct.missing() is None


def test_without_the_sdk_the_configuration_is_wrong() -> None:
    with Client(connect_options(settings(), "JD_db", "rigs.fake_openmldb:no_sdk")) as client:
        with pytest.raises(ConfigError, match="OpenMLDB's SDK does not load"):
            client.schemas()
        assert client.pid is None


def test_the_settings_name_one_server(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set `zk` .* or `host`"):
        connect_options(Store(kind="openmldb"), "d")
    with pytest.raises(ConfigError, match=r"set `zk` .* or `host`"):
        connect_options(settings(host="server"), "d")
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    options = connect_options(settings(zk="", host="server", password_file=str(secret)), "d")
    assert options.servers == {"host": "server", "port": 6527, "user": "root"}
    assert options.password == "s3cret"
    assert "s3cret" not in repr(options)
    missing = settings(password_file=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"store.openmldb.password_file: .* cannot be read"):
        connect_options(missing, "d")
