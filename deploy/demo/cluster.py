"""The demo's own database on an OpenMLDB cluster: made from an application, filled with history, dropped at the end.

A database of its own, because rows of another run under the same names would be part of the windows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from streaming.app.folder import App, load_app
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
        app: the application, in this database.
    """

    zk: str
    zk_path: str
    database: str
    app: App

    @classmethod
    def prepared(cls, zk: str, zk_path: str, app: Path) -> DemoCluster:
        """With a database of this run's own for the application of a folder."""
        database = f"jd_demo_{int(time.time())}"
        return cls(zk, zk_path, database, load_app(app).deployed_as(database))

    def table(self) -> str:
        """`[store]` of the scorer's configuration."""
        return (
            f'[store]\nkind = "openmldb"\ndatabase = "{self.database}"\n\n'
            f"[store.openmldb]\nzk = {json.dumps(self.zk)}\nzk_path = {json.dumps(self.zk_path)}\n"
        )

    def drop(self, say: Callable[[str], None]) -> None:
        """Drops the database, as far as the cluster lets it."""
        settings = Store(kind="openmldb", openmldb=OpenMLDB(zk=self.zk, zk_path=self.zk_path))
        with open_cluster(settings, self.app) as client, suppress(StoreUnavailable):
            if self.database not in [name for (name,) in client.execute("SHOW DATABASES")]:
                return
            client.execute(f"USE {self.database}")
            for _, name in client.execute("SHOW DEPLOYMENTS"):
                client.execute(f"DROP DEPLOYMENT {name}")
            for (name,) in client.execute("SHOW TABLES"):
                client.execute(f"DROP TABLE {name}")
            client.execute(f"DROP DATABASE {self.database}")
            say(f"database {self.database} of {self.zk} is dropped")
