"""Where the log of a partition begins to make the state: by what is noted, what history says, what is left of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fixtures.applications import make
from fixtures.jd import jd_topics

from streaming.app.folder import load_app
from streaming.app.topics import TopicNames
from streaming.config import Config
from streaming.errors import ConfigError, LogNotWhole
from streaming.kafka.lineage import OFFSETS_FILE, History, Lineage, Lineages
from streaming.kafka.topics import Span, Topic, Topics

HERE, OTHER = ("user-actions", 0), ("user-actions", 1)
FULL = Span(500, 900)
"""Retention has taken 500 records."""


def lineages(
    folder: Path | None, notes: dict[tuple[str, int], Lineage], names: TopicNames | None = None, **tables: Any
) -> Lineages:
    """Of topics with id `now` and two partitions; what the group has noted is known."""
    names = names or jd_topics()
    topics = SimpleNamespace(
        names=names,
        known={name: Topic("now", 2) for name in names.inputs},
        notes=lambda _: {partition: (0, note.to_text()) for partition, note in notes.items()},
    )
    store = {"history": str(folder) if folder else "", **tables.pop("store", {})}
    made = Lineages(Config(store=store, **tables), cast(Topics, topics))
    made.read_notes()
    return made


def history(folder: Path, reaches: dict[str, int] | None = None) -> Path:
    (folder / "bo_action").mkdir(parents=True)
    (folder / "bo_action" / "part-0.parquet").write_bytes(b"rows")
    if reaches is not None:
        (folder / OFFSETS_FILE).write_text(json.dumps({"user-actions": reaches}))
    return folder


def noted(folder: Path | None, since: int, topic: str = "now") -> Lineage:
    return Lineage(topic, 2, History.read(str(folder) if folder else "").digest, since, topic)


def test_a_log_from_its_beginning_needs_nothing() -> None:
    assert lineages(None, {}).first_offset(HERE, Span(0, 900)) == 0


@pytest.mark.parametrize("since", [None, 0, 499])
def test_what_retention_has_taken_is_missed(since: int | None) -> None:
    notes = {} if since is None else {HERE: noted(None, since)}
    with pytest.raises(LogNotWhole, match=r"user-actions\[0\] begins at offset 500: .* neither history nor a snapshot"):
        lineages(None, notes).first_offset(HERE, FULL)


@pytest.mark.parametrize("since", [500, 600])
def test_a_log_that_is_as_it_was_noted_is_whole(since: int) -> None:
    assert lineages(None, {HERE: noted(None, since)}).first_offset(HERE, FULL) == since


@pytest.mark.parametrize("allowed", [{"store": {"windows_may_start_empty": True}}, {"kafka": {"begin_anew": True}}])
def test_what_is_allowed_is_noted_from_then_on(allowed: dict[str, Any]) -> None:
    state = lineages(None, {HERE: noted(None, 0)}, **allowed)
    assert state.first_offset(HERE, FULL) == 500
    assert state.now(HERE).since == 500
    assert state.unnoted({HERE: 700}) == {HERE: 700}


@pytest.mark.parametrize(("reaches", "begins"), [(500, 500), (650, 650), (900, 900)])
def test_history_that_says_up_to_where_it_reaches_is_read_on_from_there(
    tmp_path: Path, reaches: int, begins: int
) -> None:
    folder = history(tmp_path / "history", {"0": reaches})
    assert lineages(folder, {HERE: noted(None, 0)}).first_offset(HERE, FULL) == begins
    assert lineages(folder, {}).first_offset(HERE, Span(0, 900)) == begins  # an overlap counts nothing twice


@pytest.mark.parametrize(("reaches", "words"), [(499, "history reaches to 499"), (901, "the topic to 900")])
def test_history_that_reaches_too_short_or_too_far_is_refused(tmp_path: Path, reaches: int, words: str) -> None:
    folder = history(tmp_path / "history", {"0": reaches})
    with pytest.raises(LogNotWhole, match=words):
        lineages(folder, {}).first_offset(HERE, FULL)


def test_history_that_says_nothing_is_believed_by_a_new_group_only(tmp_path: Path) -> None:
    folder = history(tmp_path / "history")
    assert lineages(folder, {}).first_offset(HERE, FULL) == 500
    for note in (noted(None, 0), noted(folder, 0)):
        with pytest.raises(LogNotWhole, match="does not say that it has them"):
            lineages(folder, {HERE: note}).first_offset(HERE, FULL)


def test_files_that_are_no_data_change_no_history(tmp_path: Path) -> None:
    folder = history(tmp_path / "history")
    before = History.read(str(folder)).digest
    for name in (".DS_Store", "_SUCCESS", "bo_action/.part-0.parquet.crc"):
        (folder / name).write_bytes(b"?")
    assert History.read(str(folder)).digest == before
    (folder / "bo_action" / "part-1.parquet").write_bytes(b"more")
    assert History.read(str(folder)).digest != before


def test_what_history_says_of_a_former_topic_is_not_said_of_the_one_that_is_there(tmp_path: Path) -> None:
    folder = history(tmp_path / "history", {"0": 400, "1": 400})
    former = {("users", 0): noted(folder, 0, "former")}
    with pytest.raises(LogNotWhole, match="was deleted and made anew"):
        lineages(folder, former)
    anew = lineages(folder, former, kafka={"begin_anew": True})
    assert anew.first_offset(HERE, Span(0, 900)) == 0
    # A peer that need not be told, while only one of two partitions is noted yet.
    assert lineages(folder, {HERE: noted(folder, 0)}).first_offset(OTHER, Span(0, 900)) == 0


def test_partitions_that_were_added_are_refused_until_somebody_has_let_them() -> None:
    before = Lineage("now", 1, "", 0, "now")
    with pytest.raises(LogNotWhole, match="had 1 partitions and has 2"):
        lineages(None, {HERE: before})
    lineages(None, {HERE: before}, kafka={"begin_anew": True})
    lineages(None, {HERE: before, OTHER: noted(None, 0)})


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> TopicNames:
    """An application of two topics of events: `paid` is scored, `card_rows` is read by partition with it."""
    return TopicNames.of(load_app(make(tmp_path_factory.mktemp("apps") / "app")), {})


def of_two(paid: str, cards: str, topic: str = "now", partitions: int = 2, history: str = "") -> Lineage:
    return Lineage(topic, partitions, history, 0, f"{paid},{cards}")


def test_each_topic_of_events_is_told_by_the_notes_on_the_others(two: TopicNames) -> None:
    """Kafka has forgotten the offsets of the one that was deleted."""
    paid, cards = ("paid", 0), ("card_rows", 1)
    lineages(None, {paid: of_two("now", "now"), cards: of_two("now", "now")}, two)
    with pytest.raises(LogNotWhole, match="topic 'card_rows' was deleted and made anew"):
        lineages(None, {paid: of_two("now", "former")}, two)
    with pytest.raises(LogNotWhole, match="topic 'paid' was deleted and made anew"):
        lineages(None, {cards: of_two("former", "now")}, two)
    # Somebody has let it begin anew, and noted that; `paid` was not committed since.
    lineages(None, {paid: of_two("now", "former"), cards: of_two("now", "now")}, two)
    assert lineages(None, {}, two).now(cards) == of_two("now", "now")


def test_a_note_of_an_application_with_other_streams_says_nothing_of_these(two: TopicNames) -> None:
    before = Lineage("now", 2, "", 0, "now")
    state = lineages(None, {("paid", 0): before}, two)
    assert state.unnoted({("paid", 0): 7}) == {("paid", 0): 7}
    lineages(None, {HERE: of_two("former", "former")})


def test_partitions_that_were_added_to_a_topic_that_asks_nothing_are_refused(two: TopicNames) -> None:
    with pytest.raises(LogNotWhole, match="topic 'card_rows' had 1 partitions and has 2"):
        lineages(None, {("card_rows", 0): of_two("now", "now", partitions=1)}, two)


def test_what_history_says_of_a_topic_holds_where_another_was_made_anew(two: TopicNames, tmp_path: Path) -> None:
    folder = tmp_path / "history"
    folder.mkdir()
    (folder / OFFSETS_FILE).write_text(json.dumps({"paid": {"0": 600}, "card_rows": {"0": 600}}))
    digest = History.read(str(folder)).digest
    notes = {("paid", 1): of_two("now", "former", history=digest)}
    state = lineages(folder, notes, two, kafka={"begin_anew": True})
    assert state.first_offset(("paid", 0), FULL) == 600
    assert state.first_offset(("card_rows", 0), Span(0, 900)) == 0


@pytest.mark.parametrize(
    "text", ["", "7", "{", '{"since": 1}', '{"topic_id": 1, "partitions": 1, "history": "", "since": 0}']
)
def test_a_note_of_somebody_else_says_nothing(text: str) -> None:
    assert Lineage.from_text(text) is None


@pytest.mark.parametrize(
    "text", ["[]", '{"user-actions": 7}', '{"user-actions": {"x": 7}}', '{"user-actions": {"0": -1}}', "{"]
)
def test_offsets_of_another_form_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / OFFSETS_FILE).write_text(text)
    with pytest.raises(ConfigError, match=OFFSETS_FILE):
        History.read(str(tmp_path))
