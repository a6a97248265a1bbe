"""Scores → bytes: the JSON of `purchase-scores`, CloudEvents in its headers (Kafka binding 1.0, binary mode)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streaming.events.decode import Actions, Record
from streaming.ops.log import place

__all__ = ["CE_TYPE", "Headers", "Score", "encode_scores"]

CE_TYPE = b"com.jd.intent.purchase-score.v1"

Headers = list[tuple[str, bytes | None]]


class Score(msgspec.Struct, gc=False):
    """The value of one record of `purchase-scores`.

    `purchase_probability`: that the user orders the product within five days after `event_time` (epoch ms);
    `model_version`: the version directory that Triton served it from.
    """

    request_id: str
    user_id: str
    sku_id: str
    event_time: int
    purchase_probability: float
    model_version: str


def encode_scores(
    actions: Actions, records: Sequence[Record], probabilities: npt.NDArray[np.float32], version: str, source: bytes
) -> list[tuple[bytes, bytes, Headers]]:
    """Key, value and headers of n scores.

    Args:
        actions: n actions.
        records: the n records they came in. Header `ce_id` names them as topic[partition]@offset: with `ce_source` it
            must name one event only, and request ids may repeat.
        probabilities: float32 [n].
        source: CloudEvents' `ce_source`.
    """
    constant: Headers = [
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_type", CE_TYPE),
        ("ce_source", source),
    ]
    # Milliseconds cast to "YYYY-MM-DD HH:MM:SS.mmm"; RFC 3339 wants T and Z.
    text = pa.array(actions.times, pa.timestamp("ms")).cast(pa.string())
    instants = pc.binary_join_element_wise(pc.replace_substring(text, " ", "T"), "Z", "").cast(pa.binary()).to_pylist()
    users, times = actions.user_ids, actions.times.tolist()
    columns = zip(actions.request_ids, users, actions.sku_ids, times, probabilities.tolist(), strict=True)
    # One call for all: JSON has no line break in it, so a line is a value.
    values = msgspec.json.Encoder().encode_lines([Score(*fields, version) for fields in columns]).split(b"\n")
    return [
        (
            user.encode(),
            value,
            [
                *constant,
                ("ce_id", place(record.topic(), record.partition(), record.offset()).encode()),
                ("ce_time", instant),
            ],
        )
        for user, value, instant, record in zip(users, values, instants, records, strict=False)
    ]
