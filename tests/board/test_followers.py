"""What the board follows on a real Kafka, where topics come and go."""

from __future__ import annotations

from confluent_kafka.admin import AdminClient
from fixtures.scorer import PARTITIONS, Stage, wait_until

from deploy.kafka.broker import Broker
from streaming.app.configured import application
from streaming.board.attributes import Attributes
from streaming.board.fields import score_fields
from streaming.board.followers import Followers
from streaming.board.letters import Letters
from streaming.board.outcomes import scores_kept


def test_a_topic_that_is_deleted_is_gone_until_it_is_made_again(stage: Stage, broker: Broker) -> None:
    config = stage.config()
    app, topics = application(config)
    fields = score_fields(app)
    pairs, outcomes = scores_kept(app, topics, fields, 100)
    followers = Followers(config, app, topics, pairs, Letters(), Attributes(fields), 3600, outcomes)
    state, admin = followers.state, AdminClient({"bootstrap.servers": stage.bootstrap})
    followers.start()
    try:
        wait_until(lambda: state.loaded, "the scores are read")
        assert not state.gone
        admin.delete_topics([topics.scores])[topics.scores].result(30)
        wait_until(lambda: state.gone, "the topic is seen to be gone")
        broker.create_topics({topics.scores: PARTITIONS})
        wait_until(lambda: not state.gone, "the topic is seen to be there again")
        score = b'{"request_id":"r","user_id":"u","sku_id":"i","event_time":1,"purchase_probability":0.5}'
        stage.send([("scores", b"u", score)])
        wait_until(lambda: pairs.received == 1, "a score of the new topic is taken")
        assert state.failure is None
    finally:
        followers.stop()
