"""Chaos itself: its verdict sees what is wrong, no refusal passes without a cause; and a short run of it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fixtures.scorer import Shop, Stage

from rigs.chaos import KINDS, LAST, chaos
from rigs.harms import Harms
from rigs.scorers import NOT_WHOLE, Rig, Slot, Subscriber
from rigs.traffic import Archive, Failed, Traffic, Upstream
from rigs.verdict import Epoch, Verdict, judge
from streaming.model.encoder import Encoder

HARMFUL = "upstream|log|group|topic|partitions"


@pytest.fixture
def archive(stage: Stage, shop: Shop) -> Iterator[Archive]:
    """Of a hundred actions that were sent."""
    stage.send_shop(Shop(shop.actions[:100], shop.users, shop.products, shop.comments))
    archive = Archive(stage)
    archive.wait(dict(enumerate(stage.ends())))
    yield archive
    archive.close()


def nothing(*_: Any) -> None:
    pass


def loses_one(scores: dict[Any, Any], *_: Any) -> None:
    scores.popitem()


def changes_one(scores: dict[Any, Any], *_: Any) -> None:
    place, (name, probability) = scores.popitem()
    scores[place] = name, probability + 1e-6


def swaps_two(scores: dict[Any, Any], *_: Any) -> None:
    (one, of_one), (two, of_two) = scores.popitem(), scores.popitem()
    scores |= {one: of_two, two: of_one}


def scores_what_is_not_there(scores: dict[Any, Any], *_: Any) -> None:
    scores[0, "actions[0]@77777"] = "e0-r1", 0.5


def scores_an_aborted_one(scores: dict[Any, Any], upstream: Upstream, _: Traffic) -> None:
    upstream.aborted.add(next(iter(scores.values()))[0])


def archive_lacks_one(_: dict[Any, Any], __: Upstream, traffic: Traffic) -> None:
    traffic.acknowledged.add("e0-r99999")


WRONG: dict[Callable[..., None], dict[str, int]] = {
    nothing: {},
    loses_one: {"lost": 1},
    changes_one: {"wrong": 1},
    swaps_two: {"wrong": 2},
    scores_what_is_not_there: {"wrong": 1},
    scores_an_aborted_one: {"wrong": 1},
    archive_lacks_one: {"lost": 1},
}


def test_the_verdict_sees_what_is_wrong(
    stage: Stage, shop: Shop, scorer_encoder: Encoder, truth: dict[str, float], archive: Archive
) -> None:
    nobody = cast("Any", None)
    rig = Rig(Path(), stage, scorer_encoder, nobody, nobody, shop)
    traffic = Traffic(stage, 1, seed=1)
    for harm, found in WRONG.items():
        traffic.acknowledged.clear()
        upstream, subscriber = Upstream(stage, traffic, 1, seed=1), Subscriber(stage, traffic)
        for records in archive.records.values():
            for record in records:
                name = json.loads(record.value() or b"")["request_id"]
                subscriber.scores[0, f"{record.topic()}[{record.partition()}]@{record.offset()}"] = name, truth[name]
        harm(subscriber.scores, upstream, traffic)
        verdict: Verdict = judge(rig, subscriber, [Epoch(0, archive)], traffic, upstream)
        seen = {kind: len(getattr(verdict, kind)) for kind in ("lost", "wrong") if getattr(verdict, kind)}
        assert seen == found, harm.__name__
        assert verdict.clean() == (not found)
        assert verdict.actions == 100


BEGINS = "jd-intent-score: actions[0] begins at offset 50: the records before it are gone, and neither …"


@pytest.mark.parametrize(
    ("refusal", "snapshot", "reaches", "legitimate"),
    [
        (BEGINS, None, {}, True),
        (BEGINS, 49, {}, True),
        (BEGINS, 50, {}, False),
        (BEGINS, None, {0: 49}, True),
        (BEGINS, None, {0: 50}, False),
        (BEGINS.replace("50", "40"), None, {}, False),
        (BEGINS.replace("actions[0]", "actions[1]"), None, {}, False),
        (BEGINS.replace("actions[0]", "users[0]"), None, {}, False),
        ("jd-intent-score: topic 'actions' was deleted and made anew since …", None, {}, False),
        ("jd-intent-score: group 'group-x' has no offset of actions[0], but the …", None, {}, False),
    ],
    ids=[
        "nothing held",
        "a snapshot that ends before",
        "a snapshot",
        "history that ends before",
        "history",
        "not trimmed so far",
        "another partition",
        "another topic",
        "another harm",
        "yet another",
    ],
)
def test_a_refusal_needs_a_cause(
    tmp_path: Path, refusal: str, snapshot: int | None, reaches: dict[int, int], legitimate: bool
) -> None:
    assert NOT_WHOLE.search(refusal)
    if snapshot is not None:
        home = tmp_path / "one" / "snapshot-000001"
        home.mkdir(parents=True)
        stands = {"made_at": 1.0, "actions": [["actions", 0, snapshot]]}
        (home / "manifest.json").write_text(json.dumps({"snapshot": stands}))
    stage = SimpleNamespace(bootstrap="127.0.0.1:1", topics={"actions": "actions"}, name="x")
    nobody = cast("Any", None)
    harms = Harms(
        cast("Rig", SimpleNamespace(stage=stage)),
        cast("Any", SimpleNamespace(snapshots=tmp_path)),
        nobody,
        nobody,
        nobody,
        random.Random(1),
        [Epoch(0, nobody, lows={0: 50, 1: 0})],
        _low_marks={(0, 50)},
        _reaches=reaches,
    )
    slot = Slot("one", Path(), 0, nobody, refusal=refusal)
    if legitimate:
        harms._judge(slot)
        assert harms.refusals == {"log trimmed": 1}
        return
    with pytest.raises(Failed, match="without a cause"):
        harms._judge(slot)


@pytest.mark.slow
def test_whatever_is_done_to_log_group_and_topic_every_score_is_right_or_the_reason_is_named(tmp_path: Path) -> None:
    outcome = chaos(tmp_path, 6, seed=2, minutes=20, word=HARMFUL)
    assert outcome.verdict.clean(), outcome.verdict
    assert len({done.kind for done in outcome.rounds}) == 6
    assert outcome.rounds[-1].kind == LAST
    assert outcome.refusals.keys() >= {"group deleted", "topic made anew", "partitions added"}
    assert len(KINDS) == 13
