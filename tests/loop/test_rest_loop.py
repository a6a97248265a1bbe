"""The store over REST, by real HTTP to `jd-intent-score apiserver`: batches and the loop, as the embedded engine."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from fixtures.apiserver import ApiServer
from fixtures.jd import actions_of, dimensions_of, jd
from fixtures.scorer import Shop, Stage, answers, check, running, wait_until

from streaming.cli import deploy_sql
from streaming.cli.deploy_sql import Scripts, deploy
from streaming.config import Config, Rest, Store
from streaming.errors import ArtifactMismatch, StoreUnavailable
from streaming.events.batch import EventBatch, joined
from streaming.model.encoder import Encoder
from streaming.store.open import open_store
from streaming.store.openmldb.cluster import ClusterStore
from streaming.store.openmldb.rest import RestTransport

QUICK = {"backoff_ms": 20, "backoff_ms_max": 50}


class Link:
    """A way to a server that can be cut and mended, as when an API server dies and its cluster stays."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.2)
        self.port = self._listener.getsockname()[1]
        self.passed = self.cuts = 0
        self._sockets: set[socket.socket] = set()
        self._down = False
        self._ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Drops every connection, whatever is under way on it, and takes no new one."""
        self._down = True
        self.cuts += 1
        for one in list(self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._down = False

    def close(self) -> None:
        self._ended.set()
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                mine, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            if self._down:
                mine.close()
                continue
            threading.Thread(target=self._pass, args=(mine,), daemon=True).start()

    def _pass(self, mine: socket.socket) -> None:
        with mine, socket.create_connection(("127.0.0.1", self._target)) as other:
            self._sockets |= {mine, other}
            ways = {mine: other, other: mine}
            with contextlib.suppress(OSError):
                while not self._down:
                    for ready in select.select([mine, other], [], [], 0.2)[0]:
                        data = ready.recv(65536)
                        if not data:
                            return
                        ways[ready].sendall(data)
                        self.passed += len(data)
            self._sockets -= {mine, other}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("rest"), "--empty") as server:
        yield server


def settings(url: str, **changes: Any) -> Store:
    rest = Rest(url=url, timeout_s=30, connections=3)
    return Store(kind="openmldb-rest", rest=rest, backoff_ms=20, backoff_ms_max=50, **changes)


@pytest.fixture
def link(server: ApiServer) -> Iterator[Link]:
    """A way to the server, whose tables and deployment were made anew by `deploy`, over REST too."""
    with RestTransport(settings(server.url).rest, "JD_db", "demo") as cluster:
        with contextlib.suppress(StoreUnavailable, ArtifactMismatch):
            cluster.execute("DROP DEPLOYMENT demo")
        for (table,) in cluster.execute("SHOW TABLES"):
            cluster.execute(f"DROP TABLE {table}")
        deploy(cluster, Scripts.made(jd()))
    with closing(Link(server.port)) as link:
        yield link


@pytest.fixture
def store(link: Link) -> Iterator[ClusterStore]:
    store = open_store(settings(f"http://127.0.0.1:{link.port}"), jd())
    assert isinstance(store, ClusterStore)
    store.load()
    with closing(store):
        yield store


class Over(NamedTuple):
    """A store, the way that it goes, and the server there."""

    store: ClusterStore
    link: Link
    server: ApiServer


@pytest.fixture
def over(store: ClusterStore, link: Link, server: ApiServer) -> Over:
    return Over(store, link, server)


def rows(server: ApiServer, table: str) -> int:
    found = server.sql("JD_db", f"SELECT count(*) FROM {table}")["data"]["data"]
    return int(found[0][0]) if found else 0


@pytest.mark.parametrize("batch", [1, 150])
def test_a_batch_is_answered_as_the_embedded_store_answers_one_by_one(
    batch: int, store: ClusterStore, server: ApiServer
) -> None:
    shop = Shop.seeded(150 if batch > 1 else 30, seed=batch)
    found, before = [], dimensions_of(shop)
    for at in range(0, len(shop.actions), batch):
        actions = actions_of(shop.actions[at : at + batch])
        found.append(store.answer(joined([before, actions])))
        store.accept(actions)
        store.accept(actions)  # comes again: counts once
        before = EventBatch()
    assert pa.concat_tables(found).equals(answers(shop))
    assert rows(server, "bo_action") == rows(server, "flattenRequest") == len(shop.actions)


def test_the_whole_loop_scores_each_event_once_while_the_server_goes_and_comes_back(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, over: Over
) -> None:
    store, link, server = over
    third = len(shop.actions) // 3
    stage.send_shop(Shop(shop.actions[:third], shop.users, shop.products, shop.comments))
    config = stage.config(store=QUICK, batch={"messages_max": 60})
    with running(config, scorer_encoder, store) as scorer:
        wait_until(lambda: scorer.metrics.scores._value.get() > 0, "first scores")
        for part in (shop.actions[third : 2 * third], shop.actions[2 * third :]):
            passed = link.passed
            stage.send_actions(part)
            wait_until(lambda passed=passed: link.passed > passed, "calls are under way")  # type: ignore[misc]
            link.cut()
            wait_until(lambda: "store" in scorer.health.missing(), "not ready")
            link.mend()
        found = stage.collect(len(shop.actions))
        wait_until(lambda: not scorer.health.missing(), "ready")
    assert link.cuts == 2
    check(found, truth)
    for table, count in (("bo_action", shop.actions), ("flattenRequest", shop.actions), ("bo_user", shop.users)):
        assert rows(server, table) == len(count), table


def test_a_server_that_comes_back_without_the_deployment_gets_nothing_scored(
    stage: Stage, shop: Shop, scorer_encoder: Encoder, tmp_path: Path
) -> None:
    """A server that is killed and started anew: the stand-in keeps nothing."""
    first = ApiServer(tmp_path)
    store = open_store(settings(first.url), jd())
    store.load()
    stage.send_actions(shop.actions[:50])
    with closing(store), closing(first.client), running(stage.config(store=QUICK), scorer_encoder, store) as scorer:
        wait_until(lambda: sum(stage.committed()) == 50, "scores")
        first.process.kill()
        stage.send_actions(shop.actions[50:60])
        wait_until(lambda: "store" in scorer.health.missing(), "not ready")
        with ApiServer(tmp_path, "--empty", port=first.port):
            why = r"demo does not exist in JD_db \(run `jd-intent-score deploy`\)"
            wait_until(lambda: re.search(why, scorer.health.missing().get("store", "")) is not None, "it says why")
    assert sum(stage.committed()) == 50, "no score came from missing features"


def test_another_deployment_is_refused_at_the_start_and_in_flight(store: ClusterStore, server: ApiServer) -> None:
    actions = actions_of(Shop.seeded(5).actions)
    store.answer(actions)
    server.run("JD_db", "DROP DEPLOYMENT demo", "DEPLOY demo SELECT reqId AS reqId_1, eventTime FROM flattenRequest")
    with pytest.raises(ArtifactMismatch, match=r"the deployment was changed while the scorer ran: .* is missing"):
        store.answer(actions)
    with pytest.raises(ArtifactMismatch, match=r"is not that of .*jd: of its answers .* is missing"):
        store.load()


def test_a_deployment_dropped_and_made_again_in_flight_is_waited_for(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, over: Over
) -> None:
    store, _, server = over
    half = len(shop.actions) // 2
    stage.send_shop(Shop(shop.actions[:half], shop.users, shop.products, shop.comments))
    with running(stage.config(store=QUICK), scorer_encoder, store) as scorer:
        wait_until(lambda: scorer.metrics.scores._value.get() > 0, "first scores")
        server.run("JD_db", "DROP DEPLOYMENT demo")
        stage.send_actions(shop.actions[half:])
        wait_until(lambda: "does not exist" in scorer.health.missing().get("store", ""), "it says what is missing")
        deploy_sql.run_deploy(Config(store=settings(server.url)), replace=False, range_bias=None, rows_bias=None)
        found = stage.collect(len(shop.actions))
        wait_until(lambda: not scorer.health.missing(), "ready")
    check(found, truth)


def test_the_command_deploys_over_rest_and_changes_nothing_in_silence(
    link: Link, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config(store=settings(server.url))
    deploy_sql.run_deploy(config, replace=False, range_bias=None, rows_bias=None)
    said = capsys.readouterr().out
    assert "deployment demo: is there" in said
    assert "# Output Schema" in said
    server.run("JD_db", "DROP DEPLOYMENT demo", "DEPLOY demo SELECT reqId FROM flattenRequest")
    with pytest.raises(ArtifactMismatch, match="--replace makes it anew"):
        deploy_sql.run_deploy(config, replace=False, range_bias=None, rows_bias=None)
    deploy_sql.run_deploy(config, replace=True, range_bias=None, rows_bias=None)
    assert "deployment demo: made" in capsys.readouterr().out
    assert len(server.client.get("/dbs/JD_db/deployments/demo").json()["data"]["output_schema"]) == 42
