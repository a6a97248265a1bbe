"""What became of scores, beside the batch side's labels of the same world; AUC; what must not be taken for known."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fixtures import applications
from fixtures.jd import jd, jd_decoder, jd_topics
from fixtures.records import Fake
from places import SQL
from sklearn.metrics import roc_auc_score

from batch.dataset.label import epoch_ms, events_of, later_event
from batch.features.history import table_rows
from batch.world.generate import generate_world
from batch.world.replays import replays_of
from streaming.app.folder import App, load_app
from streaming.app.inputs import InputDecoder
from streaming.app.later_event import horizon_of
from streaming.app.scores import score_encoder
from streaming.app.topics import TopicNames
from streaming.board.decoding import Raw
from streaming.board.fields import score_fields
from streaming.board.label_follower import Reached
from streaming.board.labels import NO_KEY, NoLabels, find_labels
from streaming.board.outcomes import CLASS_MIN, Outcome, Outcomes, scores_kept
from streaming.board.pairs import Pairs
from streaming.config import Events
from streaming.events.batch import EventBatch
from streaming.events.record import Record

DAY_MS = 86_400_000
T0 = 1_459_000_000_000


@dataclass
class Followed:
    """A board's scores and labels, fed by hand.

    Attributes:
        names: of the requests that were scored, in their order.
    """

    app: App
    decoder: InputDecoder
    pairs: Pairs
    outcomes: Outcomes
    names: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, app: App, scores_max: int = 100_000) -> Followed:
        topics = TopicNames.of(app, {})
        pairs, outcomes = scores_kept(app, topics, score_fields(app), scores_max)
        return cls(app, InputDecoder(app, Events(), topics), pairs, outcomes)

    def decoded(self, records: list[Record]) -> EventBatch:
        events, refused = self.decoder.decode(records, replayed=True)
        assert not refused, refused[0][1]
        return events

    def score(self, events: EventBatch, probabilities: Any) -> None:
        """Scores of events, as the scorer writes them."""
        probabilities = np.asarray(probabilities, np.float32)
        values = [value for _, value, _ in score_encoder(self.app)(events, probabilities, "1")]
        first = len(self.names)
        self.pairs.add([Raw(value, T0, 0, first + n) for n, value in enumerate(values)])
        ids = events.rows[self.app.main].column(self.app.settings.request.id).to_pylist()
        self.names += [str(name) for name in ids]

    def labels(self) -> dict[str, int | None]:
        """Of the scores that are kept the label, by the request's name; None: not known yet."""
        self.outcomes.compute()
        first = max(0, len(self.names) - self.pairs.scores_max)
        found = {}
        for number in range(first, len(self.names)):
            outcome = self.outcomes.of(number)
            assert outcome is not None
            found[self.names[number]] = outcome.label
        return found


def actions(*rows: tuple[str, int, str]) -> list[Record]:
    """(pair, day, type) as records of the shop's actions."""
    found: list[Record] = []
    for number, (pair, at, kind) in enumerate(rows):
        user, sku = pair.split("_")
        row = {"user_id": user, "sku_id": sku, "time": T0 + at, "type": kind, "model_id": "0", "cate": "8", "br": "1"}
        found.append(Fake(user.encode(), json.dumps(row).encode(), place=("user-actions", 0, number), written_ms=-1))
    return found


# ── the batch side's labels ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Batch:
    """A generated world: its events in the order of their times, and the label of each request."""

    records: list[Record]
    labels: dict[str, int]
    times: dict[str, int]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    out = tmp_path_factory.mktemp("world") / "data"
    made = generate_world(out, 60, 5, 40)
    app = jd()
    later = app.settings.label.later_event
    assert later is not None
    rows, true = events_of(app, later, out)
    orders = rows.filter(pa.array(true))
    requests = pa.concat_tables(table_rows(app, out, app.main, ["reqId", "eventTime", "pair_id"]))
    times = epoch_ms(requests["eventTime"])
    label = later_event(
        [requests["pair_id"]], times, [orders["pair_id"]], epoch_ms(orders["ingestionTime"]), 5 * DAY_MS
    )
    replay = replays_of(app, out).period(out, 0, made.end_ms)
    assert not replay.spread
    records: list[Record] = [
        Fake(event.key, event.value, place=("user-actions", 0, number), written_ms=-1)
        for number, event in enumerate(replay.events)
    ]
    names = requests["reqId"].to_pylist()
    of = dict(zip(names, label.tolist(), strict=True))
    assert 20 < sum(of.values()) < len(of)
    return Batch(records, of, dict(zip(names, times.tolist(), strict=True)))


@pytest.mark.parametrize("order", ["as they come", "scores first", "labels first", "in any order"])
@pytest.mark.parametrize("scores_max", [1_000_000, 700])
def test_labels_are_those_of_the_batch_side_for_every_score(world: Batch, order: str, scores_max: int) -> None:
    followed = Followed.of(jd(), scores_max)
    parts = [followed.decoded(world.records[at : at + 97]) for at in range(0, len(world.records), 97)]
    if order == "in any order":
        random.Random(3).shuffle(parts)
    last = max(int(part.times.max()) for part in parts)
    numbers = np.random.default_rng(1)
    for part in parts if order == "labels first" else ():
        followed.outcomes.take(part)
    for number, part in enumerate(parts):
        followed.score(part, numbers.random(len(part)))
        if order in ("as they come", "in any order"):
            followed.outcomes.take(part)
            if number % 10 == 0:  # what was computed between makes no difference
                followed.outcomes.compute()
    for part in parts if order == "scores first" else ():
        followed.outcomes.take(part)
    followed.outcomes.reach(last, loaded=True)
    found = followed.labels()
    compared = [name for name in found if name in world.labels]
    assert len(compared) >= min(len(found), 300)
    for name in compared:
        over = world.times[name] + 5 * DAY_MS <= last
        assert found[name] == (1 if world.labels[name] else 0 if over else None), name
    kinds = {found[name] for name in compared}
    assert kinds >= {0, 1} if scores_max > 700 else kinds


def test_the_auc_is_that_of_the_batch_labels(world: Batch) -> None:
    followed = Followed.of(jd())
    events = followed.decoded(world.records)
    # Many ties: they count half.
    probabilities = np.random.default_rng(4).integers(0, 9, len(events)) / 10
    followed.score(events, probabilities)
    followed.outcomes.take(events)
    last = int(events.times.max())
    followed.outcomes.reach(last, loaded=True)
    known = {name: label for name, label in followed.labels().items() if label is not None}
    of = dict(zip(followed.names, probabilities.astype(np.float32), strict=True))
    figures = followed.outcomes.figures
    assert (figures.matured, figures.positives) == (len(known), sum(known.values()))
    assert figures.auc == pytest.approx(roc_auc_score([*known.values()], [of[name] for name in known]), abs=1e-9)
    assert None not in (figures.low, figures.auc, figures.high)
    assert 0 < (figures.low or 0) < (figures.auc or 0) < (figures.high or 0) < 1
    assert figures.known_to == last


def bank(tmp_path: Path, **changes: tuple[str, str]) -> App:
    return load_app(applications.make(tmp_path / "app", **changes))


TOLD = ("app", ('payment = "id"', 'payment = "id"\ncard = "card"\nat = "at"'))


def test_labels_of_an_application_whose_scores_tell_key_and_time(tmp_path: Path) -> None:
    app = bank(tmp_path, **dict([TOLD]))
    followed = Followed.of(app)
    draw = random.Random(7)
    payments = [
        {
            "number": draw.randrange(6),
            "moment": T0 + draw.randrange(40) * 3_600_000,
            "cents": draw.randrange(1, 110_000),
        }
        for _ in range(300)
    ]
    records: list[Record] = [
        Fake(
            str(one["number"]).encode(),
            json.dumps({**one, "reference": f"p{n}"}).encode(),
            place=("paid", 0, n),
            written_ms=-1,
        )
        for n, one in enumerate(payments)
    ]
    events = followed.decoded(records)
    followed.score(events, np.linspace(0, 1, len(events)))
    followed.outcomes.take(events)
    last = max(one["moment"] for one in payments)
    followed.outcomes.reach(last, loaded=True)
    hours = horizon_of(app)
    for number, (name, label) in enumerate(followed.labels().items()):
        one = payments[number]
        after = [
            other["moment"] - one["moment"]
            for other in payments
            if other["number"] == one["number"]
            and other["cents"] > 100_000
            and 0 < other["moment"] - one["moment"] <= hours
        ]
        expected = 1 if after else 0 if one["moment"] + hours <= last else None
        assert (name, label) == (f"p{number}", expected)
        outcome = followed.outcomes.of(number)
        assert outcome == Outcome(expected, min(after) if after else None)


# ── when a label is known ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_score_matures_by_the_time_of_events_or_by_its_order() -> None:
    followed = Followed.of(jd())
    events = followed.decoded(actions(("1_1", 0, "1"), ("1_2", 0, "1"), ("2_1", 1, "1")))
    followed.score(events, [0.5, 0.6, 0.7])
    followed.outcomes.take(events)
    assert [*followed.labels().values()] == [None, None, None]
    assert followed.outcomes.figures.known_to is None
    followed.outcomes.take(followed.decoded(actions(("1_2", 7, "4"))))
    followed.outcomes.reach(T0 + 5 * DAY_MS - 1, loaded=True)
    assert [*followed.labels().values()] == [None, 1, None]
    assert followed.outcomes.of(1) == Outcome(1, 7)
    followed.outcomes.reach(T0 + 5 * DAY_MS, loaded=True)
    assert [*followed.labels().values()] == [0, 1, None]
    followed.outcomes.reach(T0, loaded=True)  # an event of before takes nothing back
    assert [*followed.labels().values()] == [0, 1, None]
    # One that comes late counts all the same; at the moment of the request it does not, behind the horizon neither.
    late = actions(("2_1", 1, "4"), ("2_1", 5 * DAY_MS + 2, "4"), ("1_1", 5 * DAY_MS, "4"))
    followed.outcomes.take(followed.decoded(late))
    assert [*followed.labels().values()] == [1, 1, None]


def test_too_few_of_a_class_are_no_auc() -> None:
    followed = Followed.of(jd())
    count = CLASS_MIN - 1
    requests = followed.decoded(actions(*((f"{n}_1", 0, "1") for n in range(30))))
    followed.score(requests, np.linspace(0.1, 0.9, 30))
    followed.outcomes.take(followed.decoded(actions(*((f"{n}_1", 5, "4") for n in range(count)))))
    followed.outcomes.reach(T0 + 6 * DAY_MS, loaded=True)
    followed.outcomes.compute()
    figures = followed.outcomes.figures
    assert (figures.matured, figures.positives, figures.auc) == (30, count, None)
    followed.outcomes.take(followed.decoded(actions((f"{count}_1", 5, "4"))))
    followed.outcomes.compute()
    assert followed.outcomes.figures.auc == 0.0  # they were the least likely


def test_labels_are_known_as_far_as_every_partition_is_read() -> None:
    def events(*of: tuple[int, int]) -> EventBatch:
        records: list[Record] = [Fake(b"", b"", place=("t", partition, n)) for n, (partition, _) in enumerate(of)]
        return EventBatch(records, np.array([at for _, at in of], np.int64), [None] * len(of))

    reached = Reached()
    zero, one = ("t", 0), ("t", 1)
    assert reached.until([zero, one]) is None
    assert reached.until([]) is None
    reached.see(events((0, 50), (0, 40)))
    assert reached.until([zero, one]) is None  # of the other nothing is known
    assert reached.until([zero]) == reached.until([]) == 50
    reached.see(events((1, 10)))
    assert (reached.until([zero, one]), reached.until([one]), reached.until([])) == (10, 10, 50)


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_many_events_those_are_kept_that_can_label_a_score() -> None:
    topics, fields = jd_topics(), score_fields(jd())
    labels = find_labels(jd(), topics, fields)
    pairs = Pairs(fields, 1000, keys=labels.keys)
    followed = Followed(jd(), jd_decoder(), pairs, Outcomes(labels, pairs, events_max=100))
    requests = followed.decoded(actions(("1_1", 10_000, "1"), ("2_2", 10_000, "1"), ("3_3", 20_000, "1")))
    followed.score(requests, [0.5] * 3)
    followed.outcomes.take(followed.decoded(actions(("1_1", 10_005, "4"))))
    for n in range(20):  # orders from before any score that is kept
        followed.outcomes.take(followed.decoded(actions(*((f"9{n}_{at}", n, "4") for at in range(50)))))
    followed.outcomes.reach(T0 + 6 * DAY_MS, loaded=True)
    assert [*followed.labels().values()] == [1, 0, 0]
    for n in range(4):  # more than are kept: what was forgotten is not taken for what never was
        rows = ((f"9{n}_{at}", 15_000 + 50 * n + at, "4") for at in range(50))
        followed.outcomes.take(followed.decoded(actions(*rows)))
    assert [*followed.labels().values()] == [None, None, 0]


def test_what_retention_took_is_not_taken_for_what_never_was() -> None:
    followed = Followed.of(jd())
    followed.score(followed.decoded(actions(("1_1", 0, "1"), ("2_2", 20, "1"))), [0.5, 0.5])
    followed.outcomes.begins(T0 + 10)
    followed.outcomes.reach(T0 + 6 * DAY_MS, loaded=True)
    assert [*followed.labels().values()] == [None, 0]


def test_a_score_of_another_program_has_no_label_and_hinders_none(tmp_path: Path) -> None:
    followed = Followed.of(bank(tmp_path, **dict([TOLD])))
    assert followed.outcomes.labels is not None
    score = {"payment": "a", "at": T0, "risk": 0.5}
    values = [{**score, "card": 1}, {**score, "card": "x"}, score, {**score, "card": 1, "at": "now"}]
    followed.pairs.add([Raw(json.dumps(value).encode(), 0, 0, n) for n, value in enumerate(values)])
    assert (followed.pairs.received, followed.pairs.unreadable) == (3, 1)
    keys = find_labels(jd(), jd_topics(), score_fields(jd())).keys
    codes = keys([("1", "2"), ("1", 2), (None, "2"), ("1", "2"), ("12", "")]).tolist()
    assert codes[0] == codes[3] != codes[4]
    assert codes[1] == codes[2] == NO_KEY


# ── where there are none ─────────────────────────────────────────────────────────────────────────────────────────────


def test_an_application_without_labels_on_kafka_says_why(tmp_path: Path) -> None:
    def why(app: App) -> str:
        with pytest.raises(NoLabels) as told:
            find_labels(app, TopicNames.of(app, {}), score_fields(app))
        return str(told.value)

    assert why(load_app(SQL / "talkingdata")) == "labels are not on Kafka"
    assert why(bank(tmp_path)) == "scores do not tell the request's time, from which labels count"
    only_time = ("app", ('payment = "id"', 'payment = "id"\nat = "at"'))
    assert why(bank(tmp_path, **dict([only_time]))) == "scores do not tell card, by which labels are found"
    pairs, outcomes = scores_kept(load_app(SQL / "talkingdata"), *_parts(load_app(SQL / "talkingdata")), 100)
    outcomes.start()
    outcomes.stop()
    assert (outcomes.figures.missing, outcomes.of(0), pairs.received) == ("labels are not on Kafka", None, 0)
    assert outcomes.loaded


def _parts(app: App) -> tuple[TopicNames, Any]:
    return TopicNames.of(app, {}), score_fields(app)
