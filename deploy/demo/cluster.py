"""The demo's own database on an OpenMLDB cluster: made from sql/, filled with history, dropped at the end.

A database of its own, because rows of another run under the same names would be part of the windows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from streaming.config import OpenMLDB, Store
from streaming.errors import StoreUnavailable
from streaming.store.open import open_cluster

__all__ = ["DemoCluster"]


@dataclass(frozen=True, slots=True)
class DemoCluster:
    """The cluster at `zk`, and the database in it.

    Attributes:
        zk, zk_path: ZooKeeper of the cluster, and OpenMLDB's path in it.
        database: its name.
        sql: folder of the scripts, which name this database.
    """

    zk: str
    zk_path: str
    database: str
    sql: Path

    @classmethod
    def prepared(cls, zk: str, zk_path: str, scripts: Path, folder: Path) -> DemoCluster:
        """With copies of `scripts` in `folder` that name a database of this run's own."""
        database = f"jd_demo_{int(time.time())}"
        folder.mkdir(parents=True, exist_ok=True)
        for script in scripts.glob("*.sql"):
            (folder / script.name).write_text(script.read_text().replace("JD_db", database))
        return cls(zk, zk_path, database, folder)

    def table(self) -> str:
        """`[store]` of the scorer's configuration."""
        return (
            f'[store]\nkind = "openmldb"\nsql = {json.dumps(str(self.sql))}\ndatabase = "{self.database}"\n\n'
            f"[store.openmldb]\nzk = {json.dumps(self.zk)}\nzk_path = {json.dumps(self.zk_path)}\n"
        )

    def drop(self, say: Callable[[str], None]) -> None:
        """Drops the database, as far as the cluster lets it."""
        settings = Store(
            kind="openmldb",
            sql=str(self.sql),
            database=self.database,
            openmldb=OpenMLDB(zk=self.zk, zk_path=self.zk_path),
        )
        with open_cluster(settings) as client, suppress(StoreUnavailable):
            if self.database not in [name for (name,) in client.execute("SHOW DATABASES")]:
                return
            client.execute(f"USE {self.database}")
            for _, name in client.execute(f"SHOW DEPLOYMENTS FROM {self.database}"):
                client.execute(f"DROP DEPLOYMENT {name}")
            for (name,) in client.execute("SHOW TABLES"):
                client.execute(f"DROP TABLE {name}")
            client.execute(f"DROP DATABASE {self.database}")
            say(f"database {self.database} of {self.zk} is dropped")
