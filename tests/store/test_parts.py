"""Parts of rows: which rows may be inserted side by side, and that it is done, over both transports."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
import pyarrow as pa
import pytest
from fixtures.jd import actions_of, jd
from fixtures.scorer import Shop
from hypothesis import given
from hypothesis import strategies as st

from streaming.config import Rest
from streaming.engine.deployment.contract import Contract, Read
from streaming.errors import StoreUnavailable
from streaming.store.openmldb.parts import parts_of
from streaming.store.openmldb.rest import RestTransport

PART_ROWS_MIN = 8


def contract(*keys: tuple[str, ...]) -> Contract:
    return Contract("m", tuple(Read("t", key, key) for key in keys), (), (), (), ())


cells = st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(0, 9), st.integers(0, 3))


@given(
    rows=st.lists(cells, max_size=80),
    connections=st.integers(1, 5),
    keys=st.sets(st.sampled_from([(), ("k",), ("k", "j"), ("j",)])),
)
def test_rows_of_one_key_stay_together_and_in_order(
    rows: list[tuple[Any, ...]], connections: int, keys: set[tuple[str, ...]]
) -> None:
    numbered = [(number, *row) for number, row in enumerate(rows)]
    columns = [[row[i] for row in numbered] for i in range(4)]
    table = pa.table(dict(zip("nkjt", columns, strict=True)))
    parts = parts_of(contract(*keys), {"t": table}, connections, PART_ROWS_MIN)
    assert sorted(n for _, part in parts for n in part["n"].to_pylist()) == list(range(len(rows)))
    assert len(parts) <= connections
    place = {n: number for number, (_, part) in enumerate(parts) for n in part["n"].to_pylist()}
    for _, part in parts:
        assert part["n"].to_pylist() == sorted(part["n"].to_pylist())
    for key in keys:
        at = [" nkjt".index(column) - 1 for column in key]
        of_key: dict[Any, set[int]] = {}
        for row in numbered:
            of_key.setdefault(tuple(row[i] for i in at), set()).add(place[row[0]])
        assert all(len(places) == 1 for places in of_key.values())


def test_the_shop_s_events_go_over_all_connections() -> None:
    actions = actions_of(Shop.seeded(200).actions)
    parts = parts_of(jd().query.contract, actions.rows, 4, PART_ROWS_MIN)
    assert {table for table, _ in parts} == {"bo_action", "flattenRequest"}
    assert len(parts) == 8
    assert (
        len(
            parts_of(jd().query.contract, actions_of(Shop.seeded(2 * PART_ROWS_MIN - 1).actions).rows, 4, PART_ROWS_MIN)
        )
        == 2
    )


def test_parts_are_under_way_at_once_over_rest_and_all_end_before_an_error_is_told() -> None:
    meet, ended = threading.Barrier(3, timeout=60), list[str]()

    def handle(request: httpx.Request) -> httpx.Response:
        sql = json.loads(request.content)["sql"]
        meet.wait()
        if "(1)" in sql:
            return httpx.Response(200, json={"code": 2001, "msg": "put failed--[E112]Not connected"})
        ended.append(sql)
        return httpx.Response(200, json={"code": 0, "msg": "ok"})

    parts = [("t", pa.table({"a": [number]})) for number in range(3)]
    with (
        RestTransport(Rest(connections=3), "d", "x", transport=httpx.MockTransport(handle)) as transport,
        pytest.raises(StoreUnavailable, match="E112"),
    ):
        transport.insert_parts(parts)
    assert len(ended) == 2
