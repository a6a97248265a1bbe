"""How topics are called at the brokers: an application's own names, and those that a configuration says instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fixtures.applications import make
from fixtures.jd import jd
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.app.configured import application, configured_app
from streaming.app.folder import App, load_app
from streaming.app.topics import TopicNames
from streaming.app.wrong import WrongApp
from streaming.config import ENV_PREFIX, Config, load
from streaming.errors import ConfigError

KEYS = ("actions", "users", "products", "comments", "scores", "dead_letters")
OWN = {
    "actions": "user-actions",
    "users": "users",
    "products": "products",
    "comments": "comments",
    "scores": "purchase-scores",
    "dead_letters": "user-actions.dlq",
}


@pytest.fixture(scope="module")
def payments(tmp_path_factory: pytest.TempPathFactory) -> App:
    """Two streams: one is scored, the other read by partition with it; no dimension."""
    return load_app(make(tmp_path_factory.mktemp("apps") / "app"))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), st.text(alphabet="ab", min_size=1, max_size=3)))
def test_what_is_named_is_called_so_and_the_rest_by_its_own_name(named: dict[str, str]) -> None:
    names = {**OWN, **named}
    if len(set(names.values())) < len(names):
        with pytest.raises(ConfigError, match=r"^kafka\.topics\.\w+: topic "):
            TopicNames.of(jd(), named)
        return
    topics = TopicNames.of(jd(), named)
    assert topics.events == topics.scored == (names["actions"],)
    assert topics.dimensions == (names["users"], names["products"], names["comments"])
    assert topics.inputs == topics.events + topics.dimensions
    assert (topics.scores, topics.dead_letters) == (names["scores"], names["dead_letters"])
    assert {topic: stream.name for topic, stream in topics.streams.items()} == {
        names[stream]: stream for stream in KEYS[:4]
    }
    assert topics.keys == {name: f"kafka.topics.{key}" for key, name in names.items()}


def test_a_stream_that_is_read_by_partition_is_one_of_the_events_after_those_that_are_scored(payments: App) -> None:
    topics = TopicNames.of(payments, {"card_rows": "cards.v2"})
    assert topics.events == ("paid", "cards.v2")
    assert topics.scored == ("paid",)
    assert topics.dimensions == ()
    assert (topics.scores, topics.dead_letters) == ("scores", "paid.dlq")


@pytest.mark.parametrize("key", ["clicks", "user-actions", "Actions", "", "bo_action", "dead-letters"])
def test_a_key_that_is_none_of_the_applications_is_refused_with_those_that_are(key: str) -> None:
    with pytest.raises(ConfigError) as told:
        TopicNames.of(jd(), {key: "x"})
    assert str(told.value) == f"kafka.topics.{key}: application jd has {', '.join(KEYS)}"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"users": "user-actions"}, "kafka.topics.users: topic 'user-actions' is kafka.topics.actions, too"),
        ({"actions": "x", "scores": "x"}, "kafka.topics.scores: topic 'x' is kafka.topics.actions, too"),
        ({"actions": "purchase-scores"}, "kafka.topics.scores: topic 'purchase-scores' is kafka.topics.actions, too"),
        ({"dead_letters": "comments"}, "kafka.topics.dead_letters: topic 'comments' is kafka.topics.comments, too"),
    ],
)
def test_two_topics_of_one_name_are_refused(named: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as told:
        TopicNames.of(jd(), named)
    assert str(told.value) == message


def test_names_may_be_exchanged() -> None:
    topics = TopicNames.of(jd(), {"users": "products", "products": "users"})
    assert (topics.streams["products"].name, topics.streams["users"].name) == ("users", "products")


def test_a_configuration_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "scorer.toml"
    file.write_text('[kafka.topics]\nactions = "of-the-file"\nusers = "u"\n')
    monkeypatch.setenv(f"{ENV_PREFIX}KAFKA__TOPICS__ACTIONS", "of-the-environment")
    monkeypatch.setenv(f"{ENV_PREFIX}KAFKA__TOPICS__DEAD_LETTERS", "dead")
    _, topics = application(load(file))
    assert topics.events == ("of-the-environment",)
    assert topics.dimensions == ("u", "products", "comments")
    assert topics.dead_letters == "dead"


def test_a_name_without_letters_is_refused_by_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "scorer.toml"
    file.write_text('[kafka.topics]\nactions = ""\n')
    with pytest.raises(ConfigError, match=r"kafka\.topics\.actions: String should have at least 1 character"):
        load(file)


def test_the_configured_application_is_in_the_database_and_of_the_name_that_store_says(tmp_path: Path) -> None:
    folder = make(tmp_path / "app")
    assert configured_app(Config(app=str(folder))) == load_app(folder)
    other = configured_app(Config(app=str(folder), store={"database": "bank", "deployment": "risk"}))
    assert (other.tables.database, other.settings.deployment.name) == ("bank", "risk")
    assert other.digest == load_app(folder).digest
    with pytest.raises(WrongApp, match="there is no such folder"):
        configured_app(Config(app=str(tmp_path / "none")))


def test_the_programs_own_applications_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert configured_app(Config()).digest == jd().digest
    make(tmp_path / "sql")  # a folder sql, but none of that name in it
    assert configured_app(Config()).digest == jd().digest
    own = make(tmp_path / "sql" / "jd")
    assert configured_app(Config()).settings.name == load_app(own).settings.name == "payments"


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), st.text(alphabet="a._ é/", min_size=1, max_size=4)))
def test_names_that_kafka_would_refuse_are_refused(named: dict[str, str]) -> None:
    names = {**OWN, **named}
    taken = all(re.fullmatch(r"[a-zA-Z0-9._-]+", name) and name not in (".", "..") for name in names.values())
    apart = len({name.replace(".", "_") for name in names.values()}) == len(names)
    if taken and apart:
        assert TopicNames.of(jd(), named).scores == names["scores"]
    else:
        with pytest.raises(ConfigError, match=r"^kafka\.topics\.\w+: topic "):
            TopicNames.of(jd(), named)
