"""The loop on a real broker, a real Triton and the real engine: each event is scored once, as if it came alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Producer
from fixtures.scorer import PARTITIONS, Shop, Stage, check, current_publisher, loaded_store, poison, running, wait_until
from prometheus_client import generate_latest

from deploy.kafka.broker import Broker
from streaming.errors import Aborted, ArtifactMismatch, ModelUnavailable, OffsetOutOfRange, TransactionFatal
from streaming.events.batch import EventBatch
from streaming.events.scores import event_place
from streaming.loop.scorer import Scorer
from streaming.model.encoder import Encoder
from streaming.ops.health import Health
from streaming.ops.metrics import Metrics


def test_scores_and_dead_letters_come_once_and_exactly(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder
) -> None:
    bad = poison(shop.actions[0])
    half = len(shop.actions) // 2
    stage.send_shop(Shop(shop.actions[:half], shop.users, shop.products, shop.comments))
    stage.send([("actions", key, value) for key, value, _ in bad.values()])
    stage.send([("comments", b"1", b"{}"), ("users", None, None)])
    stage.send_actions(shop.actions[half:])
    with running(stage.config(), scorer_encoder) as scorer:
        found = stage.collect(len(shop.actions), len(bad) + 2)
        wait_until(lambda: not scorer.health.missing(), "ready")
        wait_until(lambda: scorer.metrics.scores._value.get() == len(shop.actions), "all are counted")
        # Lag is brought up to date once a second, of the partitions whose end a fetch has told.
        lag = f'jd_intent_consumer_lag{{partition="0",topic="{stage.topics["actions"]}"}}'.encode()
        wait_until(lambda: lag in generate_latest(scorer.metrics.registry), "lag is told")
        metrics = generate_latest(scorer.metrics.registry).decode()
    check(found, truth)

    score, headers = found.records[0], dict(found.records[0].headers() or [])
    value = json.loads(score.value() or b"")
    action = next(action for action in shop.actions if action["request_id"] == value["request_id"])
    assert score.key() == action["user_id"].encode()
    assert value == {
        "request_id": action["request_id"],
        "user_id": action["user_id"],
        "sku_id": action["sku_id"],
        "event_time": action["time"],
        "purchase_probability": truth[action["request_id"]],
        "model_version": "1",
    }
    assert headers["content-type"] == b"application/json"
    assert headers.keys() >= {"ce_specversion", "ce_source", "ce_type", "ce_time"}
    ids: set[Any] = {dict(record.headers() or [])["ce_id"] for record in found.records}
    assert len(ids) == len(found.records)
    assert all(re.fullmatch(rf"{stage.topics['actions']}\[\d+\]@\d+", ce_id.decode()) for ce_id in ids)

    why = {(key, value): f"streaming.event.{name}".encode() for key, value, name in bad.values()}
    why |= {(b"1", b"{}"): b"streaming.event.InvalidField", (None, None): b"streaming.event.NullValue"}
    assert len(found.dead) == len(why)
    for record in found.dead:
        headers = dict(record.headers() or [])
        assert headers["__connect.errors.exception.class.name"] == why[record.key(), record.value()]
        assert headers["trace"] == b"\x00\xff"

    assert stage.committed() == stage.ends()
    assert f"jd_intent_scores_total {len(shop.actions)}.0" in metrics
    assert f'jd_intent_dead_letters_total{{reason="wrong_key",topic="{stage.topics["actions"]}"}} 2.0' in metrics
    assert 'jd_intent_model_info{version="1"} 1.0' in metrics
    assert "jd_intent_event_to_score_seconds_count 800" in metrics


@pytest.mark.parametrize("form", ["structured", "none"])
@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_scores_in_another_form_are_the_same(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, form: str, delivery: str
) -> None:
    stage.send_shop(shop)
    config = stage.config(kafka={"cloudevents": form, "delivery": delivery})
    with running(config, scorer_encoder):
        found = stage.collect(len(shop.actions))
    check(found, truth)
    places = [event_place(record) for record in found.records]
    if form == "none":
        assert not any(places)
        assert not any(record.headers() for record in found.records)
    else:
        wanted = {f"{stage.topics['actions']}[{n}]@{at}" for n, end in enumerate(stage.ends()) for at in range(end)}
        assert sorted(places) == sorted(wanted)


def test_aborted_transactions_are_done_again_from_the_same_state(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder
) -> None:
    seen: dict[str, int] = {}

    def abort(scorer: Scorer, step: str) -> None:
        if step in ("begin", "scores", "dead letters", "offsets"):
            seen[step] = seen.get(step, 0) + 1
            if seen[step] in (2, 5):
                current_publisher(scorer)._producer.flush(30)  # what is aborted is on the broker
                current_publisher(scorer)._abort()
                raise Aborted(f"after {step}, by the test")

    stage.send_shop(shop)
    stage.send([("actions", b"x", b"{"), ("comments", b"x", b"{")])
    with running(stage.config(), scorer_encoder, step=abort) as scorer:
        found = stage.collect(len(shop.actions), 2)
        wait_until(lambda: scorer.metrics.restarts._value.get() == 8, "8 aborts")
    check(found, truth)
    assert len(found.dead) == 2
    assert len(stage.collect(len(shop.actions), 2, "read_uncommitted").records) > len(shop.actions)


def lags(scorer: Scorer) -> list[float]:
    """Of each partition, as its /metrics says."""
    lines = generate_latest(scorer.metrics.registry).decode().splitlines()
    return [float(line.split()[-1]) for line in lines if line.startswith("jd_intent_consumer_lag{")]


def test_behind_a_transactional_producer_lag_is_zero_and_records_need_no_time(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder
) -> None:
    stage.send_shop(Shop([], shop.users, shop.products, shop.comments))
    ids = {"bootstrap.servers": stage.bootstrap, "transactional.id": f"shop-{stage.name}"}
    producer = Producer({**ids, "partitioner": "murmur2_random"})
    producer.init_transactions(30)

    def put(actions: list[dict[str, Any]], end: Callable[[float], None]) -> None:
        producer.begin_transaction()
        for action in actions:
            producer.produce(
                stage.topics["actions"], json.dumps(action), action["user_id"], timestamp=-1, headers={"trace": "x"}
            )
        producer.flush(30)
        end(30)

    half = len(shop.actions) // 2
    with running(stage.config(), scorer_encoder) as scorer:
        for sent, actions in ((half, shop.actions[:half]), (len(shop.actions), shop.actions[half:])):
            put(actions, producer.commit_transaction)
            put(actions[:9], producer.abort_transaction)
            found = stage.collect(sent)
            wait_until(lambda: lags(scorer) == [0.0] * PARTITIONS, "nothing is behind")
        assert "jd_intent_event_to_score_seconds_count 0.0" in generate_latest(scorer.metrics.registry).decode()
    with running(stage.config(), scorer_encoder) as scorer:  # its state is of the same records
        wait_until(lambda: not scorer.health.missing(), "ready")
        assert scorer.store.sizes()["JD_db.bo_action"][0] == len(shop.actions)
    check(found, truth)


def test_a_message_too_large_for_the_dead_letter_topic_is_cut_and_stops_nothing(
    stage: Stage, broker: Broker, shop: Shop, scorer_encoder: Encoder
) -> None:
    stage.topics["dead_letters"] += "-small"
    broker.create_topics({stage.topics["dead_letters"]: 1}, {"max.message.bytes": "100000"})
    stage.send([("actions", b"1", b"x" * 5_000_000), *[("actions", b"1", b"y" * 70_000)] * 3])
    stage.send_actions(shop.actions[:20])
    with running(stage.config(), scorer_encoder):
        found = stage.collect(20, 4)
    sizes = sorted(len(record.value() or b"") for record in found.dead)
    assert sizes[:3] == [70_000] * 3
    assert 90_000 < sizes[3] < 100_000
    cut = next(dict(record.headers() or []) for record in found.dead if len(record.value() or b"") == sizes[3])
    assert cut["jd_intent.truncated.value_bytes"] == b"5000000"


def test_rows_that_the_store_refuses_are_dead_letters_of_their_own(
    stage: Stage, shop: Shop, scorer_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = loaded_store()
    answer, restore = store.answer, store.restore

    def check_rows(events: EventBatch) -> None:
        if "bo_user" in events.rows and "3" in events.rows["bo_user"]["user_id"].to_pylist():
            raise ValueError("bo_user: no")
        if "request-7" in events.sender_ids:
            raise ValueError("flattenRequest row 7: no")

    def refuse_answer(events: EventBatch) -> pa.Table:
        check_rows(events)
        return answer(events)

    def refuse_restore(events: EventBatch) -> None:
        check_rows(events)
        restore(events)

    def rows() -> dict[str, int]:
        return {table.rpartition(".")[2]: count for table, (count, _) in store.sizes().items() if table != "strings"}

    monkeypatch.setattr(store, "answer", refuse_answer)
    monkeypatch.setattr(store, "restore", refuse_restore)
    stage.send_shop(Shop(shop.actions[:40], shop.users, shop.products, shop.comments))
    with running(stage.config(), scorer_encoder, store):
        found = stage.collect(39, 2)
    assert "request-7" not in found.scores
    why = {
        json.loads(dead.value() or b"").get("request_id"): dict(dead.headers() or [])[
            "__connect.errors.exception.message"
        ]
        for dead in found.dead
    }
    assert why == {"request-7": b"flattenRequest row 7: no", None: b"bo_user: no"}
    before = rows()
    assert before["bo_user"] == len(shop.users) - 1
    assert before["bo_action"] == before["flattenRequest"] == 39

    with running(stage.config(), scorer_encoder, store) as again:  # the same state comes from the log
        wait_until(lambda: not again.health.missing(), "ready")
        assert rows() == before
        stage.send([("users", b"3", json.dumps({**shop.users[3], "age": "-1"}).encode())])  # comes while it runs
        stage.send_actions(shop.actions[40:41])
        found = stage.collect(40, 3)
    assert found.doubled == []
    assert len(found.dead) == 3
    assert rows() == {**before, "bo_action": 40, "flattenRequest": 40}


class Away:
    """A call that Triton went away from."""

    def wait(self, timeout_s: float) -> bool:
        return True

    def result(self) -> Any:
        raise ModelUnavailable("away, by the test")


@pytest.mark.parametrize("when", ["later", "after an outage", "while leaving"])
def test_nothing_is_published_with_a_model_of_another_encoder(
    when: str, stage: Stage, shop: Shop, scorer_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.loop.scoring.CHECK_S", 1e9 if when == "after an outage" else 0.0)
    seen: list[str] = []

    def swap(scorer: Scorer, step: str) -> None:
        seen.append(step)
        if step == "encode" and seen.count(step) == 2:
            monkeypatch.setattr(scorer.scoring.model, "encoder_digest", lambda: "sha256:other")
            if when == "after an outage":
                monkeypatch.setattr(scorer.scoring.model, "submit", lambda _: Away())
        if step == "submit" and seen.count(step) == 2 and when == "while leaving":
            scorer.stop.set()

    stage.send_actions(shop.actions)
    message = r"version 1 was trained with encoder sha256:other, this scorer has sha256:\w+: restart it"
    with pytest.raises(ArtifactMismatch, match=message), running(stage.config(), scorer_encoder, step=swap) as scorer:
        wait_until(scorer.stop.is_set, "the scorer gives up")
    assert sum(stage.committed()) <= 50  # at most the batch before


@pytest.mark.parametrize("kafka", [{}, {"assignor": "range"}, {"group_protocol": "consumer"}], ids=str)
def test_partitions_move_between_scorers_without_a_gap_or_a_double(
    kafka: dict[str, str], stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder
) -> None:
    def config(instance: str) -> Any:
        return stage.config(
            kafka={**stage.values["kafka"], **kafka, "instance_id": instance}, batch={"messages_max": 20}
        )

    third = len(shop.actions) // 3
    stage.send_shop(Shop(shop.actions[:third], shop.users, shop.products, shop.comments))
    stage.send([("comments", b"x", b"{")])
    with running(config("one"), scorer_encoder) as one:
        wait_until(lambda: one.metrics.scores._value.get() > 0, "first scores")
        with running(config("two"), scorer_encoder) as two:
            wait_until(lambda: len(one.source.positions) == len(two.source.positions) == 1, "one partition each")
            stage.send_actions(shop.actions[third : 2 * third])
            wait_until(lambda: two.metrics.scores._value.get() > 0, "scores of the second")
        stage.send_actions(shop.actions[2 * third :])
        found = stage.collect(len(shop.actions), 1)
    check(found, truth)
    assert len(found.dead) == 1
    assert stage.committed("comments", 1) == stage.ends("comments", 1)


def test_more_scorers_than_partitions_idle_and_are_ready(stage: Stage, shop: Shop, scorer_encoder: Encoder) -> None:
    with running(stage.config(), scorer_encoder) as one:
        wait_until(lambda: len(one.source.positions) == PARTITIONS and not one.health.missing(), "the first is ready")
        others = [stage.config(kafka={"instance_id": name}) for name in ("two", "three")]
        with running(others[0], scorer_encoder) as two, running(others[1], scorer_encoder) as three:
            scorers = (one, two, three)
            wait_until(lambda: sorted(len(s.source.positions) for s in scorers) == [0, 1, 1], "one idles")
            wait_until(lambda: all(not s.health.missing() for s in scorers), "all are ready")


def test_a_newer_instance_fences_the_older(stage: Stage, shop: Shop, scorer_encoder: Encoder) -> None:
    stage.send_actions(shop.actions[:100])
    with pytest.raises(TransactionFatal), running(stage.config(), scorer_encoder) as older:
        wait_until(lambda: not older.health.missing(), "the older is ready")
        stage.collect(100)
        with running(stage.config(), scorer_encoder):
            stage.send_actions(shop.actions[100:])
            wait_until(older.stop.is_set, "the older gives up")
            found = stage.collect(len(shop.actions))
    assert found.doubled == []


def test_committed_offsets_outside_of_the_topic_are_refused(
    stage: Stage, broker: Broker, shop: Shop, scorer_encoder: Encoder, delete_records: Callable[..., None]
) -> None:
    stage.send_actions(shop.actions[:50])
    with running(stage.config(), scorer_encoder):
        stage.collect(50)
    stage.send_actions(shop.actions[50:])
    delete_records(stage.bootstrap, stage.topics["actions"], stage.ends())
    message = r"has committed actions-\w+\[\d\]@\d+, but the topic holds \d+ to \d+"
    with pytest.raises(OffsetOutOfRange, match=message), running(stage.config(), scorer_encoder) as scorer:
        wait_until(scorer.stop.is_set, "the scorer gives up")


def test_a_slow_start_is_alive_and_a_silent_loop_is_not() -> None:
    health = Health(stalled_s=0.0)
    health.beat()
    assert health.alive()
    health.watch()
    assert not health.alive()


def test_the_lag_of_a_partition_that_went_away_is_not_kept() -> None:
    metrics = Metrics()
    metrics.set_lag({("actions", 0): 3, ("actions", 1): 4})
    metrics.set_lag({("actions", 1): 5})
    shown = generate_latest(metrics.registry).decode()
    assert 'jd_intent_consumer_lag{partition="1",topic="actions"} 5.0' in shown
    assert 'partition="0"' not in shown
