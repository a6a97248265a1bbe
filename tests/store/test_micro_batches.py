"""The micro_batch cutter: properties that make a micro_batch's answers those of one event at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streaming.store.micro_batches import ANY, NONE, Access, micro_batch_numbers, split

KEYS = st.integers(0, 4) | st.just(NONE)
ANY_OR_NONE = st.sampled_from([ANY, NONE])


@st.composite
def streams(draw: st.DrawFn, mixed: bool = True) -> tuple[list[Access], list[Access], list[int]]:
    """Reads and writes of up to 30 events over two tables, and their partitions.

    Args:
        mixed: some have `ANY` among keys that can be told apart.
    """
    count = draw(st.integers(0, 30))

    def access(columns: tuple[str, ...]) -> Access:
        kinds = [KEYS, ANY_OR_NONE, KEYS | st.just(ANY)][: 3 if mixed else 2]
        keys = draw(st.one_of(st.just(ANY), *(st.lists(kind, min_size=count, max_size=count) for kind in kinds)))
        return Access(draw(st.sampled_from(["actions", "requests"])), columns, keys)

    sides = st.lists(st.sampled_from([("user",), ("pair",)]), max_size=3)
    reads = [access(columns) for columns in draw(sides)]
    writes = [access(columns) for columns in draw(sides)]
    return reads, writes, draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))


def same_rows(one: Access, two: Access, p: int, q: int) -> bool:
    """Whether event p by one access and event q by another may mean the same row: straight from the definition."""
    mine = one.keys[p] if isinstance(one.keys, list) else ANY
    other = two.keys[q] if isinstance(two.keys, list) else ANY
    if one.table != two.table or NONE in (mine, other):
        return False
    return one.columns != two.columns or ANY in (mine, other) or mine == other


def touches(reads: Sequence[Access], writes: Sequence[Access], reader: int, writer: int) -> bool:
    """Whether a row that `writer` writes is one that `reader` may read."""
    return any(same_rows(read, write, reader, writer) for read in reads for write in writes)


def overwrites(reads: Sequence[Access], writes: Sequence[Access], p: int, q: int, *, perhaps: bool = False) -> bool:
    """Whether both write a row of one key, of a table that somebody reads.

    Args:
        perhaps: of a table with writes that are not told apart, any two may.
    """
    tables = {read.table for read in reads}
    for one in writes:
        for two in writes:
            if one.table not in tables or (one.table, one.columns) != (two.table, two.columns):
                continue
            of_name = [write.keys for write in writes if (write.table, write.columns) == (one.table, one.columns)]
            mixed = perhaps and any(not isinstance(keys, list) or ANY in keys for keys in of_name)
            there = not any(isinstance(w.keys, list) and w.keys[n] is NONE for w, n in ((one, p), (two, q)))
            if same_rows(one, two, p, q) or (mixed and there):
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
                elif overwrites(reads, writes, later, earlier) or (
                    given_partitions is not None and partitions[earlier] == partitions[later]
                ):
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


@given(streams(mixed=False))
def test_no_wave_is_later_than_it_must_be(stream: tuple[list[Access], list[Access], list[int]]) -> None:
    reads, writes, partitions = stream
    level = micro_batch_numbers(len(partitions), reads, writes)
    for p in range(len(partitions)):
        if level[p]:
            before = [q for q in range(p) if level[q] == level[p] - 1]
            beside = [q for q in range(p) if level[q] == level[p]]
            assert any(touches(reads, writes, p, q) or touches(reads, writes, q, p) for q in before) or any(
                overwrites(reads, writes, p, q, perhaps=True) for q in beside
            )


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


def test_who_touches_nothing_waits_for_nobody() -> None:
    reads = [Access("requests", ("user",), ["a", NONE, "a", NONE])]
    writes = [Access("requests", ("user",), ["a", NONE, "a", "b"])]
    assert micro_batch_numbers(4, reads, writes).tolist() == [0, 0, 1, 0]
    anything = [Access("requests", ("pair",), [ANY, NONE, NONE, ANY])]
    assert micro_batch_numbers(4, anything, writes).tolist() == [0, 0, 1, 2]


def test_a_row_does_not_overtake_another_of_its_key() -> None:
    """Of two that are looked up by one key, and have one time, the later is the last."""
    looked_up = Access("cards", ("card",), ["x", NONE, NONE])
    others = Access("alerts", ("country",), ["a", NONE, NONE])
    writes = [Access("cards", ("card",), [NONE, "y", "y"]), Access("alerts", ("country",), [NONE, "a", "b"])]
    assert micro_batch_numbers(3, [looked_up, others], writes).tolist() == [0, 1, 1]
    # The row of one is the second of its event.
    rows = [Access("cards", ("card",), [NONE, "z", "y"]), Access("cards", ("card",), [NONE, "y", NONE]), writes[1]]
    assert micro_batch_numbers(3, [looked_up, others], rows).tolist() == [0, 1, 1]
    # Where rows are looked up by another column, their own keys still say who may overtake.
    any_card = [Access("cards", ("country",), [ANY, NONE, NONE]), others]
    writes = [Access("alerts", ("country",), [NONE, "a", "b"]), Access("cards", ("card",), [NONE, NONE, "y"])]
    assert micro_batch_numbers(3, any_card, writes).tolist() == [0, 1, 1]
    assert micro_batch_numbers(3, [others], writes).tolist() == [0, 1, 0]
