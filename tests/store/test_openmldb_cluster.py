"""The contract on a real OpenMLDB: a database of the tests' own, made, filled, asked and dropped.

    OPENMLDB_ZK=host:2181 [OPENMLDB_ZK_PATH=/openmldb] python -m pytest -m openmldb

What passes with `fake_openmldb` must pass here. Without OPENMLDB_ZK it is skipped, and says why.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest
from fixtures import odd_names
from fixtures.jd import actions_of, dimensions_of, jd
from fixtures.scorer import Shop, answers
from places import SQL

from streaming.app.folder import FILES, App, load_app
from streaming.cli.deploy_sql import Scripts, deploy
from streaming.config import OpenMLDB, Store
from streaming.errors import ArtifactMismatch, StoreUnavailable
from streaming.store.open import open_cluster
from streaming.store.openmldb.cluster import ClusterStore
from streaming.store.openmldb.sdk import Client, connect_options

pytestmark = [
    pytest.mark.openmldb,
    pytest.mark.skipif(
        "OPENMLDB_ZK" not in os.environ,
        reason="needs an OpenMLDB cluster: set OPENMLDB_ZK=host:2181 (OPENMLDB_ZK_PATH)",
    ),
]


@pytest.fixture(scope="module")
def shop_app() -> App:
    """The tutorial's application in a database of its own."""
    return jd().deployed_as(f"jd_test_{uuid.uuid4().hex[:8]}")


def new_client(app: App) -> Client:
    """A fresh one: nobody has said USE on its connection."""
    zk, path = os.environ["OPENMLDB_ZK"], os.environ.get("OPENMLDB_ZK_PATH", "/openmldb")
    made = open_cluster(Store(kind="openmldb", openmldb=OpenMLDB(zk=zk, zk_path=path)), app)
    assert isinstance(made, Client)
    return made


@pytest.fixture(scope="module")
def deployed(shop_app: App) -> Iterator[None]:
    """The application's tables and deployment, by a client of their own."""
    with new_client(shop_app) as client:
        deploy(client, Scripts.made(shop_app))
    yield
    database = shop_app.tables.database
    with new_client(shop_app) as other, suppress(StoreUnavailable):
        other.execute(f"USE {database}")
        other.execute("DROP DEPLOYMENT demo")
        for (table,) in other.execute("SHOW TABLES"):
            other.execute(f"DROP TABLE {table}")
        other.execute(f"DROP DATABASE {database}")


@pytest.fixture
def client(shop_app: App, deployed: None) -> Iterator[Client]:
    with new_client(shop_app) as made:
        yield made


@pytest.fixture
def store(shop_app: App, client: Client) -> ClusterStore:
    made = ClusterStore(shop_app, client)
    made.load()
    return made


def test_a_fresh_client_must_say_use_first(client: Client) -> None:
    with pytest.raises(StoreUnavailable, match="please enter database first"):
        client.execute("SHOW DEPLOYMENTS FROM x")
    with pytest.raises(StoreUnavailable, match=r"\[2000\] *$"):
        client.execute("SHOW CREATE TABLE bo_user")
    assert len(client.schemas()[1]) == 42


def test_deploy_finds_what_it_has_made_and_refuses_another(client: Client, shop_app: App, tmp_path: Path) -> None:
    said: list[str] = []
    deploy(client, Scripts.made(shop_app), say=said.append)
    assert "deployment demo: is there" in said
    for name in FILES:
        (tmp_path / name).write_text((SQL / "jd" / name).read_text().replace("MAXSIZE 200", "MAXSIZE 20"))
    with pytest.raises(ArtifactMismatch, match="maxsize 20"):
        deploy(client, Scripts.made(load_app(tmp_path).deployed_as(shop_app.tables.database)))


def test_names_that_need_backquotes_have_them(client: Client) -> None:
    """Of tables, columns and the database; the names of a deployment cannot be such (C18)."""
    name = odd_names.DATABASE
    client.execute(f"CREATE DATABASE `{name}`")
    try:
        zk, path = os.environ["OPENMLDB_ZK"], os.environ.get("OPENMLDB_ZK_PATH", "/openmldb")
        options = connect_options(Store(kind="openmldb", openmldb=OpenMLDB(zk=zk, zk_path=path)), name)
        with Client(options, "d") as odd:
            found = odd_names.asked_and_inserted(odd)
            with pytest.raises(StoreUnavailable, match="create procedure on tablet failed"):
                odd.execute("DEPLOY `a b` SELECT `select` FROM `order`")
    finally:
        for statement in (f"USE `{name}`", "DROP DEPLOYMENT d", "DROP TABLE `order`", f"DROP DATABASE `{name}`"):
            with suppress(StoreUnavailable):
                client.execute(statement)
    assert found == [{"select": "x", "how many": 3}, {"select": "y", "how many": 2}]


def test_answers_are_those_of_the_embedded_engine_also_when_events_come_again(store: ClusterStore) -> None:
    shop = Shop.seeded(300, seed=9)
    expected = answers(shop)
    store.restore(dimensions_of(shop))
    found = []
    for at in range(0, 300, 60):
        actions = actions_of(shop.actions[at : at + 60])
        for micro_batch in store.micro_batches(actions, [0] * 60):
            part = actions_of([shop.actions[at + int(p)] for p in micro_batch])
            store.answer(part)  # its transaction is aborted
            found.append(store.answer(part))
            store.accept(part)
            store.accept(part)
    answered = pa.concat_tables(found)
    wrong = [name for name in expected.column_names if not answered[name].equals(expected[name])]
    assert wrong == []
