"""A log that is not whole, on a real Kafka: the scorer says so, or goes on with what makes it whole; it never scores
from a hole. What the messages offer is then done, and must help."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic
from fixtures.jd import actions_of, jd
from fixtures.scorer import PARTITIONS, Shop, Stage, check, loaded_store, running, wait_until

from deploy.kafka.broker import Broker
from streaming.app.configured import application
from streaming.app.history import history_folder
from streaming.config import Config
from streaming.errors import LogNotWhole
from streaming.kafka.lineage import OFFSETS_FILE
from streaming.kafka.reader import Positions
from streaming.loop.scorer import Scorer
from streaming.model.encoder import Encoder
from streaming.predict.state_replica import Follower

DeleteRecords = Callable[[str, str, list[int]], None]


def refused(config: Config, encoder: Encoder, match: str) -> None:
    """It does not start, and says why."""
    with pytest.raises(LogNotWhole, match=match), running(config, encoder) as scorer:
        wait_until(scorer.stop.is_set, "it refuses")


def ready(scorer: Scorer) -> None:
    wait_until(lambda: not scorer.health.missing(), "it is ready")


def half(shop: Shop) -> tuple[Shop, list[dict[str, Any]]]:
    """The shop with the first half of its actions, and the others."""
    middle = len(shop.actions) // 2
    return Shop(shop.actions[:middle], shop.users, shop.products, shop.comments), shop.actions[middle:]


def score_first_half(stage: Stage, shop: Shop, encoder: Encoder, **tables: Any) -> list[dict[str, Any]]:
    """A scorer without a snapshot has scored the first half, and ended; the others."""
    first, others = half(shop)
    stage.send_shop(first)
    with running(stage.config(**tables), encoder):
        stage.collect(len(first.actions))
    return others


def write_history(
    folder: Path, actions: Sequence[dict[str, Any]], offsets: dict[str, dict[str, int]] | None = None
) -> None:
    """Actions as the tables' rows, in the layout of a history folder."""
    for table, rows in actions_of(actions).rows.items():
        home = folder / history_folder(jd(), table)
        home.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, home / "part-0.parquet")
    if offsets is not None:
        (folder / OFFSETS_FILE).write_text(json.dumps(offsets))


def test_a_log_that_retention_has_begun_to_delete_is_refused_or_completed_by_history(
    stage: Stage,
    shop: Shop,
    truth: dict[str, float],
    scorer_encoder: Encoder,
    delete_records: DeleteRecords,
    tmp_path: Path,
) -> None:
    others = score_first_half(stage, shop, scorer_encoder)
    topic, committed = stage.topics["actions"], stage.committed()
    delete_records(stage.bootstrap, topic, committed)
    refused(stage.config(), scorer_encoder, rf"{topic}\[\d\] begins at offset \d+: .* neither history nor a snapshot")
    follower = Follower(stage.config(), *application(stage.config()), loaded_store())
    follower.start()
    wait_until(follower.ended.is_set, "the predict server's copy refuses, too")
    assert isinstance(follower.failure, LogNotWhole)
    follower.stop()

    # History that says up to where it reaches, and does not reach far enough; then one that does.
    folder = tmp_path / "history"
    given = {"store": {"history": str(folder)}}
    short = {str(number): offset - 1 for number, offset in enumerate(committed)}
    write_history(folder, half(shop)[0].actions, {topic: short})
    refused(
        stage.config(**given), scorer_encoder, r"store.history reaches to \d+ \(offsets.json\): the records between"
    )
    write_history(folder, half(shop)[0].actions, {topic: {str(n): offset for n, offset in enumerate(committed)}})
    with running(stage.config(**given), scorer_encoder):
        stage.send_actions(others)
        check(stage.collect(len(shop.actions)), truth)


def test_history_without_offsets_is_taken_at_its_word_by_a_new_group_and_not_when_the_log_loses_more(
    stage: Stage,
    shop: Shop,
    truth: dict[str, float],
    scorer_encoder: Encoder,
    delete_records: DeleteRecords,
    tmp_path: Path,
) -> None:
    others = score_first_half(stage, shop, scorer_encoder)
    delete_records(stage.bootstrap, stage.topics["actions"], stage.committed())
    write_history(tmp_path, half(shop)[0].actions)
    refused(
        stage.config(store={"history": str(tmp_path)}), scorer_encoder, "store.history does not say that it has them"
    )
    given = stage.config(store={"history": str(tmp_path)}, kafka={"group_id": f"new-{stage.name}"})
    with running(given, scorer_encoder):
        stage.send_actions(others)
        check(stage.collect(len(shop.actions)), truth)
    with running(given, scorer_encoder) as scorer:  # the log is as it was: nothing is asked again
        ready(scorer)
    (tmp_path / ".DS_Store").write_text("no data, and no news")
    with running(given, scorer_encoder) as scorer:
        ready(scorer)
    delete_records(stage.bootstrap, stage.topics["actions"], stage.ends())
    refused(given, scorer_encoder, "store.history does not say that it has them")


def test_history_that_overlaps_the_log_says_so_and_nothing_counts_twice(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, tmp_path: Path
) -> None:
    others = score_first_half(stage, shop, scorer_encoder)
    write_history(
        tmp_path,
        half(shop)[0].actions,
        {stage.topics["actions"]: {str(number): offset for number, offset in enumerate(stage.committed())}},
    )
    with running(stage.config(store={"history": str(tmp_path)}), scorer_encoder) as scorer:
        stage.send_actions(others)
        check(stage.collect(len(shop.actions)), truth)
        assert scorer.metrics.replayed._value.get() == 0


@pytest.mark.parametrize(
    "allowed", [{"store": {"windows_may_start_empty": True}}, {"kafka": {"begin_anew": True}}], ids=str
)
def test_windows_begin_empty_where_that_is_allowed_and_the_next_start_need_not_be_told(
    stage: Stage, shop: Shop, scorer_encoder: Encoder, delete_records: DeleteRecords, allowed: dict[str, Any]
) -> None:
    others = score_first_half(stage, shop, scorer_encoder)
    delete_records(stage.bootstrap, stage.topics["actions"], stage.committed())
    with running(stage.config(**allowed), scorer_encoder) as scorer:
        ready(scorer)
    stage.send_actions(others)
    with running(stage.config(), scorer_encoder):
        assert stage.collect(len(shop.actions)).doubled == []


def test_a_partition_that_comes_back_after_retention_goes_on_with_a_history_that_has_what_is_gone(
    stage: Stage,
    shop: Shop,
    truth: dict[str, float],
    scorer_encoder: Encoder,
    delete_records: DeleteRecords,
    tmp_path: Path,
) -> None:
    first, others = half(shop)
    folder = tmp_path / "history"
    folder.mkdir()
    given = {"store": {"history": str(folder)}}
    quarter = len(first.actions) // 2
    stage.send_shop(Shop(first.actions[:quarter], shop.users, shop.products, shop.comments))
    with running(stage.config(**given), scorer_encoder) as one:
        stage.collect(quarter)
        with running(stage.config(kafka={"instance_id": "two"}, **given), scorer_encoder) as two:
            wait_until(lambda: len(one.source.positions) == len(two.source.positions) == 1, "each has a partition")
            stage.send_actions(first.actions[quarter:])
            stage.collect(len(first.actions))
            committed = stage.committed()
            reaches = {stage.topics["actions"]: {str(number): offset for number, offset in enumerate(committed)}}
            write_history(folder, first.actions, reaches)
            delete_records(stage.bootstrap, stage.topics["actions"], committed)
        wait_until(lambda: len(one.source.positions) == PARTITIONS, "it has both again")
        stage.send_actions(others)
        check(stage.collect(len(shop.actions)), truth)


def test_rows_between_may_be_missing_where_that_is_allowed_and_the_others_stay(
    stage: Stage, shop: Shop, scorer_encoder: Encoder, delete_records: DeleteRecords, tmp_path: Path
) -> None:
    first, others = half(shop)
    snapshots = {"folder": str(tmp_path), "every_s": 0.05}
    stage.send_shop(first)
    with running(stage.config(snapshots=snapshots), scorer_encoder):
        stage.collect(len(first.actions))
        wait_until(lambda: sum(positions(tmp_path)) == len(first.actions), "a snapshot of all")
    stage.send_actions(others)
    later = {**snapshots, "every_s": 3600.0}
    with running(stage.config(snapshots=later), scorer_encoder):
        stage.collect(len(shop.actions))
    delete_records(stage.bootstrap, stage.topics["actions"], stage.committed())
    refused(stage.config(snapshots=later), scorer_encoder, "the records before it are gone")
    with running(stage.config(snapshots=later, store={"windows_may_start_empty": True}), scorer_encoder) as scorer:
        ready(scorer)
        assert scorer.store.sizes()["JD_db.bo_action"][0] == len(first.actions)  # the snapshot's


def test_dimension_rows_that_retention_has_deleted_are_missed(
    stage: Stage, shop: Shop, scorer_encoder: Encoder, delete_records: DeleteRecords
) -> None:
    score_first_half(stage, shop, scorer_encoder)
    delete_records(stage.bootstrap, stage.topics["comments"], [1])
    refused(stage.config(), scorer_encoder, rf"{stage.topics['comments']}\[0\] begins at offset 1")


def test_a_log_that_is_emptied_behind_markers_and_aborted_records_has_no_gap(
    stage: Stage,
    shop: Shop,
    truth: dict[str, float],
    scorer_encoder: Encoder,
    delete_records: DeleteRecords,
    tmp_path: Path,
) -> None:
    first, others = half(shop)
    snapshots = {"folder": str(tmp_path), "every_s": 0.05}
    stage.send_shop(Shop([], shop.users, shop.products, shop.comments))
    producer = transactional(stage)
    for actions, end in ((first.actions, producer.commit_transaction), (others, producer.abort_transaction)):
        producer.begin_transaction()
        for action in actions:
            producer.produce(stage.topics["actions"], json.dumps(action).encode(), action["user_id"].encode())
        producer.flush(30)
        end(30)
    with running(stage.config(snapshots=snapshots), scorer_encoder) as scorer:
        stage.collect(len(first.actions))
        wait_until(lambda: stage.committed() == stage.ends(), "the ends are committed")
        wait_until(lambda: set(scorer.source.lag().values()) == {0}, "nothing is left")
        taken = sum(stage.ends())
        wait_until(lambda: sum(positions(tmp_path)) == taken, "a snapshot of it")
    delete_records(stage.bootstrap, stage.topics["actions"], stage.ends())
    with running(stage.config(snapshots=snapshots), scorer_encoder):
        stage.send_actions(others)
        check(stage.collect(len(shop.actions)), truth)


def transactional(stage: Stage) -> Producer:
    """A shop that sends in transactions."""
    producer = Producer(
        {"bootstrap.servers": stage.bootstrap, "transactional.id": stage.name, "partitioner": "murmur2_random"}
    )
    producer.init_transactions(30)
    return producer


def positions(folder: Path) -> list[int]:
    """The offsets of the actions that the newest snapshot of scorer `one` stands for."""
    newest = max(folder.glob("one/snapshot-*/manifest.json"), default=None)
    try:
        return [offset for *_, offset in json.loads(newest.read_text())["snapshot"]["actions"]] if newest else []
    except FileNotFoundError:  # a newer one has just replaced it
        return []


def test_a_committed_offset_behind_an_open_transaction_is_waited_for(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder
) -> None:
    first, others = half(shop)
    stage.send_shop(first)
    with running(stage.config(), scorer_encoder):
        stage.collect(len(first.actions))
    producer = transactional(stage)
    producer.begin_transaction()
    for action in others:
        producer.produce(stage.topics["actions"], json.dumps(action).encode(), action["user_id"].encode())
    producer.flush(30)
    stage.send_actions([])
    set_offsets(stage, stage.ends())  # as `kafka-consumer-groups.sh --reset-offsets --to-latest` does
    with running(stage.config(), scorer_encoder) as scorer:
        wait_until(lambda: scorer.metrics.replayed._value.get() == len(first.actions), "it waits for the end")
        producer.abort_transaction(30)
        ready(scorer)
        stage.send_actions(others)
        check(stage.collect(len(shop.actions)), truth)


def set_offsets(stage: Stage, offsets: Sequence[int]) -> None:
    """Sets the group's offsets, once it has no members."""
    admin = AdminClient({"bootstrap.servers": stage.bootstrap})
    wanted = [TopicPartition(stage.topics["actions"], number, offset) for number, offset in enumerate(offsets)]

    def done() -> bool:
        group = ConsumerGroupTopicPartitions(f"group-{stage.name}", wanted)
        try:
            (told,) = admin.alter_consumer_group_offsets([group]).values()
            return all(partition.error is None for partition in told.result(30).topic_partitions)
        except KafkaException:
            return False

    wait_until(done, "the group is empty")


def make_anew(stage: Stage) -> None:
    """Deletes the topic of actions and creates it again."""
    admin, topic = AdminClient({"bootstrap.servers": stage.bootstrap}), stage.topics["actions"]
    admin.delete_topics([topic])[topic].result(30)
    while True:
        try:
            admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
            break
        except KafkaException:  # its name is not free yet
            time.sleep(0.05)


def test_a_topic_that_is_made_anew_and_filled_while_it_is_read_is_never_read_on(
    stage: Stage, shop: Shop, scorer_encoder: Encoder
) -> None:
    first, _ = half(shop)
    stage.send_shop(first)
    message = r"topic '.*' was deleted and made anew"

    def frozen(scorer: Scorer, name: str) -> None:
        """Between two polls the topic is made anew, and filled past the old offsets."""
        if (
            name == "commit"
            and len(stage.ends()) == PARTITIONS
            and not made
            and sum(stage.committed()) == len(first.actions)
        ):
            made.append(True)
            make_anew(stage)
            stage.send_actions(shop.actions)

    made: list[bool] = []
    with pytest.raises(LogNotWhole, match=message), running(stage.config(), scorer_encoder, step=frozen) as scorer:
        wait_until(scorer.stop.is_set, "it notices")
    assert len(stage.collect(len(first.actions)).records) == len(first.actions)
    refused(stage.config(), scorer_encoder, f"{message} since")
    with running(stage.config(kafka={"begin_anew": True}), scorer_encoder):
        found = stage.collect(len(first.actions) + len(shop.actions))
    assert len(found.doubled) == len(first.actions)  # they are records of the new topic, too
    with running(stage.config(), scorer_encoder) as scorer:  # told once, it is noted
        ready(scorer)


def test_a_group_that_was_deleted_does_not_publish_again_what_a_snapshot_has(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, tmp_path: Path
) -> None:
    first, others = half(shop)
    snapshots = {"folder": str(tmp_path), "every_s": 0.05}
    stage.send_shop(first)
    with running(stage.config(snapshots=snapshots), scorer_encoder):
        stage.collect(len(first.actions))
        wait_until(lambda: sum(positions(tmp_path)) == len(first.actions), "a snapshot of all")
    admin, group, ends = AdminClient({"bootstrap.servers": stage.bootstrap}), f"group-{stage.name}", stage.ends()

    def deleted() -> bool:
        try:
            admin.delete_consumer_groups([group])[group].result(30)
        except KafkaException:  # its member is still there
            return False
        return True

    wait_until(deleted, "the group is empty")
    later = {**snapshots, "every_s": 3600.0}
    refused(
        stage.config(snapshots=later), scorer_encoder, r"has no offset of .*, but the snapshot has its records up to"
    )
    assert len(stage.collect(len(first.actions)).records) == len(first.actions)
    set_offsets(stage, ends)  # as the message says
    with running(stage.config(snapshots=later), scorer_encoder):
        stage.send_actions(others)
        check(stage.collect(len(shop.actions)), truth)


def test_partitions_that_are_added_are_refused_while_it_runs_and_at_a_start(
    stage: Stage, broker: Broker, shop: Shop, scorer_encoder: Encoder
) -> None:
    first, others = half(shop)
    stage.send_shop(first)
    message = rf"topic '.*' had {PARTITIONS} partitions and has {PARTITIONS + 1}"
    with pytest.raises(LogNotWhole, match=message), running(stage.config(), scorer_encoder) as scorer:
        stage.collect(len(first.actions))
        admin = AdminClient({"bootstrap.servers": stage.bootstrap})
        for told in admin.create_partitions([NewPartitions(stage.topics["actions"], PARTITIONS + 1)]).values():
            told.result(30)
        # The controller has them; until the broker has heard of it, all is as before, and may be scored.
        topic = stage.topics["actions"]
        wait_until(lambda: len(admin.list_topics(topic).topics[topic].partitions) > PARTITIONS, "the broker knows")
        stage.send_actions(others)
        wait_until(scorer.stop.is_set, "it notices")
    assert len(stage.collect(len(first.actions)).records) == len(first.actions)
    refused(stage.config(), scorer_encoder, message)
    with running(stage.config(kafka={"begin_anew": True}), scorer_encoder):
        assert stage.collect(len(shop.actions)).doubled == []


def test_offsets_of_dimension_topics_are_committed_again_before_kafka_forgets_them(
    stage: Stage, shop: Shop, scorer_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.loop.progress.RENEW_S", 0.5)
    stage.send_shop(Shop(shop.actions[:1], shop.users, shop.products, shop.comments))
    with running(stage.config(), scorer_encoder) as scorer:
        stage.collect(1)
        committed, offsets = [], scorer.committing.output.offsets

        def watched(positions: Positions, group: Any, note: Callable[[tuple[str, int]], str]) -> None:
            committed.append(positions)
            offsets(positions, group, note)

        monkeypatch.setattr(scorer.committing.output, "offsets", watched)
        rows = {(stage.topics[key], 0): len(getattr(shop, key)) for key in ("users", "products", "comments")}
        wait_until(lambda: committed.count(rows) >= 2, "they are committed again, though nothing comes")
        assert [stage.committed(key, 1)[0] for key in ("users", "products", "comments")] == list(rows.values())
