"""The micro_batch cutter: properties that make a micro_batch's answers those of one event at a time."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from streaming.store.micro_batches import Backlog, Footprint

NAMES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
FOOTPRINTS = st.builds(Footprint, NAMES, NAMES, st.lists(st.integers(0, 2), max_size=1).map(tuple))


def share_rows(one: Footprint, two: Footprint) -> bool:
    """Whether one writes what the other reads."""
    return bool(set(one.reads) & set(two.writes) or set(one.writes) & set(two.reads))


def keep_order(one: Footprint, two: Footprint) -> bool:
    """Whether neither may overtake the other."""
    return bool(set(one.writes) & set(two.writes) or set(one.lanes) & set(two.lanes))


def turns_of(events: Sequence[Footprint], data: st.DataObject) -> list[list[int]]:
    """The micro-batches in which events are done that come a few at a time; sometimes not all that could be are taken,
    and sometimes only the first of those that were are done."""
    backlog: Backlog[int] = Backlog()
    coming, turns = list(enumerate(events)), []
    while coming or len(backlog):
        for _ in range(data.draw(st.integers(0 if len(backlog) else 1, 8))):
            if coming:
                number, footprint = coming.pop(0)
                backlog.add(number, footprint)
        count_max = data.draw(st.integers(1, 5))
        ready = backlog.ready(count_max)
        assert 0 < len(ready) <= count_max
        turn = ready[: data.draw(st.integers(1, len(ready)))]
        backlog.done(turn)
        turns.append(turn)
    return turns


@given(st.lists(FOOTPRINTS, max_size=30), st.data())
def test_events_that_touch_each_others_rows_keep_their_order_in_different_turns(
    events: list[Footprint], data: st.DataObject
) -> None:
    turns = turns_of(events, data)
    assert sorted(number for turn in turns for number in turn) == list(range(len(events)))
    assert all(turn == sorted(turn) for turn in turns)
    turn_of = {number: at for at, turn in enumerate(turns) for number in turn}
    for later in range(len(events)):
        for earlier in range(later):
            if share_rows(events[earlier], events[later]):
                assert turn_of[earlier] < turn_of[later]
            elif keep_order(events[earlier], events[later]):
                assert turn_of[earlier] <= turn_of[later]


@given(st.lists(FOOTPRINTS, max_size=30))
def test_nobody_waits_longer_than_it_must(events: list[Footprint]) -> None:
    backlog: Backlog[int] = Backlog()
    for number, footprint in enumerate(events):
        backlog.add(number, footprint)
    waiting = set(range(len(events)))
    while waiting:
        ready = backlog.ready(len(events))
        for later in waiting - set(ready):
            before = [earlier for earlier in waiting if earlier < later]
            assert any(share_rows(events[earlier], events[later]) for earlier in before) or any(
                keep_order(events[earlier], events[later]) for earlier in before if earlier not in ready
            )
        backlog.done(ready)
        waiting -= set(ready)
    assert len(backlog) == 0


def test_a_users_events_follow_each_other_and_other_users_do_not_wait() -> None:
    def turns(lanes: Sequence[int]) -> list[list[int]]:
        backlog: Backlog[int] = Backlog()
        for number, (user, lane) in enumerate(zip("abacab", lanes, strict=True)):
            backlog.add(number, Footprint((user,), (user,), (lane,)))
        found = []
        while ready := backlog.ready(10):
            backlog.done(ready)
            found.append(ready)
        return found

    assert turns(range(6)) == [[0, 1, 3], [2, 5], [4]]
    # one partition: what comes after a user's second event waits with it
    assert turns([0] * 6) == [[0, 1], [2, 3], [4, 5]]


def test_a_row_does_not_overtake_another_of_its_key() -> None:
    """Of two that are looked up by one key, and have one time, the later is the last."""
    backlog: Backlog[str] = Backlog()
    backlog.add("asks", Footprint(reads=("x", "a")))
    backlog.add("writes both", Footprint(writes=("y", "a")))
    backlog.add("writes one, twice", Footprint(writes=("y", "y")))
    assert backlog.ready(10) == ["asks"]
    backlog.done(["asks"])
    assert backlog.ready(1) == ["writes both"]
    assert backlog.ready(10) == ["writes both", "writes one, twice"]


def test_what_is_done_is_forgotten() -> None:
    """Else a user's events of a year lie there: each knows the one before."""

    class Event:
        pass

    backlog: Backlog[Event] = Backlog()
    seen: list[weakref.ref[Event]] = []
    for _ in range(50):
        event = Event()
        seen.append(weakref.ref(event))
        backlog.add(event, Footprint(("row",), ("row",), ("lane",)))
        if len(backlog) == 3:
            backlog.done(backlog.ready(1))
    del event
    gc.collect()
    assert len(backlog) == 2
    assert sum(ref() is not None for ref in seen) <= 3  # the one before the first of them is done, but known to it
    backlog.clear()
    gc.collect()
    assert not any(ref() for ref in seen)
    assert backlog.ready(5) == []
