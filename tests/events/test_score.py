"""Scores as they go out: keys, values, and headers that name each event once."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import numpy as np

from streaming.events.record import Action, Record, action_columns
from streaming.events.scores import Score, encode_scores


class Read:
    """A record of which only its place is asked."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def topic(self) -> str:
        return "user-actions"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return self._offset


def test_actions_of_one_pair_in_one_second_have_event_ids_of_their_own() -> None:
    times = (1_459_419_080_000, 1_459_419_080_007)
    actions = [Action("1", "2", time, "1", "", "8", "3") for time in times]
    records = [cast(Record, Read(offset)) for offset in (7, 8)]
    sent = encode_scores(action_columns(actions), records, np.array([0.25, 0.5], np.float32), "4", b"/scorer")
    headers: list[dict[str, Any]] = [dict(parts) for _, _, parts in sent]
    assert [parts["ce_id"] for parts in headers] == [b"user-actions[3]@7", b"user-actions[3]@8"]
    assert [parts["ce_time"] for parts in headers] == [b"2016-03-31T10:11:20.000Z", b"2016-03-31T10:11:20.007Z"]
    assert {parts["ce_source"] for parts in headers} == {b"/scorer"}
    scores = [msgspec.json.decode(value, type=Score) for _, value, _ in sent]
    assert scores == [
        Score("1_2_2016-03-31 18:11:20", "1", "2", time, probability, "4")
        for time, probability in zip(times, (0.25, 0.5), strict=True)
    ]
    assert [key for key, _, _ in sent] == [b"1", b"1"]
