"""`kafka.delivery = "at_least_once"` on a real broker: nothing is lost, and what comes again is the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fixtures.scorer import Shop, Stage, check, running, wait_until

from streaming.kafka.at_least_once import AtLeastOnce
from streaming.loop.scorer import Scorer
from streaming.model.encoder import Encoder


def config_of(stage: Stage, **more: Any) -> Any:
    return stage.config(kafka={**stage.values["kafka"], "delivery": "at_least_once"}, **more)


def test_each_event_is_scored_and_the_offsets_follow(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder
) -> None:
    stage.send_shop(shop)
    stage.send([("actions", b"x", b"{"), ("comments", b"x", b"{")])
    with running(config_of(stage), scorer_encoder) as scorer:
        assert isinstance(scorer.committing.output, AtLeastOnce)
        found = stage.collect(len(shop.actions), 2)
        wait_until(lambda: stage.committed() == stage.ends(), "offsets are committed")
    check(found, truth)  # nobody died: nothing comes twice
    assert len(found.dead) == 2


def test_what_a_death_leaves_uncommitted_is_scored_again_alike(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder
) -> None:
    class Death(Exception):
        pass

    stage.send_shop(shop)
    config, batches = config_of(stage, batch={"messages_max": 50}), 0

    def die(scorer: Scorer, step: str) -> None:
        nonlocal batches
        batches += step == "scores" and scorer.metrics.scores._value.get() > 0
        if step == "offsets" and batches == 3:
            scorer.committing.output.commit()  # the brokers have its scores, and the group no offset behind them
            raise Death(step)

    with pytest.raises(Death), running(config, scorer_encoder, step=die) as scorer:
        wait_until(scorer.stop.is_set, "it dies")
    with running(config, scorer_encoder):
        wait_until(lambda: stage.committed() == stage.ends(), "all is done")
    found = stage.collect(len(shop.actions))
    assert found.scores.keys() == truth.keys()
    assert found.doubled
    for record in found.records:
        score = json.loads(record.value() or b"")
        assert score["purchase_probability"] == truth[score["request_id"]]
