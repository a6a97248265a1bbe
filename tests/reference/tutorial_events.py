"""The tutorial's events as the scorer had them before applications were folders: what sql/jd must make of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streaming.errors import BadEvent
from streaming.events.record import (
    TIME_MS_MAX,
    EmptyValue,
    InvalidField,
    Malformed,
    NullValue,
    Record,
    TimeOutOfRange,
    TooLarge,
    WrongKey,
)

__all__ = ["Action", "action_columns", "action_decoder", "dimension_columns", "dimension_decoders"]

LOCAL_TIME_MS = 8 * 3_600_000
"""The data's local time is fixed UTC+8: request ids and `time1` are written in it."""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Text = Annotated[str, msgspec.Meta(max_length=256)]
TimeMs = Annotated[int, msgspec.Meta(gt=0, le=TIME_MS_MAX)]
Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Rate = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Action(msgspec.Struct, gc=False):
    """One user action as it comes on `user-actions`.

    `type`: 1 view, 2 add to cart, 3 remove from cart, 4 order, 5 follow, 6 click. `model_id`, `cate` and `br` may be
    empty. Without a `request_id` the request is named `{user_id}_{sku_id}_{local time to the second}`.
    """

    user_id: Id
    sku_id: Id
    time: TimeMs
    type: Literal["1", "2", "3", "4", "5", "6"]
    model_id: Text
    cate: Text
    br: Text
    request_id: Id | None = None


class User(msgspec.Struct, gc=False):
    """A row of bo_user."""

    user_id: Id
    ingestionTime: TimeMs
    age: Text
    sex: Text
    user_lv_cd: Text
    user_reg_tm: Int64


class Product(msgspec.Struct, gc=False):
    """A row of bo_product."""

    sku_id: Id
    ingestionTime: TimeMs
    a1: Text
    a2: Text
    a3: Text
    cate: Text
    br: Text


class Comment(msgspec.Struct, gc=False):
    """A row of bo_comment: the comments of one product up to `dt`."""

    sku_id: Id
    ingestionTime: TimeMs
    dt: Int64
    comment_num: Int32
    has_bad_comment: Text
    bad_comment_rate: Rate


Dimension = User | Product | Comment
Event = Action | User | Product | Comment

E_co = TypeVar("E_co", bound=Event, covariant=True)


class Decoder(Generic[E_co]):
    """Decodes and validates the records of one topic.

    Args:
        kind: the struct.
        key: its field that the record's key must equal.
        time: its time field, checked against the time when the record was written to its topic: unlike the wall clock,
            that is the same when the topic is replayed. A record without a time is held against the wall clock, once.
        message_bytes_max: limit of a value's size; larger ones are refused unparsed.
        future_s_max: how far ahead of the record's time the event's may lie, in seconds.
    """

    def __init__(self, kind: type[E_co], key: str, time: str, message_bytes_max: int, future_s_max: int) -> None:
        self._decode: Callable[[bytes], E_co] = msgspec.json.Decoder(kind).decode
        self._key, self._time = key, time
        self._bytes_max, self._future_ms = message_bytes_max, future_s_max * 1000

    def decode(self, value: bytes | None, key: bytes | None, written_ms: int) -> E_co:
        """One record.

        Args:
            written_ms: when it was written, epoch milliseconds; negative: nobody knows, it counts as written now.

        Raises:
            BadEvent: one of this module's subclasses; the message names the field.
        """
        if value is None:
            raise NullValue("decode", "the value is null")
        if not value:
            raise EmptyValue("decode", "the value is empty")
        if len(value) > self._bytes_max:
            raise TooLarge("decode", f"the value has {len(value)} bytes; events.message_bytes_max is {self._bytes_max}")
        try:
            event = self._decode(value)
        except msgspec.ValidationError as error:
            raise InvalidField("validate", str(error)) from None
        except UnicodeDecodeError as error:
            raise Malformed("decode", f"not UTF-8: {error.reason}") from None
        except (msgspec.DecodeError, RecursionError) as error:
            raise Malformed("decode", f"not JSON: {error}") from None
        since_ms = written_ms if written_ms >= 0 else int(time.time() * 1000)
        ahead_ms = getattr(event, self._time) - since_ms
        if ahead_ms > self._future_ms:
            limit_s = self._future_ms // 1000
            when = "the record's own time" if written_ms >= 0 else "now (the record has no time of its own)"
            raise TimeOutOfRange(
                "validate", f"{self._time} lies {ahead_ms // 1000} s after {when}; events.future_s_max is {limit_s}"
            )
        name = getattr(event, self._key)
        if key is None or key != name.encode():
            shown = "null" if key is None else repr(key[:64])
            raise WrongKey("validate", f"the key is {shown}, {self._key} is {name!r}")
        return event

    def decode_all(
        self, records: Sequence[Record], *, replayed: bool = False
    ) -> tuple[list[E_co], list[Record], list[tuple[Record, BadEvent]]]:
        """A batch: the events, their records, and the records that are not events, each in the order given.

        Args:
            replayed: they were committed before. One without a time was held against the clock then, and is taken
                whatever the clock says now; what was refused then is not among them
                (`streaming.kafka.refused_records`).
        """
        events: list[E_co] = []
        good: list[Record] = []
        bad: list[tuple[Record, BadEvent]] = []
        for record in records:
            try:
                written_ms = record.timestamp()[1]  # -1: its producer gave it none, and the topic does not either
                if written_ms < 0 and replayed:
                    written_ms = TIME_MS_MAX
                events.append(self.decode(record.value(), record.key(), written_ms))
                good.append(record)
            except BadEvent as error:
                bad.append((record, error))
        return events, good, bad


def action_decoder(message_bytes_max: int, future_s_max: int) -> Decoder[Action]:
    """The decoder of `user-actions`."""
    return Decoder(Action, "user_id", "time", message_bytes_max, future_s_max)


def dimension_decoders(message_bytes_max: int, future_s_max: int) -> dict[str, Decoder[Dimension]]:
    """The decoders of the dimension topics, by the table that their rows go to."""
    limits = (message_bytes_max, future_s_max)
    return {
        "bo_user": Decoder(User, "user_id", "ingestionTime", *limits),
        "bo_product": Decoder(Product, "sku_id", "ingestionTime", *limits),
        "bo_comment": Decoder(Comment, "sku_id", "ingestionTime", *limits),
    }


@dataclass(frozen=True)
class Actions:
    """n actions as columns.

    Attributes:
        requests: n rows of flattenRequest.
        rows: n rows of bo_action.
        request_ids, user_ids, sku_ids: n strings.
        times: int64 [n], epoch ms.
    """

    requests: pa.Table
    rows: pa.Table
    request_ids: list[str]
    user_ids: list[str]
    sku_ids: list[str]
    times: npt.NDArray[np.int64]


_STRING, _TIMESTAMP, _SECONDS, _INT64 = pa.string(), pa.timestamp("ms"), pa.timestamp("s"), pa.int64()
_NO_MAIN, _NO_SPLIT = pa.scalar("", _STRING), pa.scalar(0, pa.int32())
_REQUESTS = pa.schema(
    [
        ("reqId", _STRING),
        ("eventTime", _TIMESTAMP),
        ("main_id", _STRING),
        ("pair_id", _STRING),
        ("user_id", _STRING),
        ("sku_id", _STRING),
        ("time", _INT64),
        ("split_id", pa.int32()),
        ("time1", _STRING),
    ]
)
_ROWS = pa.schema(
    [
        ("ingestionTime", _TIMESTAMP),
        ("pair_id", _STRING),
        ("time", _INT64),
        ("model_id", _STRING),
        ("type", _STRING),
        ("cate", _STRING),
        ("br", _STRING),
    ]
)


def action_columns(actions: Sequence[Action]) -> Actions:
    """Builds the columns of a batch of actions, in its order."""
    count = len(actions)
    user_ids = [action.user_id for action in actions]
    sku_ids = [action.sku_id for action in actions]
    times = np.fromiter((action.time for action in actions), np.int64, count)
    user, sku, time = pa.array(user_ids, _STRING), pa.array(sku_ids, _STRING), pa.array(times)
    event_time = time.view(_TIMESTAMP)
    # Whole seconds cast to "YYYY-MM-DD HH:MM:SS".
    local = pa.array((times + LOCAL_TIME_MS) // 1000).view(_SECONDS).cast(_STRING)
    pair = pc.binary_join_element_wise(user, sku, "_")
    own = pa.array([action.request_id for action in actions], _STRING)
    # Most shops name their requests: no names are made where none is missing.
    request = pc.coalesce(own, pc.binary_join_element_wise(pair, local, "_")) if own.null_count else own
    main, split = pa.repeat(_NO_MAIN, count), pa.repeat(_NO_SPLIT, count)
    model = pa.array([action.model_id for action in actions], _STRING)
    kind = pa.array([action.type for action in actions], _STRING)
    cate = pa.array([action.cate for action in actions], _STRING)
    br = pa.array([action.br for action in actions], _STRING)
    requests = [request, event_time, main, pair, user, sku, time, split, local]
    rows = [event_time, pair, time, model, kind, cate, br]
    return Actions(
        pa.Table.from_arrays(requests, schema=_REQUESTS),
        pa.Table.from_arrays(rows, schema=_ROWS),
        request.to_pylist(),
        user_ids,
        sku_ids,
        times,
    )


_DIMENSIONS: dict[str, pa.Schema] = {
    "bo_user": pa.schema(
        [
            ("ingestionTime", _TIMESTAMP),
            ("user_id", _STRING),
            ("age", _STRING),
            ("sex", _STRING),
            ("user_lv_cd", _STRING),
            ("user_reg_tm", _INT64),
        ]
    ),
    "bo_product": pa.schema(
        [
            ("ingestionTime", _TIMESTAMP),
            ("sku_id", _STRING),
            ("a1", _STRING),
            ("a2", _STRING),
            ("a3", _STRING),
            ("cate", _STRING),
            ("br", _STRING),
        ]
    ),
    "bo_comment": pa.schema(
        [
            ("ingestionTime", _TIMESTAMP),
            ("dt", _INT64),
            ("sku_id", _STRING),
            ("comment_num", pa.int32()),
            ("has_bad_comment", _STRING),
            ("bad_comment_rate", pa.float32()),
        ]
    ),
}


def dimension_columns(table: str, events: Sequence[Dimension]) -> pa.Table:
    """Rows of a dimension table (`bo_user`, `bo_product` or `bo_comment`), in the order given."""
    schema = _DIMENSIONS[table]
    columns = [
        pa.array([getattr(event, name) for event in events], kind)
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)
