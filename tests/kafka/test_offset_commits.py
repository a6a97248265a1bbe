"""Offsets that are committed beside the loop: what fails is tried again, what is newer or gone is not."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from streaming.kafka.offset_commits import AGAIN_S, OffsetCommits
from streaming.ops.clock import Clock

FAILED = KafkaError(KafkaError.REQUEST_TIMED_OUT, "slow")


class Group:
    """Takes what is sent; the test says how it went. `now`: the clock's time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sent: list[list[TopicPartition]] = []
        self.refuses = False
        self.commits = OffsetCommits(self._send, Clock(monotonic=lambda: self.now))

    def _send(self, offsets: list[TopicPartition]) -> None:
        self.sent.append(offsets)
        if self.refuses:
            raise KafkaException(FAILED)

    def commit(self, **offsets: int) -> None:
        self.commits.commit({(topic, 0): offset for topic, offset in offsets.items()}, lambda at: f"of {at[0]}")

    def again(self) -> list[tuple[str, int, str | None]]:
        """What a look after the time between two tries sends."""
        self.now += AGAIN_S
        before = len(self.sent)
        self.commits.commit_again()
        return [(of.topic, of.offset, of.metadata) for sent in self.sent[before:] for of in sent]


def test_what_failed_is_sent_again_with_its_note_until_the_group_has_it() -> None:
    group = Group()
    group.commit(a=5, b=7)
    assert not group.commits.acknowledged({("a", 0): 5})
    (sent,) = group.sent
    group.commits.on_commit(FAILED, sent)
    assert group.again() == [("a", 5, "of a"), ("b", 7, "of b")]
    assert group.again() == []  # under way
    group.commits.on_commit(None, group.sent[-1])
    assert group.again() == []
    assert group.commits.acknowledged({("a", 0): 5, ("b", 0): 7})
    assert not group.commits.acknowledged({("a", 0): 6})


def test_it_is_tried_once_a_second() -> None:
    group = Group()
    group.refuses = True  # at once, as a consumer does that knows of no coordinator
    group.commit(a=5)
    assert len(group.again()) == 1
    group.now += AGAIN_S / 2
    group.commits.commit_again()
    assert len(group.sent) == 2
    assert len(group.again()) == 1


def test_an_older_offset_never_follows_a_newer_one() -> None:
    group = Group()
    group.commit(a=5)
    group.commit(a=6)
    group.commits.on_commit(FAILED, group.sent[0])
    assert group.again() == []
    group.commits.on_commit(FAILED, group.sent[1])
    assert group.again() == [("a", 6, "of a")]


def test_what_has_gone_is_left_to_its_new_owner() -> None:
    group = Group()
    group.commit(a=5, b=7, c=9)
    group.commits.on_commit(FAILED, group.sent[0])
    group.commits.forget(("a", 0))
    group.commits.forget_all_but(["b"])
    assert group.again() == [("b", 7, "of b")]
