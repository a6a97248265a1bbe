"""`jd-intent-score dlq` on a real broker, after a real scorer has refused what is in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import pytest
from fixtures_scorer import Shop, Stage, running
from typer.testing import CliRunner

from deploy.kafka.broker import Broker
from streaming.__main__ import app
from streaming.dlq import Filter, find, places, since
from streaming.encode import Encoder
from streaming.errors import ConfigError

GOOD = 30


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
    letters, count = find(stage.config(), Filter(), 100)
    assert count == len(letters) == GOOD + 2
    assert sorted(letter.reason for letter in letters) == ["malformed"] + ["too_large"] * (GOOD + 1)
    assert len({letter.origin for letter in letters}) == GOOD + 2
    assert [letter.cut for letter in letters if letter.cut] == ["value_bytes 200000"]
    assert all(0 <= letter.written_ms - letter.timestamp_ms < 600_000 for letter in letters)
    newest, count = find(stage.config(), Filter(reasons={"too_large"}, topics={stage.topics["actions"]}), 2)
    assert (newest, count) == ([x for x in letters if x.reason == "too_large"][-2:], GOOD + 1)
    assert find(stage.config(), Filter(topics={stage.topics["users"]}), 2) == ([], 0)


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
    assert run.invoke(app, ["dlq", "list", "-c", file, "--since", "0s", "--json"]).output == ""
    assert run.invoke(app, ["dlq", "show", "-c", file, letter["place"] + "99"]).exit_code != 0


def test_ages_and_times() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
    assert since("2h", now) == since("2026-01-31T10:00", now) == since("2026-01-31T12:00+02:00", now)
    with pytest.raises(ConfigError, match="--since 'soon' is neither"):
        since("soon", now)
    with pytest.raises(ConfigError, match="write it as"):
        places(["12"])
