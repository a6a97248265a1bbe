"""The whole loop over the SDK's store: only the native connection is another. Each event once, as if it came alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from fixtures.jd import jd
from fixtures.scorer import Shop, Stage, check, current_publisher, running, wait_until
from rigs.fake_openmldb import Cluster, running_cluster

from streaming.errors import Aborted, StoreUnavailable
from streaming.loop.scorer import Scorer
from streaming.model.encoder import Encoder
from streaming.store.embedded import EmbeddedStore
from streaming.store.open import open_store
from streaming.store.openmldb.cluster import ClusterStore
from streaming.store.openmldb.sdk import Client, connect_options


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("openmldb"), jd()) as made:
        yield made


class Over(NamedTuple):
    """A store, and the cluster that it is over."""

    store: ClusterStore
    cluster: Cluster


def connected() -> ClusterStore:
    config = Stage.store_settings(give_up_after_s=60.0)
    store = ClusterStore(jd(), Client(connect_options(config, "JD_db", "rigs.fake_openmldb:cluster_sdk"), "demo"))
    store.load()
    return store


@pytest.fixture
def over(cluster: Cluster) -> Iterator[Over]:
    """Empty."""
    cluster.clear()
    with closing(connected()) as store:
        yield Over(store, cluster)


def settings(**changes: Any) -> dict[str, Any]:
    return {"backoff_ms": 20, "backoff_ms_max": 50, **changes}


def test_every_event_is_scored_once_as_if_it_came_alone_whatever_is_read_again(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, over: Over
) -> None:
    """Transactions are aborted, then the process dies between commit and `accept`; the next one goes on."""
    store, cluster = over
    seen: dict[str, int] = {}

    class Death(Exception):
        pass

    def trouble(scorer: Scorer, step: str) -> None:
        seen[step] = seen.get(step, 0) + 1
        if step in ("begin", "offsets") and seen[step] in (3, 9):
            current_publisher(scorer)._abort()
            raise Aborted(f"after {step}, by the test")

    half = len(shop.actions) // 2
    stage.send_shop(Shop(shop.actions[:half], shop.users, shop.products, shop.comments))
    stage.send([("actions", b"x", b"{"), ("comments", b"x", b"{")])
    put, committed = store._put, 0

    def die(rows: Mapping[str, pa.Table]) -> None:
        nonlocal committed
        committed += "flattenRequest" in rows
        if committed == 12:
            raise Death  # committed, and its request rows are not in
        put(rows)

    store._put = die  # type: ignore[method-assign]
    config = stage.config(store=settings(), batch={"messages_max": 100})
    with pytest.raises(Death), running(config, scorer_encoder, store, trouble) as scorer:
        wait_until(scorer.stop.is_set, "it dies")
    store._put = put  # type: ignore[method-assign]
    stage.send_actions(shop.actions[half:])
    with running(config, scorer_encoder, store) as scorer:
        found = stage.collect(len(shop.actions), 2)
        wait_until(lambda: not scorer.health.missing(), "ready")
    check(found, truth)
    assert len(found.dead) == 2
    assert seen["begin"] > 9
    assert cluster.rows("flattenRequest") == len(shop.actions)
    assert cluster.rows("bo_user") == len(shop.users)
    assert stage.committed() == stage.ends()
    assert stage.committed("comments", 1) == stage.ends("comments", 1)


def test_each_event_is_scored_once_wherever_scorers_die(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, over: Over
) -> None:
    """Each of them with records read, scored and committed out of their order; the last one ends the work."""
    store, cluster = over
    stage.send_shop(shop)

    class Death(Exception):
        pass

    def dying(at: str, after: int) -> Callable[[Scorer, str], None]:
        seen = 0

        def step(scorer: Scorer, name: str) -> None:
            nonlocal seen
            seen += name == at and scorer.metrics.scores._value.get() > 0
            if seen > after:
                raise Death(name)

        return step

    config = stage.config(store=settings(), batch={"messages_max": 100})
    for at, after in (("commit", 0), ("features", 1), ("offsets", 2), ("begin", 0)):
        with pytest.raises(Death), running(config, scorer_encoder, store, dying(at, after)) as scorer:
            wait_until(scorer.stop.is_set, f"it dies at {at}")
        assert sum(stage.committed()) < len(shop.actions)
    with running(config, scorer_encoder, store) as scorer:
        found = stage.collect(len(shop.actions))
        wait_until(lambda: stage.committed() == stage.ends(), "offsets say that all is done")
    check(found, truth)
    assert cluster.rows("flattenRequest") == len(shop.actions)


def test_late_events_are_late_in_the_log_and_not_by_when_they_are_scored(
    stage: Stage, shop: Shop, scorer_encoder: Encoder, over: Over
) -> None:
    """Events wait for earlier ones of their keys, and others go ahead of them."""
    in_order = sorted(shop.actions, key=lambda action: int(action["time"]))
    stage.send_actions(in_order)
    with running(stage.config(store=settings()), scorer_encoder, over.store) as scorer:
        scores, late = scorer.metrics.scores._value, scorer.metrics.late._value
        wait_until(lambda: scores.get() == len(in_order), "scores")
        assert late.get() == 0
        stage.send_actions(
            [{**in_order[0], "request_id": "late"}, {**in_order[-1], "request_id": "as late as the last"}]
        )
        wait_until(lambda: scores.get() == len(in_order) + 2, "two more")
        assert late.get() == 1


def test_what_was_refused_stays_out_after_the_scorer_was_mended(
    stage: Stage, shop: Shop, scorer_encoder: Encoder, over: Over
) -> None:
    store, cluster = over
    padded = [{**action, "note": "x" * 1000} for action in shop.actions[:20]]
    stage.send_actions([*padded, *shop.actions[20:60]])
    with running(stage.config(store=settings(), events={"message_bytes_max": 600}), scorer_encoder, store):
        stage.collect(40, 20)
    with running(stage.config(store=settings()), scorer_encoder, store):
        stage.send_actions(shop.actions[60:80])
        found = stage.collect(60, 20)
    assert found.scores.keys() == {action["request_id"] for action in shop.actions[20:80]}
    assert cluster.rows("flattenRequest") == cluster.rows("bo_action") == 60


def test_an_outage_is_waited_for_and_nothing_is_lost_or_doubled(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, over: Over
) -> None:
    store, cluster = over
    third = len(shop.actions) // 3
    stage.send_shop(Shop(shop.actions[:third], shop.users, shop.products, shop.comments))
    with running(stage.config(store=settings()), scorer_encoder, store) as scorer:
        wait_until(lambda: scorer.metrics.scores._value.get() > 0, "first scores")
        cluster.faults.inserts["bo_action"] = [1, 0, 1]
        stage.send_actions(shop.actions[third : 2 * third])
        cluster.faults.down = True
        wait_until(lambda: "store" in scorer.health.missing(), "not ready")
        before = scorer.metrics.store_retries._value.get()
        wait_until(lambda: scorer.metrics.store_retries._value.get() > before + 3, "retries")
        cluster.faults.down = False
        cluster.faults.forgetful = 2
        stage.send_actions(shop.actions[2 * third :])
        found = stage.collect(len(shop.actions))
        wait_until(lambda: not scorer.health.missing(), "ready")
    check(found, truth)
    assert cluster.rows("flattenRequest") == len(shop.actions)


def test_rows_that_a_dead_server_took_along_are_inserted_again_before_anything_is_asked(
    stage: Stage,
    shop: Shop,
    truth: dict[str, float],
    scorer_encoder: Encoder,
    over: Over,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streaming.loop.retrying_cluster.FAILOVER_S", 0.1)
    store, cluster = over
    stage.send_shop(shop)
    with running(stage.config(store=settings()), scorer_encoder, store) as scorer:
        # While many events wait for others of their keys, and others are done ahead of them.
        for count in (1, len(shop.actions) // 2):
            wait_until(lambda count=count: scorer.metrics.scores._value.get() >= count, "scores")  # type: ignore[misc]
            cluster.faults.down = True
            before = scorer.metrics.store_retries._value.get()
            wait_until(lambda before=before: scorer.metrics.store_retries._value.get() > before + 5, "retries")  # type: ignore[misc]
            rows = cluster.rows("bo_action"), cluster.rows("bo_user")
            cluster.fail_over(lost=60)
            assert (cluster.rows("bo_action"), cluster.rows("bo_user")) < rows
            cluster.faults.down = False
        found = stage.collect(len(shop.actions))
        wait_until(lambda: cluster.rows("flattenRequest") == len(shop.actions), "request rows are in")
    check(found, truth)
    assert cluster.rows("bo_action") == len(shop.actions)
    assert cluster.rows("bo_user") == len(shop.users)


def test_partitions_move_between_scorers_of_one_cluster(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, over: Over
) -> None:
    store, cluster = over

    def config(instance: str) -> Any:
        return stage.config(
            kafka={**stage.values["kafka"], "instance_id": instance}, batch={"messages_max": 20}, store=settings()
        )

    third = len(shop.actions) // 3
    stage.send_shop(Shop(shop.actions[:third], shop.users, shop.products, shop.comments))
    other = connected()
    with running(config("one"), scorer_encoder, store) as one:
        wait_until(lambda: one.metrics.scores._value.get() > 0, "first scores")
        with running(config("two"), scorer_encoder, other) as two:
            wait_until(lambda: len(one.source.positions) == len(two.source.positions) == 1, "one partition each")
            stage.send_actions(shop.actions[third : 2 * third])
            wait_until(lambda: two.metrics.scores._value.get() > 0, "scores of the second")
        stage.send_actions(shop.actions[2 * third :])
        found = stage.collect(len(shop.actions))
    other.close()
    check(found, truth)
    assert cluster.rows("flattenRequest") == len(shop.actions)


def test_a_cluster_that_stays_away_ends_the_scorer(
    stage: Stage, shop: Shop, scorer_encoder: Encoder, over: Over
) -> None:
    store, cluster = over
    stage.send_actions(shop.actions[:20])
    cluster.faults.down = True
    config = stage.config(store=settings(give_up_after_s=0.5))
    gone = pytest.raises(StoreUnavailable, match=r"gave up after 0 s: .*E112")
    with gone, running(config, scorer_encoder, store) as scorer:
        wait_until(scorer.stop.is_set, "it gives up")
    cluster.faults.down = False
    assert sum(stage.committed()) == 0


def test_the_configuration_chooses_the_store() -> None:
    assert isinstance(open_store(Stage.store_settings(kind="embedded"), jd()), EmbeddedStore)
    with closing(open_store(Stage.store_settings(), jd())) as store:
        assert isinstance(store, ClusterStore)
