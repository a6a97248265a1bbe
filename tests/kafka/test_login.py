"""What Kafka refuses is said at once and by name: the login, the protocol, each single right."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from confluent_kafka import KafkaError
from fixtures.jd import jd, jd_topics
from fixtures.scorer import Shop, Stage, loaded_store, running, wait_until
from fixtures.secured import PASSWORD, Secured
from places import REPOSITORY

from streaming.app.configured import application
from streaming.app.topics import TopicNames
from streaming.cli.send import send_and_wait
from streaming.config import Config, Kafka
from streaming.dlq.letters import LetterFilter, find_letters
from streaming.dlq.replay import replay
from streaming.errors import LoginRefused, NotAllowed
from streaming.kafka import login as login_module
from streaming.kafka.connection import Connection
from streaming.kafka.login import Login, ask
from streaming.kafka.producer import Publisher
from streaming.kafka.rights import Right, check_topics, named, of_letters, of_replay, of_run, of_send, of_serve
from streaming.loop import run
from streaming.model.encoder import Encoder
from streaming.predict.state_replica import Follower

WRONG = {"sasl_password": "wrong"}

# What is wrong: the door, what is changed, and the words that must come.
LOGINS: dict[str, tuple[str, dict[str, Any], str]] = {
    "wrong password": ("LOGIN", WRONG, "SASL authentication error: .*Invalid username or password"),
    "wrong password over TLS": ("BOTH", WRONG, "SASL authentication error: .*Invalid username or password"),
    "unknown user": ("LOGIN", {"sasl_username": "nobody"}, "Invalid username or password"),
    "unknown mechanism": ("LOGIN", {"sasl_mechanism": "SCRAM-SHA-512"}, "Unsupported SASL mechanism.*PLAIN"),
    "a login that nobody asks for": (
        "PLAIN",
        {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_username": "scorer",
            "sasl_password": PASSWORD,
        },
        "SASL PLAIN mechanism handshake failed",
    ),
    "no login": ("LOGIN", {"security_protocol": "PLAINTEXT"}, "the listener wants a login, .* set SASL_PLAINTEXT"),
    "another CA": ("TLS", {"librdkafka": {"common": {"ssl.ca.location": "OTHER"}}}, "certificate verify failed"),
    "no CA": ("TLS", {"librdkafka": {}}, "certificate verify failed.*ssl.ca.location"),
    "no certificate of ours": ("MUTUAL", {}, "alert"),
    "plain on a TLS port": ("TLS", {"security_protocol": "PLAINTEXT"}, "the listener speaks TLS"),
    "a login on a TLS port": ("BOTH", {"security_protocol": "SASL_PLAINTEXT"}, "the listener speaks TLS"),
    "TLS on a plain port": ("PLAIN", {"security_protocol": "SSL"}, "the listener speaks no TLS"),
    "TLS on a port with logins": ("LOGIN", {"security_protocol": "SASL_SSL"}, "the listener speaks no TLS"),
}


@pytest.mark.parametrize("case", LOGINS)
def test_a_refused_login_is_told_with_its_reason(secured: Secured, case: str) -> None:
    door, changes, words = LOGINS[case]
    text = json.dumps(changes).replace("OTHER", str(secured.other_ca))
    kafka = secured.kafka(door, **json.loads(text))
    started = time.monotonic()
    with pytest.raises(LoginRefused, match=words):
        check_topics(kafka, of_letters(jd_topics()))
    assert time.monotonic() - started < kafka.give_up_after_s / 2


@pytest.mark.parametrize("door", ["PLAIN", "LOGIN", "TLS", "BOTH"])
def test_who_may_is_let_in(secured: Secured, door: str) -> None:
    assert ask(secured.kafka(door)).kind == "in"


def test_one_that_is_away_is_no_refusal(secured: Secured) -> None:
    kafka = secured.kafka("LOGIN", bootstrap_servers="127.0.0.1:1")
    answer = ask(kafka, 0.2)
    assert answer.kind == "silent"
    assert "Connection refused" in answer.why


def test_one_server_of_several_that_refuses_is_no_refusal(secured: Secured) -> None:
    """A login that the one takes and the other does not: as while a cluster changes its credentials."""
    kafka = secured.kafka("LOGIN")
    both = f"127.0.0.1:{secured.ports['PLAIN']},{kafka.bootstrap_servers}"
    for _ in range(3):  # librdkafka begins with any of them
        assert ask(kafka.model_copy(update={"bootstrap_servers": both})).kind == "in"
    wrong = secured.kafka("LOGIN", bootstrap_servers=both, **WRONG)
    started = time.monotonic()
    assert ask(wrong).kind == "refused"
    assert time.monotonic() - started < wrong.give_up_after_s


# The commands, as what they do first, and what each needs. Each takes a configuration.


def start_run(config: Config) -> None:
    run.run(config, threading.Event())


def start_serve(config: Config) -> None:
    Follower(config, *application(config), loaded_store()).start()


def start_send(config: Config) -> None:
    send_and_wait(config, json.dumps({"user_id": "1"}), 5.0)


def start_list(config: Config) -> None:
    find_letters(config, application(config)[1], LetterFilter(), 1)


def start_replay(config: Config) -> None:
    replay(config, application(config)[1], LetterFilter(), limit=1)


def topics_of(kafka: Kafka) -> TopicNames:
    """The tutorial's, by the names that they have at a broker."""
    return TopicNames.of(jd(), kafka.topics)


def of_topics(needed: Callable[[TopicNames], list[Right]]) -> Callable[[Kafka], list[Right]]:
    """Rights that only topics say."""
    return lambda kafka: needed(topics_of(kafka))


def ran(kafka: Kafka) -> list[Right]:
    return of_run(kafka, topics_of(kafka))


def replayed(kafka: Kafka) -> list[Right]:
    topics = topics_of(kafka)
    needed = of_replay(topics, topics.inputs)
    return [*needed, Right("Write", "transactional id", f"{kafka.transactional_id_prefix}.dlq-replay")]


COMMANDS: dict[str, tuple[Callable[[Config], None], Callable[[Kafka], list[Right]]]] = {
    "run": (start_run, ran),
    "serve": (start_serve, of_topics(of_serve)),
    "send": (start_send, of_topics(of_send)),
    "dlq list": (start_list, of_topics(of_letters)),
    "dlq replay": (start_replay, replayed),
}


def config_of(kafka: Kafka) -> Config:
    return Config(kafka=kafka, http={"port": 0})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_tells_a_wrong_password(secured: Secured, command: str) -> None:
    with pytest.raises(LoginRefused, match="Invalid username or password"):
        COMMANDS[command][0](config_of(secured.kafka("LOGIN", **WRONG)))


LACKING = [(command, number) for command, (_, needed) in COMMANDS.items() for number in range(len(needed(Kafka())))]


@pytest.mark.parametrize(("command", "number"), LACKING)
def test_each_single_right_that_lacks_is_named(secured: Secured, command: str, number: int) -> None:
    start, needed = COMMANDS[command]
    rights = needed(secured.kafka("LOGIN"))
    lacking = rights[number]
    user = secured.user([right for right in rights if right != lacking])
    with pytest.raises(NotAllowed) as caught:
        start(config_of(secured.kafka("LOGIN", user)))
    text = str(caught.value)
    assert f"principal {user!r} may not" in text
    assert text.count("may not") == 1, "nothing else lacks"
    assert f"{lacking.operation} {lacking.kind} {lacking.name!r}. Allow it: " in text
    option = f"--{lacking.kind.replace(' ', '-')} '{lacking.name}'"
    assert f"--allow-principal 'User:{user}' --operation {lacking.operation} {option}" in text
    assert "no topic" not in text


ACTION = json.dumps({"user_id": "1"})
WORDS = {
    "run": ["run"],
    "serve": ["serve", "--port", "0"],
    "send": ["send", ACTION],
    "list": ["dlq", "list"],
    "replay": ["dlq", "replay", "--all"],
    "doctor": ["doctor"],
}


def ends(stage: Stage, folder: Path, kafka: Kafka, *names: str) -> dict[str, tuple[int, str]]:
    """Exit status of commands, each a process of its own, and what it printed."""
    secret = folder / "password"
    secret.write_text(kafka.sasl_password.get_secret_value())
    told = json.loads(kafka.model_dump_json(exclude_defaults=True))
    told |= {"sasl_password": "", "sasl_password_file": str(secret), "give_up_after_s": 300.0}
    file = stage.file(folder, kafka=told)
    began = {
        name: subprocess.Popen(
            [sys.executable, "-m", "streaming", *WORDS[name], "--config", str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=REPOSITORY,
        )
        for name in names
    }
    said = {name: process.communicate(timeout=120)[0] for name, process in began.items()}
    return {name: (began[name].returncode, text) for name, text in said.items()}


def test_the_commands_end_at_once_with_their_status(secured: Secured, stage: Stage, tmp_path: Path) -> None:
    """Though a broker that is away would be waited for 300 s. A password is configuration; a right may be given."""
    found = ends(stage, tmp_path, secured.kafka("LOGIN", **WRONG), *WORDS)
    assert {name: status for name, (status, _) in found.items()} == dict.fromkeys(WORDS, 2)
    assert [name for name, (_, text) in found.items() if "Invalid username or password" not in text] == []
    found = ends(stage, tmp_path, secured.kafka("LOGIN", secured.user([])), "run", "list")
    assert {name: status for name, (status, _) in found.items()} == {"run": 5, "list": 5}
    assert [name for name, (_, text) in found.items() if "may not Describe" not in text] == []


def test_what_the_broker_does_not_tell_is_told_in_the_log(secured: Secured) -> None:
    """Without DescribeConfigs the scorer takes the default size of records, and says so."""
    kafka = secured.kafka("LOGIN")
    with structlog.testing.capture_logs() as logs:
        Publisher(kafka, jd_topics(), Connection(threading.Event())).close()
    said = [log["why"] for log in logs if "max.message.bytes" in log["event"]]
    assert len(said) == 2
    assert all("principal 'scorer' may not DescribeConfigs topic" in why for why in said)


@pytest.fixture
def guarded(secured: Secured, stage: Stage) -> Stage:
    """A stage on the secured broker, over TLS; whose user `config` names."""
    made = Stage(secured.broker.bootstrap, stage.artifact, stage.triton)
    made.create_topics(secured.broker)
    return made


def entered(secured: Secured, stage: Stage, needed: Callable[[Kafka], list[Right]], door: str, **kafka: Any) -> Config:
    """The stage's configuration for a user who has the rights of a command, and no other."""
    own = {key: stage.values["kafka"][key] for key in ("group_id", "transactional_id_prefix", "topics")}
    user = secured.user(needed(secured.kafka(door, **own)))
    return stage.config(
        kafka=json.loads(secured.kafka(door, user, **own, **kafka).model_dump_json()) | {"sasl_password": PASSWORD}
    )


def test_these_rights_are_enough(
    secured: Secured, guarded: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder
) -> None:
    """Each command does its work over TLS with the rights that docs/reference/kafka.md lists for it, and no other."""
    stage = guarded
    ids = [Right("Write", "transactional id", stage.name, prefixed=True)]
    scorer = entered(secured, stage, lambda kafka: [*ran(kafka), *ids], "BOTH")
    stage.send_shop(Shop([], shop.users, shop.products, shop.comments))
    action = shop.actions[0]
    with running(scorer, scorer_encoder):
        score = send_and_wait(entered(secured, stage, of_topics(of_send), "BOTH"), json.dumps(action))
        assert score["purchase_probability"] == truth[action["request_id"]]
        stage.send([("actions", b"1", b"{")])
        stage.collect(1, 1)
    lister = entered(secured, stage, of_topics(of_letters), "BOTH")
    letters, _ = find_letters(lister, topics_of(lister.kafka), LetterFilter(), 10)
    assert [letter.reason for letter in letters] == ["malformed"]
    replayer = entered(secured, stage, replayed, "BOTH")
    assert len(replay(replayer, topics_of(replayer.kafka), LetterFilter(), limit=10).sent) == 1
    server = entered(secured, stage, of_topics(of_serve), "BOTH")
    follower = Follower(server, *application(server), loaded_store())
    follower.start()
    try:
        wait_until(lambda: follower.missing() is None, "the state is there")
    finally:
        follower.stop()
    assert follower.failure is None


TAKEN: dict[str, Callable[[Kafka], Right]] = {
    "of scores": lambda kafka: Right("Write", "topic", topics_of(kafka).scores),
    "of actions": lambda kafka: Right("Read", "topic", topics_of(kafka).events[0]),
    "of users": lambda kafka: Right("Read", "topic", topics_of(kafka).dimensions[0]),
    "of the group": lambda kafka: Right("Read", "group", kafka.group_id),
    "of transactions": lambda kafka: Right("Write", "transactional id", kafka.transactional_id_prefix, prefixed=True),
}


@pytest.mark.parametrize("taken", TAKEN)
def test_a_right_that_is_taken_while_the_scorer_runs_is_named(
    secured: Secured, guarded: Stage, shop: Shop, scorer_encoder: Encoder, taken: str
) -> None:
    stage = guarded
    ids = [Right("Write", "transactional id", stage.name, prefixed=True)]
    config = entered(secured, stage, lambda kafka: [*ran(kafka), *ids], "LOGIN")
    right, user = TAKEN[taken](config.kafka), config.kafka.sasl_username
    stage.send_shop(Shop(shop.actions[:5], shop.users, shop.products, shop.comments))
    words = rf"principal '{user}' may not (Describe or )?{right.operation} {right.kind} '{right.name}"
    with (
        pytest.raises(NotAllowed, match=words),
        named(config.kafka, ran(config.kafka)),
        running(config, scorer_encoder) as scorer,
    ):
        stage.collect(5)
        secured.forbid(user, right)
        for action in shop.actions[5:]:
            stage.send_actions([action])
            stage.send([("users", row["user_id"].encode(), json.dumps(row).encode()) for row in shop.users[:1]])
            if scorer.stop.wait(0.5):
                break


def test_a_login_that_is_refused_later_ends_in_bounded_time(
    secured: Secured, guarded: Stage, shop: Shop, scorer_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password is changed while the scorer runs, and its connections go: it is told, and ends when that stays."""
    monkeypatch.setattr(login_module, "EVERY_S", 0.2)
    monkeypatch.setattr(login_module, "LATER_S", 1.0)
    stage = guarded
    ids = [Right("Write", "transactional id", stage.name, prefixed=True)]
    config = entered(secured, stage, lambda kafka: [*ran(kafka), *ids], "LOGIN", sasl_mechanism="SCRAM-SHA-256")
    user = config.kafka.sasl_username
    secured.set_password(user, PASSWORD)
    wait_until(lambda: ask(config.kafka).kind == "in", "the password is known")
    stage.send_shop(Shop(shop.actions[:10], shop.users, shop.products, shop.comments))
    words = r"refused the login for .*, which it took before: .*SASL authentication error"
    with pytest.raises(NotAllowed, match=words), running(config, scorer_encoder) as scorer:
        stage.collect(10)
        secured.set_password(user, "another")
        wait_until(lambda: ask(config.kafka).kind == "refused", "the password is another")
        secured.network.reset()
        wait_until(scorer.stop.is_set, "it ends")


def test_a_login_that_comes_back_is_no_failure(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, taken, refused: how long it is refused is counted anew."""
    monkeypatch.setattr(login_module, "EVERY_S", 0.0)
    monkeypatch.setattr(login_module, "LATER_S", 0.0)  # the second refusal in a row is one too many
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    login = Login(secured.kafka("LOGIN", sasl_password_file=str(file), sasl_password=""))

    def lost() -> None:
        """Its clients lose their brokers; it asks, and knows the answer."""
        login.heard(KafkaError(KafkaError._ALL_BROKERS_DOWN))
        login.listen()
        for thread in threading.enumerate():
            if thread.name == "login":
                thread.join()

    login.first()
    for password in ("wrong", PASSWORD, "wrong"):
        file.write_text(password)
        lost()
    lost()
    with pytest.raises(NotAllowed, match="Invalid username or password"):
        login.listen()
