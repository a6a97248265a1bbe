"""An OpenMLDB cluster in memory, which outlives the scorers, and the calls of a scorer to it, which fail.

Each habit stands on a line of the contract in docs/reference/openmldb-server.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from simulation.application import simulated_app
from simulation.servers import strike_rows
from simulation.world import World
from streaming.errors import StoreUnavailable
from streaming.store.embedded import EmbeddedStore
from streaming.store.openmldb.parts import Part

__all__ = ["CLUSTER_FAULTS", "LOST_S", "Calls", "Cluster"]

CLUSTER_FAULTS = {
    "store away": 0.02,
    "store slow": 0.02,
    "inserted in part": 0.02,
    "answer lost": 0.01,
    "tablet dies": 0.01,
    "tablet dies unseen": 0.1,
}
"""How often each comes, for each call of a scorer."""

FAILOVER_S = 1.5
"""The quickest failover."""

LOST_S = 1.0
"""Rows that were acknowledged so shortly before a tablet's death may be gone with it (C17)."""

BREATH_S = 5.0
"""No two deaths follow each other so soon: what both take is with no replica any more."""


class Cluster:
    """Tables that keep their rows, and the deployment.

    A `Transport` that never fails: the truth of a workload is asked of one.

    Args:
        engine: with empty tables.

    Attributes:
        served_from: when another tablet has taken over from one that died, simulated seconds.
        called: when it was, the last time.
        died: when a tablet did.
    """

    connections = 2
    part_rows_min = 2

    def __init__(self, engine: EmbeddedStore) -> None:
        self.engine = engine
        self.served_from = 0.0
        self.called = 0.0
        self.died = -BREATH_S
        self._there: dict[str, dict[tuple[Any, ...], float]] = {}  # row → when it came, in the order of coming

    def schemas(self) -> tuple[pa.Schema, pa.Schema]:
        query = simulated_app("openmldb").query
        return query.requests, query.answers

    def insert(self, table: str, rows: pa.Table, at: float = 0.0) -> None:
        """INSERT OR IGNORE: a row that is there as a whole is not inserted again (C11).

        Args:
            at: simulated seconds.
        """
        there = self._there.setdefault(table, {})
        fresh = []
        for number, row in enumerate(zip(*(column.to_pylist() for column in rows.columns), strict=True)):
            if row not in there:
                there[row] = at
                fresh.append(number)
        if fresh:
            self.engine.engine.insert(self._name(table), rows.take(fresh))

    def insert_parts(self, parts: Sequence[Part]) -> None:
        for table, rows in parts:
            self.insert(table, rows)

    def request(self, rows: pa.Table) -> pa.Table:
        return self.engine.request(rows)

    def lose(self, at: float, luck: float) -> int:
        """A tablet dies that had not told its replicas of its last rows: how many are gone.

        Args:
            at: simulated seconds.
            luck: of those of each table so large a part, 0 to 1.
        """
        gone, self.died = 0, at
        for table, there in self._there.items():
            recent = [row for row, came in there.items() if came >= at - LOST_S]
            lost = recent[len(recent) - round(len(recent) * luck) :]
            for row in lost:
                del there[row]
            self.engine.engine._catalogue.of_call(self._name(table)).truncate(len(there))
            gone += len(lost)
        return gone

    def kept(self, before: float) -> set[Any]:
        """The ids of the requests whose rows came before, simulated seconds: they are with all replicas."""
        app = simulated_app("openmldb")
        column = app.query.requests.get_field_index(app.settings.request.id)
        return {row[column] for row, came in self._there.get(app.main, {}).items() if came < before}

    def close(self) -> None:
        """It stays."""

    def _name(self, table: str) -> str:
        return f"{simulated_app('openmldb').tables.database}.{table}".lstrip(".")


class Calls:
    """A scorer's connection to the cluster: its `Transport`.

    Args:
        is_deadly: some rows kill who inserts them.
    """

    connections, part_rows_min = Cluster.connections, Cluster.part_rows_min

    def __init__(self, world: World, cluster: Cluster, *, is_deadly: bool) -> None:
        self._world, self._cluster, self._is_deadly = world, cluster, is_deadly
        self._away_until = 0.0

    def schemas(self) -> tuple[pa.Schema, pa.Schema]:
        self._call("schemas")
        return self._cluster.schemas()

    def insert(self, table: str, rows: pa.Table) -> None:
        self._call("insert")
        if self._is_deadly:
            strike_rows(self._world, {table: rows})
        taken = self._world.random.randrange(rows.num_rows) if self._world.luck("inserted in part") else rows.num_rows
        if taken:
            self._cluster.insert(table, rows.slice(0, taken), self._world.now)
        if taken < rows.num_rows:
            raise StoreUnavailable("[2001] put failed")
        self._answered()

    def insert_parts(self, parts: Sequence[Part]) -> None:
        for table, rows in parts:
            self.insert(table, rows)

    def request(self, rows: pa.Table) -> pa.Table:
        self._call("request")
        answers = self._cluster.request(rows)
        self._answered()
        return answers

    def close(self) -> None:
        """Nothing holds on to it."""

    def _call(self, name: str) -> None:
        """Anything may happen now, to this process or to the cluster."""
        world, cluster = self._world, self._cluster
        if (
            cluster.called - cluster.died > BREATH_S
            and world.now - cluster.called > FAILOVER_S
            and world.luck("tablet dies unseen")
        ):
            gone = cluster.lose(cluster.called, world.random.random())
            world.tell(f"cluster: a tablet has died at {cluster.called:.3f}, and {gone} rows with it")
        began = world.now
        world.point(f"cluster: {name}")
        if world.luck("store slow"):
            world.sleep(world.random.choice((0.2, 3.0)))
        if world.now >= cluster.served_from and world.luck("tablet dies"):
            gone = cluster.lose(world.now, world.random.random())
            cluster.served_from = world.now + world.random.choice((FAILOVER_S, 4.0))
            world.tell(f"cluster: a tablet dies, and {gone} rows with it")
        if world.luck("store away"):
            self._away_until = world.now + world.random.choice((0.3, 2.0))
        cluster.called = world.now
        # A call that is under way while its tablet dies fails. Who calls only later is not told.
        if world.now < max(self._away_until, cluster.served_from) or cluster.died > began:
            raise StoreUnavailable("[2001] [E112]Not connected")

    def _answered(self) -> None:
        self._world.point("cluster: answers")
        if self._world.luck("answer lost"):
            raise StoreUnavailable("[1500] timeout")
