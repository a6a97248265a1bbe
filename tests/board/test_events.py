"""The event of a score, by where the score says that it lies: another record there is not taken for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fixtures.jd import jd, jd_topics
from fixtures.records import Fake

from streaming.board.events import EventGone, EventReader
from streaming.board.rows import Place
from streaming.config import Config

ACTION = {
    "user_id": "1",
    "sku_id": "2",
    "time": 1_459_419_080_000,
    "type": "1",
    "model_id": "0",
    "cate": "8",
    "br": "1",
}


class Topics(EventReader):
    """What lies in the topics, in place of a broker."""

    def __init__(self, records: dict[str, Fake]) -> None:
        super().__init__(Config(), jd(), jd_topics())
        self.records = records

    def _read(self, partition: tuple[str, int], offset: int, count: int) -> list[Any]:
        return [self.records[partition[0]]][:count]


def topics(request: str = "r1", **score: object) -> Topics:
    """A score of request r1 with 25 %, and its event; with what differs of either."""
    event = json.dumps({**ACTION, "request_id": request}).encode()
    told = {"request_id": "r1", "user_id": "1", "sku_id": "2", "purchase_probability": 0.25, **score}
    headers = [("ce_id", b"user-actions[1]@7")]
    actions = Fake(b"1", event, place=("user-actions", 1, 7), written_ms=-1)
    return Topics({"purchase-scores": Fake(b"1", json.dumps(told).encode(), [*headers]), "user-actions": actions})


def test_the_event_is_told_as_the_request_that_it_was() -> None:
    asked = topics().event_of(Place(0, 3, 0.25))
    assert asked.place == "user-actions[1]@7"
    assert asked.row["reqId"] == "r1"
    assert json.loads(asked.event)["sku_id"] == "2"


@pytest.mark.parametrize("probability", [0.75, None, "much"])
def test_a_topic_that_was_made_anew_has_another_score_there(probability: object) -> None:
    with pytest.raises(EventGone, match="lies another: topic purchase-scores was made anew"):
        topics(purchase_probability=probability).event_of(Place(0, 3, 0.25))


def test_a_topic_of_events_that_was_made_anew_has_another_event_there() -> None:
    with pytest.raises(EventGone, match="where the event was lies another"):
        topics(request="r9").event_of(Place(0, 3, 0.25))
