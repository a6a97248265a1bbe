"""A real OpenMLDB cluster under chaos: its database, its parts that die, and what is done to them.

Who runs the cluster gives a command that is called with an action and the name of a part, `zk`, `ns`, `tablet1`, …:
`kill`, `start` and `stop`, `continue` (SIGSTOP and SIGCONT); and with `wait` alone, it returns once each partition has
all its replicas again. A tablet that dies before that may take the last replica along.
"""

from __future__ import annotations

import random
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixtures.jd import dimensions_of, jd
from fixtures.scorer import Shop
from places import REPOSITORY

from deploy.demo.cluster import DemoCluster
from streaming.config import Store
from streaming.store.open import open_cluster
from streaming.store.openmldb.cluster import ClusterStore

__all__ = ["CLUSTER_KINDS", "ClusterParts", "deployed", "load"]

TABLETS = ("tablet1", "tablet2")
FAILOVER_S = (20.0, 35.0)  # a tablet's session, the nameserver's patience, and some more


@dataclass
class ClusterParts:
    """The processes of a cluster.

    Args:
        command: see above; empty: they are left alone.
    """

    command: str
    luck: random.Random

    def tablet_killed(self) -> None:
        """Back when others have taken over."""
        self._away(self.luck.choice(TABLETS), self.luck.uniform(*FAILOVER_S))

    def tablet_killed_and_back(self) -> None:
        self._away(self.luck.choice(TABLETS), self.luck.choice((0.0, 2.0)))

    def tablet_frozen(self) -> None:
        tablet = self.luck.choice(TABLETS)
        self._do("stop", tablet)
        time.sleep(self.luck.choice((1.0, 3.0, 6.0)))
        self._do("continue", tablet)

    def nameserver_killed(self) -> None:
        self._away("ns", self.luck.choice((0.0, 3.0, 10.0)))

    def zookeeper_killed(self) -> None:
        self._away("zk", self.luck.choice((0.0, 2.0, 4.0)))

    def whole_again(self) -> None:
        """Waits until all replicas are back."""
        if self.command:
            self._do("wait")

    def _away(self, part: str, seconds: float) -> None:
        self._do("kill", part)
        time.sleep(seconds)
        self._do("start", part)

    def _do(self, *words: str) -> None:
        subprocess.run([*shlex.split(self.command), *words], check=True, stdout=subprocess.DEVNULL)


CLUSTER_KINDS: dict[str, Callable[[ClusterParts], None]] = {
    "tablet SIGKILL, started again 20–35 s later": ClusterParts.tablet_killed,
    "tablet SIGKILL, started again": ClusterParts.tablet_killed_and_back,
    "tablet SIGSTOP 1–6 s": ClusterParts.tablet_frozen,
    "nameserver SIGKILL, started again": ClusterParts.nameserver_killed,
    "ZooKeeper SIGKILL, started again": ClusterParts.zookeeper_killed,
}


def load(store: Mapping[str, Any], shop: Shop) -> None:
    """Inserts what the dimension topics begin with, as `jd-intent-score load` does before the first scorer: over a
    cluster one scorer reads these topics, and the others do not wait for it."""
    settings = Store(**store)
    app = jd().deployed_as(settings.database)
    with open_cluster(settings, app) as client:
        ClusterStore(app, client).restore(dimensions_of(shop))


@contextmanager
def deployed(folder: Path, zk: str, zk_path: str) -> Iterator[Mapping[str, Any]]:
    """A database of this run's own, with the deployment; dropped at the end. Yields the scorers' [store]."""
    cluster = DemoCluster.prepared(zk, zk_path, jd().folder)
    file = folder / "deploy.toml"
    file.write_text(cluster.table())
    argv = [sys.executable, "-m", "streaming", "deploy", "--config", str(file)]
    subprocess.run(argv, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    try:
        yield {"kind": "openmldb", "database": cluster.database, "openmldb": {"zk": zk, "zk_path": zk_path}}
    finally:
        cluster.drop(print)
