"""Records of several topics in the order of their times."""

from __future__ import annotations

from fixtures.records import Fake
from hypothesis import given
from hypothesis import strategies as st

from streaming.events.record import Record
from streaming.kafka.merge import LAGGING_S, READS_MIN, TimeMerge
from streaming.ops.clock import Clock

TOPICS = ("payments", "logins", "alarms")
WAIT_S = 0.5


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.clock = Clock(monotonic=lambda: self.now)


def record(topic: str, number: int, offset: int, written_ms: int) -> Fake:
    return Fake(b"k", b"v", place=(topic, number, offset), written_ms=written_ms)


def place(found: Record) -> tuple[str, int, int]:
    return found.topic(), found.partition(), found.offset()


@st.composite
def logs(draw: st.DrawFn) -> dict[tuple[str, int], list[Fake]]:
    """Of each partition its records, whose times may go back a little."""
    found = {}
    for topic in TOPICS[: draw(st.integers(2, 3))]:
        for number in range(draw(st.integers(1, 2))):
            times = draw(st.lists(st.integers(-1, 30), max_size=8))
            found[topic, number] = [record(topic, number, at, ms) for at, ms in enumerate(times)]
    return found


@given(logs(), st.randoms(use_true_random=False), st.integers(1, 5))
def test_nothing_is_lost_doubled_or_moved_within_its_partition(
    whole: dict[tuple[str, int], list[Fake]], luck: object, count: int
) -> None:
    """However records come in, and whatever is waited for."""
    hand = Hand()
    merge = TimeMerge(TOPICS, WAIT_S, 1_000, hand.clock)
    left = {partition: list(records) for partition, records in whole.items()}
    taken: list[Record] = []
    for _ in range(1_000):
        coming = sorted(partition for partition, records in left.items() if records)
        merge.add([left[luck.choice(coming)].pop(0)] if coming else [])  # type: ignore[attr-defined]
        hand.now += luck.choice((0.1, 2.0))  # type: ignore[attr-defined]
        some = merge.take(count, whole.keys(), lambda partition: not left[partition])
        assert len(some) <= count
        taken += some
        if len(taken) == sum(map(len, whole.values())):
            break
    assert sorted(map(place, taken)) == sorted(place(r) for records in whole.values() for r in records)
    for partition in whole:
        mine = [r.offset() for r in taken if (r.topic(), r.partition()) == partition]
        assert mine == sorted(mine)


@given(logs())
def test_what_is_all_there_comes_in_the_order_of_time_then_of_topics(whole: dict[tuple[str, int], list[Fake]]) -> None:
    hand = Hand()
    merge = TimeMerge(TOPICS, WAIT_S, 1_000, hand.clock)
    for records in whole.values():
        merge.add(records)
    hand.now += WAIT_S
    read_on(merge)
    taken = merge.take(10_000, whole.keys(), lambda _: True)
    for number in {number for _, number in whole}:
        mine = [r for r in taken if r.partition() == number]
        expected = []
        queues = {topic: list(whole.get((topic, number), ())) for topic in TOPICS}
        while any(queues.values()):
            topic = min(
                (topic for topic in TOPICS if queues[topic]),
                key=lambda topic: (queues[topic][0].timestamp()[1], TOPICS.index(topic)),
            )
            expected.append(queues[topic].pop(0))
        assert list(map(place, mine)) == list(map(place, expected))


def read_on(merge: TimeMerge) -> None:
    """So often that who is still silent has nothing."""
    for _ in range(READS_MIN):
        merge.add([])


def test_time_in_which_nobody_read_is_no_waiting() -> None:
    hand, both = Hand(), {("payments", 0), ("logins", 0)}
    merge = TimeMerge(TOPICS, WAIT_S, 2, hand.clock)
    merge.add([record("payments", 0, 0, 5)])
    hand.now += 60  # the process stood still; what came meanwhile was not read yet
    assert merge.take(9, both, lambda partition: True) == []
    merge.add([record("logins", 0, 0, 4)])
    assert list(map(place, merge.take(9, both, lambda partition: True))) == [("logins", 0, 0)]
    read_on(merge)
    assert list(map(place, merge.take(9, both, lambda partition: True))) == [("payments", 0, 0)]


def test_who_is_silent_is_waited_for_and_not_for_ever() -> None:
    hand, both = Hand(), {("payments", 0), ("logins", 0)}
    merge = TimeMerge(TOPICS, WAIT_S, 2, hand.clock)
    merge.add([record("payments", 0, 0, 5)])
    ends: set[tuple[str, int]] = set()
    assert merge.take(9, both, ends.__contains__) == []
    hand.now += WAIT_S
    read_on(merge)
    assert merge.take(9, both, ends.__contains__) == [], "the other has more: it is waited for longer"
    ends.add(("logins", 0))
    assert list(map(place, merge.take(9, both, ends.__contains__))) == [("payments", 0, 0)]
    ends.clear()
    merge.add([record("payments", 0, 1, 6), record("payments", 0, 2, 7)])
    assert merge.crowded() == {("payments", 0)}
    hand.now += LAGGING_S
    read_on(merge)
    assert len(merge.take(9, both, ends.__contains__)) == 2
    merge.add([record("payments", 0, 3, 9)])
    assert len(merge.take(9, {("payments", 0)}, ends.__contains__)) == 1, "nobody reads the other here"
