"""A data folder of the tutorial as Kafka messages: what the shop would have sent in a period of it.

The period's actions become messages of `user-actions`, in time order; users, products and comments that were first
known in it become messages of their topics; what was there before it is cut out as history for the online tables.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.replay import Message, Replay
from batch.world.tutorial_tables import TABLES, table_rows
from streaming.store.openmldb.columns import schema_of

__all__ = ["DIMENSIONS", "TutorialReplay", "TutorialReplays", "cut_history", "period", "streamed_folder"]

TIME_COLUMNS: Mapping[str, str] = {
    "action": "eventTime",
    "flattenRequest_clean": "eventTime",
    "bo_action": "ingestionTime",
    "bo_comment": "ingestionTime",
    "bo_product": "ingestionTime",
    "bo_user": "ingestionTime",
}
"""Folder of the tutorial's layout → the column that says when a row became known."""

DIMENSIONS: Mapping[str, tuple[str, str]] = {
    "users": ("bo_user", "user_id"),
    "products": ("bo_product", "sku_id"),
    "comments": ("bo_comment", "sku_id"),
}
"""Topic → (folder, key column)."""


@dataclass(frozen=True)
class TutorialReplay(Replay):
    """A period of the tutorial's shop.

    Attributes:
        rows, requests: of bo_action and flattenRequest, a row per action, in the order of `events`.
    """

    rows: pa.Table = field(default_factory=lambda: pa.table({}))
    requests: pa.Table = field(default_factory=lambda: pa.table({}))


class TutorialReplays:
    """The tutorial's tables as events; see `batch.replay.Replays`."""

    def cut_history(self, data: Path, out: Path, before: int) -> dict[str, int]:
        return cut_history(data, out, before)

    def period(self, data: Path, start: int, end: int) -> TutorialReplay:
        return period(data, start, end)

    def streamed_folder(self, data: Path, history: Path, replay: Replay, out: Path) -> None:
        if not isinstance(replay, TutorialReplay):
            raise TypeError("a replay of another world")
        streamed_folder(data, history, replay, out)


def _milliseconds(epoch_ms: int) -> pa.Scalar:
    return pa.scalar(epoch_ms, pa.timestamp("ms"))


def cut_history(data: Path, out: Path, before: int) -> dict[str, int]:
    """Writes the rows of `data` that were known before `before` (epoch ms) to `out`, in the same layout and order.

    Returns:
        Rows kept per folder. A row that does not say when it became known counts as known.

    Raises:
        BadData: a file of `data` cannot be used.
    """
    kept: dict[str, int] = {}
    for folder, column in TIME_COLUMNS.items():
        if not (data / folder).is_dir():
            continue
        (out / folder).mkdir(parents=True, exist_ok=True)
        kept[folder] = 0
        with pq.ParquetWriter(out / folder / "history.parquet", schema_of([*TABLES[folder].items()])) as writer:
            for rows in table_rows(data, folder):
                known = rows.filter(pc.fill_null(pc.less(rows[column], _milliseconds(before)), True))
                writer.write_table(known)
                kept[folder] += known.num_rows
    return kept


def _rows(data: Path, folder: str, column: str, first: pa.Scalar, end: pa.Scalar | None = None) -> pa.Table:
    """The table's rows with `first` <= `column` < `end`, in order."""
    some = []
    for rows in table_rows(data, folder):
        wanted = pc.greater_equal(rows[column], first)
        some.append(rows.filter(wanted if end is None else pc.and_(wanted, pc.less(rows[column], end))))
    return pa.concat_tables(some)


def _rows_since(data: Path, folder: str, start: int) -> pa.Table:
    column = TIME_COLUMNS[folder]
    rows = _rows(data, folder, column, _milliseconds(start))
    return rows.set_column(rows.column_names.index(column), column, rows[column].cast(pa.int64()))


def _dimension_messages(data: Path, start: int) -> Iterator[Message]:
    for topic, (folder, key) in DIMENSIONS.items():
        rows: list[dict[str, Any]] = _rows_since(data, folder, start).to_pylist()
        rows.sort(key=lambda row: row["ingestionTime"])  # stable: of equal times, file order
        for row in rows:
            yield Message(topic, row[key].encode(), orjson.dumps(row), row["ingestionTime"])


def _local_text(times: pa.ChunkedArray) -> list[str]:
    """Epoch ms → 'YYYY-MM-DD HH:MM:SS' in UTC+8, as the data spells it."""
    local = pc.add(times, 8 * 3600 * 1000)
    seconds = pc.floor_temporal(local.cast(pa.timestamp("ms")), unit="second").cast(pa.timestamp("s"))
    text: list[str] = pc.strftime(seconds, "%Y-%m-%d %H:%M:%S").to_pylist()
    return text


def period(data: Path, start: int, end: int) -> TutorialReplay:
    """The messages of `start` ≤ time < `end` (epoch ms).

    Dimension rows have no upper bound: a row that becomes known after a request is either outside of its windows or,
    as the tutorial's products (dated 2020), joined all the same.

    The tutorial's clock ticks in seconds and a shop's in milliseconds: actions of one user at the same time are spread
    over the next milliseconds, in the data's order. Without that the order in which they were sent would be known to
    the stream only, and no offline extraction could see what each of them saw. An action of a pair's second that was
    seen before gets a request id with a running number: the default id must not name two requests.
    """
    actions = _rows(data, "bo_action", "time", pa.scalar(start), pa.scalar(end))
    actions = actions.take(pa.array(np.argsort(actions["time"].to_numpy(), kind="stable")))
    users = [pair.partition("_")[0] for pair in actions["pair_id"].to_pylist()]
    times, spread = _spread(users, actions["time"].to_pylist())
    time_column = pa.array(times, pa.int64())
    moments = time_column.cast(pa.timestamp("ms")).cast(actions.schema.field("ingestionTime").type)
    for name, column in (("time", time_column), ("ingestionTime", moments)):
        actions = actions.set_column(actions.column_names.index(name), name, column)
    seen: dict[str, int] = {}
    messages: list[Message] = []
    columns: dict[str, list[Any]] = {name: [] for name in ("reqId", "user_id", "sku_id", "time1")}
    for row, local in zip(actions.to_pylist(), _local_text(actions["time"]), strict=True):
        pair, time = row["pair_id"], row["time"]
        user, _, sku = pair.partition("_")
        default = f"{pair}_{local}"
        seen[default] = number = seen.get(default, 0) + 1
        value = {
            "user_id": user,
            "sku_id": sku,
            "time": time,
            "type": row["type"],
            "model_id": row["model_id"],
            "cate": row["cate"],
            "br": row["br"],
        }
        request_id = default
        if number > 1:
            value["request_id"] = request_id = f"{default}#{number}"
        messages.append(Message("user-actions", user.encode(), orjson.dumps(value), time, request_id))
        for name, cell in zip(columns, (request_id, user, sku, local), strict=True):
            columns[name].append(cell)
    count = len(messages)
    requests = pa.table(
        {
            "reqId": pa.array(columns["reqId"], pa.string()),
            "eventTime": time_column.cast(pa.timestamp("ms")).cast(pa.timestamp("us")),
            "main_id": pa.array([""] * count, pa.string()),
            "pair_id": actions["pair_id"],
            "user_id": pa.array(columns["user_id"], pa.string()),
            "sku_id": pa.array(columns["sku_id"], pa.string()),
            "time": time_column,
            "split_id": pa.array(np.zeros(count, np.int32)),
            "time1": pa.array(columns["time1"], pa.string()),
        }
    )
    return TutorialReplay(list(_dimension_messages(data, start)), messages, spread, actions, requests)


def streamed_folder(data: Path, history: Path, replay: TutorialReplay, out: Path) -> None:
    """Writes a data folder that holds what the stream saw, for an offline extraction of the streamed requests.

    History's requests and actions, then the period's as they were sent; later actions too, which only labels see.
    """
    for folder in TIME_COLUMNS:
        if folder not in ("flattenRequest_clean", "bo_action") and (data / folder).is_dir():
            out.mkdir(parents=True, exist_ok=True)
            (out / folder).symlink_to((data / folder).resolve(), target_is_directory=True)
    for folder, rows in (("flattenRequest_clean", replay.requests), ("bo_action", replay.rows)):
        (out / folder).mkdir(parents=True)
        shutil.copy(history / folder / "history.parquet", out / folder / "0-history.parquet")
        pq.write_table(rows, out / folder / "1-streamed.parquet")
    end = pc.max(replay.requests["time"]).as_py()
    later = _rows(data, "bo_action", "time", pa.scalar(end + 1))
    pq.write_table(later, out / "bo_action" / "2-later.parquet")


def _spread(users: list[str], times: list[int]) -> tuple[list[int], int]:
    """Times that grow strictly for each user, and how many had to be moved."""
    last: dict[str, int] = {}
    moved = 0
    out = []
    for user, time in zip(users, times, strict=True):
        after = max(time, last.get(user, -1) + 1)
        moved += after != time
        last[user] = after
        out.append(after)
    return out, moved
