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
from fixtures.rows import actions_of, dimensions
from fixtures.scorer import Shop, answers
from places import SQL

from streaming.cli.deploy_sql import Scripts, deploy
from streaming.config import OpenMLDB, Store
from streaming.errors import ArtifactMismatch, StoreUnavailable
from streaming.store.open import open_cluster
from streaming.store.openmldb.cluster import ClusterStore
from streaming.store.openmldb.sdk import Client

pytestmark = [
    pytest.mark.openmldb,
    pytest.mark.skipif(
        "OPENMLDB_ZK" not in os.environ,
        reason="needs an OpenMLDB cluster: set OPENMLDB_ZK=host:2181 (OPENMLDB_ZK_PATH)",
    ),
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    database = f"jd_test_{uuid.uuid4().hex[:8]}"
    sql = tmp_path_factory.mktemp("sql")
    for name in ("create_tables.sql", "deploy.sql", "features.sql"):
        (sql / name).write_text((SQL / name).read_text().replace("JD_db", database))
    made = Store(
        kind="openmldb",
        sql=str(sql),
        database=database,
        openmldb=OpenMLDB(zk=os.environ["OPENMLDB_ZK"], zk_path=os.environ.get("OPENMLDB_ZK_PATH", "/openmldb")),
    )
    yield made
    with open_cluster(made) as client, suppress(StoreUnavailable):
        client.execute(f"USE {database}")
        client.execute("DROP DEPLOYMENT demo")
        for (table,) in client.execute("SHOW TABLES"):
            client.execute(f"DROP TABLE {table}")
        client.execute(f"DROP DATABASE {database}")


@pytest.fixture(scope="module")
def client(settings: Store) -> Iterator[Client]:
    with open_cluster(settings) as made:
        assert isinstance(made, Client)
        yield made


@pytest.fixture(scope="module")
def store(settings: Store, client: Client) -> ClusterStore:
    deploy(client, Scripts.read(settings))
    made = ClusterStore(settings, client)
    made.load()
    return made


def test_deploy_finds_what_it_has_made_and_refuses_another(
    store: ClusterStore, client: Client, settings: Store, tmp_path: Path
) -> None:
    said: list[str] = []
    deploy(client, Scripts.read(settings), say=said.append)
    assert "deployment demo: is there" in said
    for name in ("create_tables.sql", "deploy.sql", "features.sql"):
        text = (Path(settings.sql) / name).read_text()
        (tmp_path / name).write_text(text.replace("MAXSIZE 200", "MAXSIZE 20"))
    with pytest.raises(ArtifactMismatch, match="maxsize 20"):
        deploy(client, Scripts.read(settings.model_copy(update={"sql": str(tmp_path)})))


def test_answers_are_those_of_the_embedded_engine_also_when_events_come_again(store: ClusterStore) -> None:
    shop = Shop.seeded(300, seed=9)
    expected = answers(shop)
    store.restore(dimensions(shop), None)
    found = []
    for at in range(0, 300, 60):
        actions = actions_of(shop.actions[at : at + 60])
        for micro_batch in store.micro_batches(actions, [0] * 60):
            part = actions_of([shop.actions[at + int(p)] for p in micro_batch])
            store.answer({}, part)  # its transaction is aborted
            found.append(store.answer({}, part))
            store.accept(part)
            store.accept(part)
    answered = pa.concat_tables(found)
    wrong = [name for name in expected.column_names if not answered[name].equals(expected[name])]
    assert wrong == []
