"""`jd-intent-score dlq` on a real broker, after a real scorer has refused what is in it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import pytest
from fixtures.scorer import PARTITIONS, Shop, Stage, check, running, wait_until
from typer.testing import CliRunner

from deploy.kafka.broker import Broker
from streaming.app.configured import application
from streaming.app.topics import TopicNames
from streaming.cli.commands import app
from streaming.config import Config
from streaming.dlq.letters import LetterFilter, find_letters, parse_offsets, parse_places, parse_since
from streaming.dlq.replay import REPLAYED_FROM, ReplayOutcome, replay
from streaming.errors import ConfigError, TransactionFatal
from streaming.kafka.connection import Connection
from streaming.kafka.reader import CommittedReader
from streaming.model.encoder import Encoder

GOOD = 30


def found_by(stage: Stage, **kafka: Any) -> tuple[Config, TopicNames]:
    """The configuration, and the topics that it names."""
    config = stage.config(kafka=kafka)
    return config, application(config)[1]


@pytest.fixture
def dead(stage: Stage, broker: Broker, shop: Shop, scorer_encoder: Encoder) -> Sequence[dict[str, Any]]:
    """The first 30 actions are dead letters, because their scorer takes too few bytes; so are one that is wrong and one
    that was cut."""
    stage.topics["dead_letters"] += "-small"
    broker.create_topics({stage.topics["dead_letters"]: 1}, {"max.message.bytes": "100000"})
    actions = shop.actions[:GOOD]
    padded = [{**action, "note": "x" * 1000} for action in actions]  # fields that the scorer does not know are ignored
    stage.send_shop(Shop([], shop.users, shop.products, shop.comments))
    stage.send_actions(padded)
    stage.send([("actions", b"1", b"{"), ("actions", b"1", b"y" * 200_000)])
    with running(stage.config(events={"message_bytes_max": 600}), scorer_encoder):
        stage.collect(0, GOOD + 2)
    return padded


def test_each_is_found_with_its_reason_and_origin(stage: Stage, dead: Sequence[dict[str, Any]]) -> None:
    letters, count = find_letters(*found_by(stage), LetterFilter(), 100)
    assert count == len(letters) == GOOD + 2
    assert sorted(letter.reason for letter in letters) == ["malformed"] + ["too_large"] * (GOOD + 1)
    assert len({letter.origin for letter in letters}) == GOOD + 2
    assert [letter.cut for letter in letters if letter.cut] == ["value_bytes 200000"]
    assert all(0 <= letter.written_ms - letter.timestamp_ms < 600_000 for letter in letters)
    newest, count = find_letters(
        *found_by(stage), LetterFilter(reasons={"too_large"}, topics={stage.topics["actions"]}), 2
    )
    assert (newest, count) == ([x for x in letters if x.reason == "too_large"][-2:], GOOD + 1)
    assert find_letters(*found_by(stage), LetterFilter(topics={stage.topics["users"]}), 2) == ([], 0)


def test_the_commands(stage: Stage, dead: Sequence[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    file = str(stage.file(tmp_path_factory.mktemp("dlq")))
    run = CliRunner()
    listed = run.invoke(app, ["dlq", "list", "-c", file, "--reason", "malformed", "--json"])
    assert listed.exit_code == 0, listed.output
    (line,) = listed.output.splitlines()
    letter = json.loads(line)
    assert letter["reason"] == "malformed"
    assert letter["message"].startswith("not JSON")
    shown = json.loads(run.invoke(app, ["dlq", "show", "-c", file, letter["place"]]).output)
    assert (shown["key"], shown["value"], shown["stage"]) == ("1", "{", "decode")
    table = run.invoke(app, ["dlq", "list", "-c", file, "--limit", "3"], env={"COLUMNS": "300"})
    assert f"3 of {GOOD + 2}" in table.output
    narrow = run.invoke(app, ["dlq", "list", "-c", file], env={"COLUMNS": "40"}).output
    for at in re.findall(r"^(\S+\[\d+\]@\d+)  ", narrow, re.MULTILINE)[:2]:
        assert json.loads(run.invoke(app, ["dlq", "show", "-c", file, at]).output)["place"] == at
    for wrong, why in {
        "--reason nope": "--reason nope: there are decode, ",
        "--topic nope": f"--topic nope: dead letters come from {stage.topics['actions']}, ",
        "--offsets 5-2": "--offsets 5-2: the first one comes first, like 2-5",
    }.items():
        for words in (["list"], ["replay", "--dry-run"]):
            with pytest.raises(ConfigError, match=f"^{re.escape(why)}"):
                run.invoke(app, ["dlq", *words, "-c", file, *wrong.split()], catch_exceptions=False)
    with pytest.raises(ConfigError, match=f"^nope: dead letters lie in {stage.topics['dead_letters']}"):
        run.invoke(app, ["dlq", "show", "-c", file, "nope[0]@1"], catch_exceptions=False)
    assert run.invoke(app, ["dlq", "list", "-c", file, "--since", "0s", "--json"]).output == ""
    assert run.invoke(app, ["dlq", "show", "-c", file, letter["place"] + "99"]).exit_code != 0


def sent_back(stage: Stage) -> list[tuple[bytes | None, bytes | None, str]]:
    """What a `read_committed` consumer sees of replays in the actions' topic: key, value, and where it was."""
    reader = CommittedReader(stage.config().kafka, Connection(threading.Event()), stage.topics["actions"], 30)
    found = []
    for records in reader.to_end():
        for record in records:
            headers = dict(record.headers() or [])
            if REPLAYED_FROM in headers:
                assert headers["trace"] == b"\x00\xff"
                found.append((record.key(), record.value(), (headers[REPLAYED_FROM] or b"").decode()))
    return found


def test_replayed_once_scored_once_as_of_their_own_time(
    stage: Stage,
    dead: Sequence[dict[str, Any]],
    truth: dict[str, float],
    scorer_encoder: Encoder,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    file = str(stage.file(tmp_path_factory.mktemp("dlq")))
    topic = stage.topics["actions"]

    def replay_them(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["dlq", "replay", "-c", file, *words])
        return result.exit_code, result.output

    assert replay_them("--all", "--dry-run")[1].startswith(f"would be sent to {topic}: 1 (malformed)\n")
    assert sent_back(stage) == []
    status, told = replay_them("--reason", "too_large", "--limit", "10")
    assert status == 1
    assert f"sent to {topic}: 10 (too_large)\n" in told
    assert re.search(r"cannot be sent: \S+: it was cut: value_bytes 200000\nleft to the next replay: 20;", told)
    status, told = replay_them("--reason", "too_large")
    assert f"sent to {topic}: 20 (too_large)\nsent back by an earlier replay: 10\n" in told
    status, told = replay_them("--reason", "too_large")
    assert told.startswith(f"sent back by an earlier replay: {GOOD}\ncannot be sent: ")
    assert replay_them("--topic", stage.topics["users"]) == (0, "no such dead letters\n")
    again = sent_back(stage)
    assert sorted(value or b"" for _, value, _ in again) == sorted(json.dumps(action).encode() for action in dead)
    for number in range(PARTITIONS):  # in the order in which they lay there
        origins = [int(at.partition("@")[2]) for *_, at in again if f"[{number}]" in at]
        assert origins == sorted(origins)

    with running(stage.config(), scorer_encoder):
        found = stage.collect(GOOD, GOOD + 3)  # and the marker of each transaction
    letters, _ = find_letters(*found_by(stage), LetterFilter(), 100)
    assert [letter.reason for letter in letters if not letter.replayed_ms and not letter.cut] == ["malformed"]
    check(found, {action["request_id"]: truth[action["request_id"]] for action in dead})
    # One that is still refused is a dead letter of its own, which can be sent back, too.
    (malformed,) = [letter for letter in letters if letter.reason == "malformed"]
    assert malformed.origin
    _, partition, offset = malformed.origin
    words = ("--topic", topic, "--partition", str(partition), "--offsets", str(offset))
    assert replay_them(*words) == (0, f"sent to {topic}: 1 (malformed)\n")
    with running(stage.config(), scorer_encoder):
        wait_until(
            lambda: find_letters(*found_by(stage), LetterFilter(reasons={"malformed"}), 9)[1] == 2,
            "it is refused again",
        )
    old, new = find_letters(*found_by(stage), LetterFilter(reasons={"malformed"}), 9)[0]
    assert (bool(old.replayed_ms), new.replayed_ms) == (True, 0)
    assert old.origin != new.origin
    table = CliRunner().invoke(app, ["dlq", "list", "-c", file], env={"COLUMNS": "300"}).output
    assert table.count("replayed 20") == GOOD + 1
    before = sent_back(stage)
    with pytest.raises(ConfigError, match="say which"):
        CliRunner().invoke(app, ["dlq", "replay", "-c", file], catch_exceptions=False)
    assert sent_back(stage) == before


def test_replays_that_die_or_meet_send_nothing_twice(
    stage: Stage, dead: Sequence[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.dlq.replay.BATCH_RECORDS", 7)
    wanted = LetterFilter(reasons={"too_large"})
    config, topics = found_by(stage)

    class Death(Exception):
        pass

    for point in ("start", "read", "begin", "records", "marker", "commit"):

        def die(step: str, point: str = point) -> None:
            if step == point:
                raise Death

        with pytest.raises(Death):
            replay(config, topics, wanted, limit=100, step=die)
    assert len(sent_back(stage)) == 7  # of the one that died after it had committed
    met: list[ReplayOutcome] = []

    def meet(step: str) -> None:
        if step == "marker" and not met:
            met.append(replay(config, topics, wanted, limit=100))

    with pytest.raises(TransactionFatal, match="another replay has begun"):
        replay(config, topics, wanted, limit=100, step=meet)
    assert (len(met[0].sent), met[0].already) == (GOOD - 7, 7)
    assert replay(config, topics, wanted, limit=100).sent == []
    assert sorted(value or b"" for _, value, _ in sent_back(stage)) == sorted(json.dumps(a).encode() for a in dead)


def test_a_scorer_that_reads_what_is_not_committed_gets_no_replay(stage: Stage) -> None:
    with pytest.raises(ConfigError, match="isolation_level"):
        replay(*found_by(stage, isolation_level="read_uncommitted"), LetterFilter(), limit=1)


def test_ages_and_times() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
    assert parse_since("2h", now) == parse_since("2026-01-31T10:00", now) == parse_since("2026-01-31T12:00+02:00", now)
    with pytest.raises(ConfigError, match="--since 'soon' is neither"):
        parse_since("soon", now)
    with pytest.raises(ConfigError, match="write it as"):
        parse_places(["12"])
    assert (parse_offsets("17"), parse_offsets("17-20")) == ((17, 17), (17, 20))
    with pytest.raises(ConfigError, match="neither an offset"):
        parse_offsets("17-")
