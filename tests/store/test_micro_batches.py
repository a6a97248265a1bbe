"""The micro_batch cutter: properties that make a micro_batch's answers those of one event at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streaming.store.micro_batches import ANY, Access, micro_batch_numbers, split

KEYS = st.integers(0, 4)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[Access], list[Access], list[int]]:
    """Reads and writes of up to 30 events over two tables, and their partitions."""
    count = draw(st.integers(0, 30))

    def access(columns: tuple[str, ...]) -> Access:
        keys = draw(st.one_of(st.lists(KEYS, min_size=count, max_size=count), st.just(ANY)))
        return Access(draw(st.sampled_from(["actions", "requests"])), columns, keys)

    sides = st.lists(st.sampled_from([("user",), ("pair",)]), max_size=3)
    reads = [access(columns) for columns in draw(sides)]
    writes = [access(columns) for columns in draw(sides)]
    return reads, writes, draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))


def touches(reads: Sequence[Access], writes: Sequence[Access], reader: int, writer: int) -> bool:
    """Whether a row that `writer` writes is one that `reader` may read: straight from the definition."""
    for read in reads:
        for write in writes:
            if read.table != write.table:
                continue
            known = read.columns == write.columns and isinstance(read.keys, list) and isinstance(write.keys, list)
            if not known or read.keys[reader] == write.keys[writer]:  # type: ignore[index]
                return True
    return False


@given(streams())
def test_events_that_touch_each_others_rows_keep_their_order_in_different_waves(
    stream: tuple[list[Access], list[Access], list[int]],
) -> None:
    reads, writes, partitions = stream
    count = len(partitions)
    for given_partitions in (None, partitions):
        level = micro_batch_numbers(count, reads, writes, given_partitions)
        for later in range(count):
            for earlier in range(later):
                if touches(reads, writes, later, earlier) or touches(reads, writes, earlier, later):
                    assert level[earlier] < level[later]
                elif given_partitions is not None and partitions[earlier] == partitions[later]:
                    assert level[earlier] <= level[later]


@given(streams(), st.integers(1, 7))
def test_waves_hold_every_event_once_and_pieces_of_lanes_only(
    stream: tuple[list[Access], list[Access], list[int]], rows_max: int
) -> None:
    reads, writes, partitions = stream
    micro_batches = split(micro_batch_numbers(len(partitions), reads, writes, partitions), rows_max)
    order = [int(p) for micro_batch in micro_batches for p in micro_batch]
    assert sorted(order) == list(range(len(partitions)))
    assert all(0 < len(micro_batch) <= rows_max for micro_batch in micro_batches)
    for partition in set(partitions):
        mine = [p for p in order if partitions[p] == partition]
        assert mine == sorted(mine)


@given(streams())
def test_no_wave_is_later_than_it_must_be(stream: tuple[list[Access], list[Access], list[int]]) -> None:
    reads, writes, partitions = stream
    level = micro_batch_numbers(len(partitions), reads, writes)
    for p in range(len(partitions)):
        if level[p]:
            before = [q for q in range(p) if level[q] == level[p] - 1]
            assert any(touches(reads, writes, p, q) or touches(reads, writes, q, p) for q in before)


def test_a_users_events_follow_each_other_and_other_users_do_not_wait() -> None:
    user = ["a", "b", "a", "c", "a", "b"]
    requests = Access("requests", ("user",), user)
    assert micro_batch_numbers(6, [requests], [requests]).tolist() == [0, 0, 1, 0, 2, 1]
    # one partition: what comes after a user's second event waits with it
    assert micro_batch_numbers(6, [requests], [requests], [0] * 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert [micro_batch.tolist() for micro_batch in split(np.array([0, 0, 1, 1, 2, 2]), 1)] == [
        [0],
        [1],
        [2],
        [3],
        [4],
        [5],
    ]
    assert split(np.array([], np.int64), 5) == []
