"""Networks that are cut, delayed, reset or silent, and servers that hang: nothing is lost, doubled or wrong."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from fixtures.scorer import Shop, Stage, check, running, wait_until
from places import REPOSITORY
from rigs.proxy import Proxy

from deploy.kafka.broker import Broker
from deploy.process import Process, free_ports
from deploy.triton.server import Triton
from streaming.config import Config
from streaming.errors import TransactionFatal, Unavailable
from streaming.loop.scorer import Scorer
from streaming.model.encoder import Encoder

OUTAGE_S = 2.0  # longer than a call's deadline here, shorter than anybody's patience


def cut(network: Proxy) -> None:
    network.cut()


def slow(network: Proxy) -> None:
    network.delay_s = 0.3


def silent(network: Proxy) -> None:
    network.silent = True


def reset(network: Proxy) -> None:
    for _ in range(10):
        network.reset()
        time.sleep(0.1)


FAILURES: list[Callable[[Proxy], None]] = [cut, slow, silent, reset]


def parts(shop: Shop, count: int) -> list[Shop]:
    """The shop's actions in so many parts, its dimension rows in the first."""
    size = -(-len(shop.actions) // count)
    chunks = [shop.actions[at : at + size] for at in range(0, len(shop.actions), size)]
    return [Shop(chunks[0], shop.users, shop.products, shop.comments), *(Shop(c, [], [], []) for c in chunks[1:])]


@pytest.fixture
def far_broker(tmp_path: Path) -> Iterator[tuple[Broker, Proxy]]:
    """A broker, and the network between it and whoever asks the network's port first."""
    with Proxy() as network, Broker(tmp_path / "kafka", advertised_port=network.port) as broker:
        network.target = broker.port
        yield broker, network


@contextmanager
def supervised(config: Config, encoder: Encoder) -> Iterator[None]:
    """A scorer, started again when it ends for its supervisor: librdkafka may lose a producer with its broker."""
    stop = threading.Event()
    raised: list[BaseException] = []

    def supervise() -> None:
        while not stop.is_set() and not raised:
            try:
                with running(config, encoder) as scorer:
                    while not stop.wait(0.05) and not scorer.stop.is_set():
                        pass
            except (TransactionFatal, Unavailable):
                continue
            except BaseException as error:
                raised.append(error)

    thread = threading.Thread(target=supervise)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if raised:
        raise raised[0]


def test_the_network_to_kafka_fails_in_every_way(
    far_broker: tuple[Broker, Proxy], stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder
) -> None:
    broker, network = far_broker
    stage = Stage(f"127.0.0.1:{network.port}", stage.artifact, stage.triton)
    stage.create_topics(broker)
    first, *others = parts(shop, len(FAILURES) + 1)
    # A silent network is noticed by these only.
    raw = {"common": {"socket.timeout.ms": 10_000}, "producer": {"request.timeout.ms": 2000}}
    config = stage.config(batch={"messages_max": 10}, kafka={"librdkafka": raw})
    sent = len(first.actions)
    stage.send_shop(first)
    with supervised(config, scorer_encoder):
        stage.collect(sent)
        for failure, part in zip(FAILURES, others, strict=True):
            stage.send_actions(part.actions)
            sent += len(part.actions)
            failure(network)
            time.sleep(OUTAGE_S)
            network.heal()
            stage.collect(sent)
        found = stage.collect(sent)
    check(found, truth)


def test_the_network_to_triton_fails_in_every_way(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder
) -> None:
    first, *others = parts(shop, len(FAILURES) + 1)
    sent = len(first.actions)
    stage.send_shop(first)
    with Proxy(int(stage.triton.rpartition(":")[2])) as network:
        model = {"url": f"127.0.0.1:{network.port}", "timeout_s": 1.0}
        with running(stage.config(batch={"messages_max": 10}, model=model), scorer_encoder) as scorer:
            wait_until(lambda: scorer.metrics.scores._value.get() > 0, "first scores")
            for failure, part in zip(FAILURES, others, strict=True):
                failure(network)
                stage.send_actions(part.actions)
                sent += len(part.actions)
                time.sleep(OUTAGE_S)
                network.heal()
                stage.collect(sent)
                wait_until(lambda: not scorer.health.missing(), "ready again")
            found = stage.collect(sent)
        assert scorer.metrics.model_retries._value.get() > 0
    check(found, truth)


@pytest.mark.slow
def test_triton_hangs_and_wakes_up(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, tmp_path: Path
) -> None:
    first, second = parts(shop, 2)
    with Triton(stage.artifact / "triton", tmp_path / "triton") as triton:
        stage.send_shop(first)
        config = stage.config(model={"url": triton.grpc_url, "timeout_s": 1.0}, kafka={"session_timeout_s": 6.0})
        with running(config, scorer_encoder) as scorer:
            stage.collect(len(first.actions))
            os.killpg(triton.process.pid, signal.SIGSTOP)
            try:
                stage.send_actions(second.actions)
                wait_until(lambda: "model" in scorer.health.missing(), "not ready")
                assigned = scorer.source.generation
                time.sleep(8.0)  # longer than the group waits for a member that does not poll
                assert scorer.source.generation == assigned
            finally:
                os.killpg(triton.process.pid, signal.SIGCONT)
            found = stage.collect(len(shop.actions))
            wait_until(lambda: not scorer.health.missing(), "ready again")
    check(found, truth)


@pytest.mark.slow
def test_the_topic_of_scores_goes_and_comes_back(
    stage: Stage, broker: Broker, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder
) -> None:
    stage.send_shop(shop)
    deleted: list[str] = []

    def delete(_: Scorer, step: str) -> None:
        if step == "encode" and not deleted:
            admin = AdminClient({"bootstrap.servers": stage.bootstrap})
            admin.delete_topics([stage.topics["scores"]])[stage.topics["scores"]].result(30)
            deleted.append(stage.topics["scores"])

    raw = {"producer": {"message.timeout.ms": 1000, "topic.metadata.propagation.max.ms": 200}}
    impatient = stage.config(kafka={"librdkafka": raw, "give_up_after_s": 5.0})
    with (
        pytest.raises(TransactionFatal, match="transactions in a row were aborted"),
        running(impatient, scorer_encoder, step=delete) as scorer,
    ):
        wait_until(scorer.stop.is_set, "the scorer gives up")
    assert sum(stage.committed()) == 0
    stage.create_topics(broker)
    with running(stage.config(), scorer_encoder):
        check(stage.collect(len(shop.actions)), truth)


# The same as `jd-intent-score run`, but the sixth call of a step never returns, as librdkafka's
# send_offsets_to_transaction does now and then when the broker was killed and came back.
HANGING = """
import sys, time
from pathlib import Path
from confluent_kafka import Producer
import streaming.kafka.clients as clients
import streaming.kafka.producer as publish
from streaming.loop.run import main
from streaming.ops import exits

class Hanging(Producer):
    count = 0

    def hang(self, step, arguments):
        Hanging.count += step == sys.argv[2]
        if Hanging.count == 6:  # the first notes what the state is made of
            Hanging.count += 1
            print("it hangs", flush=True)
            time.sleep(3600)
        return getattr(super(), step)(*arguments)

    def send_offsets_to_transaction(self, *arguments):
        return self.hang("send_offsets_to_transaction", arguments)

    def commit_transaction(self, *arguments):
        return self.hang("commit_transaction", arguments)

clients.Producer = Hanging
publish.HUNG_S = 2.0
exits.main(exits.SCORE, "streaming", lambda prog_name: main(Path(sys.argv[1])))
"""


def test_another_producer_goes_on_when_a_call_hangs_in_librdkafka(
    stage: Stage, shop: Shop, truth: dict[str, float], tmp_path: Path
) -> None:
    stage.send_shop(shop)
    file = stage.file(tmp_path, batch={"messages_max": 20}, http={"port": free_ports(1)[0]})
    argv = [sys.executable, "-c", HANGING, str(file), "send_offsets_to_transaction"]
    with Process("hanging", argv, tmp_path / "scorer.log", cwd=REPOSITORY) as process:
        check(stage.collect(len(shop.actions)), truth)
        log = (tmp_path / "scorer.log").read_text()
        assert "it hangs" in log
        assert "another producer goes on" in log
        assert process.stop(30) == 0, process.tail()


def test_a_commit_that_hangs_in_librdkafka_ends_the_process_for_its_supervisor(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, tmp_path: Path
) -> None:
    stage.send_shop(shop)
    file = stage.file(tmp_path, batch={"messages_max": 20}, http={"port": free_ports(1)[0]})
    argv = [sys.executable, "-c", HANGING, str(file), "commit_transaction"]
    with Process("hanging", argv, tmp_path / "scorer.log", cwd=REPOSITORY) as process:
        assert process.popen.wait(120) == 5, process.tail()
    assert "commit_transaction does not return" in process.tail(3)
    assert 0 < sum(stage.committed()) < len(shop.actions)
    with running(stage.config(), scorer_encoder):
        check(stage.collect(len(shop.actions)), truth)


# The same, but a call of the consumer hangs; no signal gets through to the thread that it hangs in.
DEAF = """
import signal, sys, time
from pathlib import Path
import streaming.kafka.clients as clients
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from streaming.loop.run import main
from streaming.ops import exits

def hang():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    print("it hangs", flush=True)
    time.sleep(3600)

class Hanging(Consumer):
    member = False

    def subscribe(self, *arguments, **callbacks):
        self.member = True
        super().subscribe(*arguments, **callbacks)

    def close(self):
        if sys.argv[2] == "close" and self.member:
            hang()
        super().close()

    def consume(self, *arguments):
        messages = super().consume(*arguments)
        if sys.argv[2] == "consume" and self.member and messages:
            hang()
        return messages

class Fatal(Producer):
    def begin_transaction(self):
        if sys.argv[2] == "close":
            raise KafkaException(KafkaError(KafkaError._FENCED, "fenced", fatal=True))
        super().begin_transaction()

clients.Consumer, clients.Producer = Hanging, Fatal
exits.main(exits.SCORE, "streaming", lambda prog_name: main(Path(sys.argv[1])))
"""


@pytest.mark.parametrize(("step", "status"), [("consume", 0), ("close", 5)])
def test_whatever_call_hangs_it_ends_in_time(stage: Stage, shop: Shop, tmp_path: Path, step: str, status: int) -> None:
    stage.send_shop(shop)
    file = stage.file(tmp_path, http={"port": free_ports(1)[0]})
    argv = [sys.executable, "-c", DEAF, str(file), step]
    with Process("deaf", argv, tmp_path / "scorer.log", cwd=REPOSITORY) as process:
        wait_until(lambda: "it hangs" in (tmp_path / "scorer.log").read_text(), "it hangs")
        if not status:
            process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(60) == status, process.tail()
    assert "left while a call hangs" in process.tail(5)


def test_a_loop_that_goes_round_no_more_ends_for_its_supervisor(stage: Stage, shop: Shop, tmp_path: Path) -> None:
    stage.send_shop(shop)
    file = stage.file(tmp_path, http={"port": free_ports(1)[0], "stalled_s": 3.0})
    argv = [sys.executable, "-c", DEAF, str(file), "consume"]
    with Process("deaf", argv, tmp_path / "scorer.log", cwd=REPOSITORY) as process:
        assert process.popen.wait(120) == 5, process.tail()
    assert "the loop does not go round" in process.tail(5)


LOADING = """
import sys
from pathlib import Path
import streaming.store.embedded as store
from streaming.loop.run import main
from streaming.ops import exits

def load(self):
    print("loading", flush=True)
    while True:
        sum(range(1000))

store.EmbeddedStore.load_history = load
exits.main(exits.SCORE, "streaming", lambda prog_name: main(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_while_it_loads_its_state_it_is_gone_at_once(
    stage: Stage, tmp_path: Path, number: signal.Signals
) -> None:
    argv = [sys.executable, "-c", LOADING, str(stage.file(tmp_path, log={"format": "json"}))]
    with Process("loading", argv, tmp_path / "scorer.log", cwd=REPOSITORY) as process:
        wait_until(lambda: "loading" in (tmp_path / "scorer.log").read_text().splitlines(), "it loads")
        process.popen.send_signal(number)
        assert process.popen.wait(30) == 0, process.tail()
    assert json.loads((tmp_path / "scorer.log").read_text().splitlines()[-1])["event"] == "stopped"


def test_a_call_that_hangs_does_not_keep_it_when_it_is_told_to_stop(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, tmp_path: Path
) -> None:
    stage.send_shop(shop)
    file = stage.file(tmp_path, batch={"messages_max": 20}, http={"port": free_ports(1)[0]})
    script = HANGING.replace("publish.HUNG_S = 2.0", "publish.HUNG_S = 60.0")
    argv = [sys.executable, "-c", script, str(file), "send_offsets_to_transaction"]
    with Process("hanging", argv, tmp_path / "scorer.log", cwd=REPOSITORY) as process:
        wait_until(lambda: "it hangs" in (tmp_path / "scorer.log").read_text(), "it hangs")
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(30) == 0, process.tail()
    assert "left before all was published" in process.tail(30)
    with running(stage.config(), scorer_encoder):
        check(stage.collect(len(shop.actions)), truth)


def test_told_to_stop_under_load_it_is_gone_in_seconds_and_nothing_is_lost(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, tmp_path: Path
) -> None:
    file = stage.file(tmp_path, batch={"messages_max": 50}, log={"format": "json"})
    stage.send_shop(shop)
    argv = [sys.executable, "-m", "streaming", "run", "-c", str(file)]
    with Process("scorer", argv, tmp_path / "scorer.log", cwd=REPOSITORY) as process:
        wait_until(lambda: sum(stage.committed()) > 0, "first commits")
        started = time.monotonic()
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(60) == 0, process.tail()
        print(f"SIGTERM under load: gone after {time.monotonic() - started:.2f} s")
    events = [
        json.loads(line)["event"] for line in (tmp_path / "scorer.log").read_text().splitlines() if line[0] == "{"
    ]
    assert events[-1] == "stopped"
    seen = stage.collect(sum(stage.committed()))
    assert len(seen.scores) == sum(stage.committed())  # what it committed is visible, and nothing else
    with running(stage.config(), scorer_encoder):
        check(stage.collect(len(shop.actions)), truth)


def test_the_second_interrupt_kills(stage: Stage, shop: Shop, tmp_path: Path) -> None:
    with Triton(stage.artifact / "triton", tmp_path / "triton") as triton:
        model = {"url": triton.grpc_url, "timeout_s": 60.0}
        file = stage.file(tmp_path, model=model, log={"format": "json"}, batch={"messages_max": 10})
        stage.send_shop(shop)
        argv = [sys.executable, "-m", "streaming", "run", "-c", str(file)]
        with Process("scorer", argv, tmp_path / "scorer.log", cwd=REPOSITORY) as process:
            wait_until(lambda: sum(stage.committed()) > 0, "first commits")
            os.killpg(triton.process.pid, signal.SIGSTOP)  # a batch under way cannot be finished
            try:
                stage.send_actions(shop.actions)
                time.sleep(0.5)
                process.popen.send_signal(signal.SIGINT)
                wait_until(lambda: "told to stop" in (tmp_path / "scorer.log").read_text(), "it was told")
                process.popen.send_signal(signal.SIGINT)
                assert process.popen.wait(10) == -signal.SIGINT, process.tail()
            finally:
                os.killpg(triton.process.pid, signal.SIGCONT)
