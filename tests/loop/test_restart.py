"""Snapshots and rebalances on real parts: only what is missing is read again, and the scores are those of one run."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.scorer import PARTITIONS, Shop, Stage, check, running, wait_until
from places import REPOSITORY

from deploy.kafka.broker import Broker
from deploy.process import Process
from streaming.app.configured import application
from streaming.config import Config
from streaming.errors import FolderTaken, LogNotWhole, OffsetOutOfRange
from streaming.kafka.connection import Connection
from streaming.kafka.dimension_source import DimensionSource
from streaming.kafka.lineage import Lineages
from streaming.kafka.topics import Topics
from streaming.loop.scorer import Scorer
from streaming.model.encoder import Encoder


def replayed(scorer: Scorer) -> int:
    """Actions that it has read again for its state."""
    return int(scorer.metrics.replayed._value.get())


def snapshot_of(folder: Path, offsets: int) -> Callable[[], bool]:
    """Whether the newest snapshot of scorer `one` stands for so many actions."""

    def there() -> bool:
        newest = max(folder.glob("one/snapshot-*/manifest.json"), default=None)
        if newest is None:
            return False
        try:
            manifest = json.loads(newest.read_text())
        except FileNotFoundError:  # a newer one has just replaced it
            return False
        return bool(sum(offset for *_, offset in manifest["snapshot"]["actions"]) == offsets)

    return there


def test_a_restart_reads_the_snapshot_and_only_what_came_after_it(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, tmp_path: Path
) -> None:
    snapshots = {"folder": str(tmp_path), "every_s": 0.05}
    half = len(shop.actions) // 2
    stage.send_shop(Shop(shop.actions[:half], shop.users, shop.products, shop.comments))
    stage.send([("comments", b"x", b"{")])
    with running(stage.config(snapshots=snapshots), scorer_encoder) as scorer:
        stage.collect(half, 1)
        wait_until(snapshot_of(tmp_path, half), "a snapshot of all of it")
        wait_until(lambda: scorer.metrics.snapshot_bytes._value.get() > 0, "it is told")
        assert scorer.metrics.snapshot_failures._value.get() == 0
    rest = stage.config(snapshots={**snapshots, "every_s": 3600.0})
    with running(rest, scorer_encoder) as scorer:
        stage.send_actions(shop.actions[half : half + 200])
        stage.send([("users", b"y", b"{")])
        stage.collect(half + 200, 2)
        assert replayed(scorer) == 0
    with running(rest, scorer_encoder) as scorer:
        stage.send_actions(shop.actions[half + 200 :])
        found = stage.collect(len(shop.actions), 2)
        assert replayed(scorer) == 200
        with pytest.raises(FolderTaken, match=f"{tmp_path}/one is in use by pid "), running(rest, scorer_encoder):
            pass
    check(found, truth)
    assert len(found.dead) == 2


def test_killed_at_any_time_it_goes_on_from_a_snapshot(
    stage: Stage, shop: Shop, truth: dict[str, float], tmp_path: Path
) -> None:
    file = stage.file(
        tmp_path,
        batch={"messages_max": 10},
        kafka={"static_membership": True},
        log={"format": "json"},
        snapshots={"folder": str(tmp_path / "state"), "every_s": 0.01},
    )
    argv = [sys.executable, "-m", "streaming", "run", "-c", str(file)]
    log = tmp_path / "scorer.log"
    stage.send_shop(shop)
    written = 0
    for _ in range(3):
        with Process("scorer", argv, log, cwd=REPOSITORY) as process:
            written += 2
            wait_until(lambda: log.read_text().count("snapshot written") >= written, "snapshots")  # noqa: B023
            process.kill()
        written = log.read_text().count("snapshot written")
    assert log.read_text().count("snapshot restored") >= 2
    with Process("scorer", argv, log, cwd=REPOSITORY) as process:
        found = stage.collect(len(shop.actions))
        assert process.stop(20) == 0, process.tail()
    check(found, truth)
    assert "set aside" not in log.read_text()


def test_only_the_partitions_that_moved_are_read_again(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder
) -> None:
    def config(instance: str) -> Config:
        return stage.config(kafka={"instance_id": instance}, batch={"messages_max": 20})

    third = len(shop.actions) // 3
    stage.send_shop(Shop(shop.actions[:third], shop.users, shop.products, shop.comments))
    with running(config("one"), scorer_encoder) as one:
        stage.collect(third)
        with running(config("two"), scorer_encoder) as two:
            wait_until(lambda: len(one.source.positions) == len(two.source.positions) == 1, "one partition each")
            (moved,) = two.source.positions
            wait_until(lambda: replayed(two) == two.source.positions[moved], "the second has read all of it")
            assert replayed(one) == 0
            before = two.source.positions[moved]
            stage.send_actions(shop.actions[third : 2 * third])
            stage.collect(2 * third)
            came = two.source.positions[moved] - before
            assert came > 0
        stage.send_actions(shop.actions[2 * third :])
        found = stage.collect(len(shop.actions))
        assert len(one.source.positions) == PARTITIONS
        assert replayed(one) == came  # not what it had read before it gave the partition up
    check(found, truth)


@pytest.mark.parametrize("protocol", ["classic", pytest.param("consumer", marks=pytest.mark.slow)])
def test_a_zombie_neither_publishes_nor_goes_wrong(
    protocol: str, stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, tmp_path: Path
) -> None:
    """Stopped in the middle of its work until its partitions have moved, then awake again."""
    kafka = {"group_protocol": protocol}
    file = stage.file(tmp_path, batch={"messages_max": 5}, kafka={**kafka, "instance_id": "zombie"})
    half = len(shop.actions) // 2
    stage.send_shop(Shop(shop.actions[:half], shop.users, shop.products, shop.comments))
    argv = [sys.executable, "-m", "streaming", "run", "-c", str(file)]
    with Process("zombie", argv, tmp_path / "scorer.log", cwd=REPOSITORY) as zombie:
        wait_until(lambda: sum(stage.committed()) > 20, "first commits")
        zombie.popen.send_signal(signal.SIGSTOP)
        with running(stage.config(kafka=kafka), scorer_encoder) as other:
            stage.collect(half)
            zombie.popen.send_signal(signal.SIGCONT)
            stage.send_actions(shop.actions[half:])
            wait_until(lambda: len(other.source.positions) < PARTITIONS or not zombie.running(), "it is back or gone")
            found = stage.collect(len(shop.actions))
        if zombie.running():
            assert zombie.stop(20) == 0, zombie.tail()
        else:
            assert zombie.popen.returncode in (4, 5), zombie.tail()
    check(found, truth)


def test_a_snapshot_that_the_topic_does_not_reach_back_to_is_refused_unless_told_to_begin_anew(
    stage: Stage,
    broker: Broker,
    shop: Shop,
    scorer_encoder: Encoder,
    delete_records: Callable[..., None],
    tmp_path: Path,
) -> None:
    snapshots = {"folder": str(tmp_path), "every_s": 0.01}
    stage.send_actions(shop.actions[:100])
    with running(stage.config(snapshots=snapshots), scorer_encoder):
        stage.collect(100)
        wait_until(snapshot_of(tmp_path, 100), "a snapshot")
    later = {**snapshots, "every_s": 3600.0}
    stage.send_actions(shop.actions[100:200])
    with running(stage.config(snapshots=later), scorer_encoder):
        stage.collect(200)
    delete_records(stage.bootstrap, stage.topics["actions"], [end - 2 for end in stage.committed()])
    message = r"begins at offset \d+: the records before it are gone, .* kafka.begin_anew = true for one start"
    with pytest.raises(LogNotWhole, match=message), running(stage.config(snapshots=later), scorer_encoder) as one:
        wait_until(one.stop.is_set, "it gives up")
    anew = stage.config(snapshots=later, kafka={"begin_anew": True})
    with running(anew, scorer_encoder) as one:
        wait_until(lambda: not one.health.missing(), "ready")
        assert replayed(one) == 2 * PARTITIONS


def test_dimension_rows_that_came_while_nobody_read_are_read_before_it_goes_on(stage: Stage, shop: Shop) -> None:
    def comments(first: int, last: int) -> list[tuple[str, bytes | None, bytes | None]]:
        return [("comments", b"1", b"%d" % n) for n in range(first, last)]

    def read() -> int:
        found = 0
        while not dimensions.caught_up:
            found += len(dimensions.poll(100, 0.1))
        return found

    stage.send(comments(0, 10))
    config, connection = stage.config(), Connection(threading.Event())
    topics = Topics(config.kafka, application(config)[1], connection)
    dimensions = DimensionSource(config.kafka, connection, Lineages(config, topics))
    dimensions.restart({})
    assert read() == 10
    stage.send(comments(10, 15))
    dimensions.look_again()
    assert read() == 5
    dimensions.look_again()
    assert read() == 0
    stage.send(comments(15, 18))
    dimensions.restart({(stage.topics["comments"], 0): 12})  # as a snapshot says
    assert read() == 6
    with pytest.raises(OffsetOutOfRange, match=r"stands at offset 19, but the topic holds 0 to 18"):
        dimensions.restart({(stage.topics["comments"], 0): 19})
    dimensions.close()
