"""The transactional producer on a real broker: forgotten, fenced."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from fixtures.scorer import Shop, Stage, check, running

from deploy.kafka.broker import Broker
from streaming.app.configured import application
from streaming.errors import TransactionFatal
from streaming.kafka.connection import Connection
from streaming.kafka.producer import Publisher
from streaming.model.encoder import Encoder


class Forgetful(Broker):
    """Forgets transactional.ids after a second, where others do after a week."""

    def _write_config(self) -> Path:
        path = super()._write_config()
        with path.open("a") as file:
            file.write("transactional.id.expiration.ms=1000\n")
            file.write("transaction.remove.expired.transaction.cleanup.interval.ms=200\n")
        return path


def test_an_idle_scorer_whose_transactional_id_was_forgotten_loses_one_transaction(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, tmp_path: Path
) -> None:
    with Forgetful(tmp_path / "kafka") as broker:
        stage = Stage(broker.bootstrap, stage.artifact, stage.triton)
        stage.create_topics(broker)
        sent = len(shop.actions) - 3
        stage.send_shop(Shop(shop.actions[:sent], shop.users, shop.products, shop.comments))
        with running(stage.config(), scorer_encoder) as scorer:
            restarts = scorer.metrics.restarts._value
            stage.collect(sent)
            # A transaction within the second before keeps the id alive: some of these gaps are long enough.
            for action in shop.actions[sent:]:
                before = restarts.get()
                scorer.stop.wait(2.5)
                stage.send_actions([action])
                sent += 1
                found = stage.collect(sent)
                assert restarts.get() <= before + 1
            assert restarts.get() > 0
    check(found, truth)


def test_who_is_fenced_names_both_reasons(stage: Stage) -> None:
    config, stop = stage.config(kafka={"transaction_timeout_s": 17.0}), threading.Event()
    _, topics = application(config)
    first, second = (Publisher(config.kafka, topics, Connection(stop)) for _ in range(2))
    first.start()
    second.start()
    with pytest.raises(TransactionFatal) as caught:
        first.begin()
        first.scores([(b"1", b"{}", [])])
        first.commit()
    for words in ("either another process has begun with transactional.id", "kafka.transaction_timeout_s = 17"):
        assert words in str(caught.value)
    for made in (first, second):
        made.close()
    assert not stage.collect(0).records
